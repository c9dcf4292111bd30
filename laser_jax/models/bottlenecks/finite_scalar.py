"""Finite scalar quantisation: a grid instead of a learned codebook."""

import itertools
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from laser_jax.models.bottlenecks.output import BottleneckOutput, check_latents, straight_through
from laser_jax.models.precision import at_least_float32
from laser_jax.sparse import SparseCode, decode, usage

LARGEST_TABLE = 2**20  # entries whose use is counted, so that the table's memory is bounded


class FiniteScalarQuantizer(nn.Module):
    """Each channel of a latent is squashed and rounded to one of a few values in [-1, 1].

    In the words of the other bottlenecks: the atoms are the channels' unit vectors, every signal
    uses all of them, and the coefficients are the rounded values. Nothing of it is learned, and
    there is no loss: gradients reach the encoder through the squashing.

    Attributes:
      levels: values of each channel, each at least 2; their number is the latents' channels.

    References:
      Mentzer, Minnen, Agustsson and Tschannen, Finite scalar quantization: VQ-VAE made
      simple, 2023.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)

    def __post_init__(self):
        super().__post_init__()
        if not self.levels or any(not isinstance(n, int) or n < 2 for n in self.levels):
            raise ValueError(f"levels must be integers of at least 2, got {self.levels}.")

    learns_by_gradient = False
    patch_size = (1, 1)

    @property
    def embedding_dim(self):
        """Channels of the latents."""
        return len(self.levels)

    @property
    def num_embeddings(self):
        """m, as many atoms as channels."""
        return len(self.levels)

    @property
    def num_codes(self):
        """Points of the grid, the product of the levels: the vocabulary of `to_indices`."""
        return math.prod(self.levels)

    @property
    def num_entries(self):
        """Entries whose use is counted: the grid's points, at most `LARGEST_TABLE`.

        In a larger grid, points that differ only in the last channels count as one entry.
        """
        products = itertools.accumulate(self.levels, int.__mul__, initial=1)
        return max(n for n in products if n <= LARGEST_TABLE)

    @nn.compact
    def __call__(self, latents):
        """Codes `(b, h, w, channels)` latents; returns a `BottleneckOutput`."""
        check_latents(latents, self.embedding_dim)
        atoms = self.variable("dictionary", "atoms", jnp.eye, self.embedding_dim).value
        self.variable("dictionary", "usage", jnp.ones, self.num_embeddings)
        latents = at_least_float32(latents)
        code = self.encode(atoms, latents)
        approximation = self.decode(atoms, code)
        squashed = self._squash(latents) / self._half_widths
        return BottleneckOutput(
            straight_through(squashed, approximation),
            self.loss(latents, approximation, code, atoms),
            code,
        )

    def loss(self, latents, approximation, code, atoms):
        """Returns 0: nothing has to come nearer to anything."""
        return jnp.zeros((), latents.dtype)

    def encode(self, atoms, latents):
        """Returns the `SparseCode` of latents `(b, h, w, c)`: every channel, its rounded value."""
        values = jnp.round(self._squash(lax.stop_gradient(latents))) / self._half_widths
        return SparseCode(self._channels(values), values)

    def decode(self, atoms, code):
        """Returns the latents `(b, h, w, c)` that a code stands for."""
        return decode(code, atoms)

    def entries(self, code):
        """Returns the code as one entry a position, of coefficient 1, to count their use."""
        indices = self._number(code, self.num_entries)[..., None]
        return SparseCode(indices, jnp.ones(indices.shape, code.coefficients.dtype))

    def share_in_use(self, dictionary, code):
        """Returns the share of the entries that this code uses; a grid remembers no use."""
        return jnp.mean(usage(self.entries(code), self.num_entries) > 0)

    def to_indices(self, code):
        """Returns the number `(b, h, w)` int32 of each position's point, in [0, num_codes).

        The first channel counts fastest, as in the paper.

        Raises:
          ValueError: if the grid has more points than int32 has numbers.
        """
        if self.num_codes > 2**31:
            raise ValueError(
                f"fsq_levels {self.levels} have {self.num_codes} codes, more than 2^31: they "
                "have no int32 index. Use the code's coefficients, one a channel."
            )
        return self._number(code, self.num_codes)

    def from_indices(self, indices):
        """Returns the `SparseCode` of indices `(b, h, w)`; the inverse of `to_indices`."""
        digits = []
        for n in self.levels:
            digits.append(indices % n - n // 2)
            indices = indices // n
        values = jnp.stack(digits, axis=-1) / self._half_widths
        return SparseCode(self._channels(values), values)

    def _number(self, code, size):
        """The mixed-radix number of the first channels' values, those that number `size`."""
        values = jnp.round(code.coefficients * self._half_widths).astype(jnp.int32)
        number, place = jnp.zeros(values.shape[:-1], jnp.int32), 1
        for channel, n in enumerate(self.levels):
            if place == size:
                break
            number += place * (values[..., channel] + n // 2)
            place *= n
        return number

    def _channels(self, values):
        return jnp.broadcast_to(jnp.arange(self.embedding_dim), values.shape)

    def bits_per_signal(self, coefficient_bits):
        """Returns the bits of a latent's fixed-length code."""
        return float(np.sum(np.log2(self.levels)))

    def init_dictionary(self, dictionary, latents, *, key):
        """Returns the collection as it is: a grid needs no data."""
        return dictionary

    def adapt(self, dictionary, latents, code, *, step, key):
        """Returns the collection as it is: a grid does not learn."""
        return dictionary

    def adapt_and_mark(self, dictionary, latents, code, *, step, key):
        """Returns what `adapt` does, and which atoms were replaced: none."""
        new = self.adapt(dictionary, latents, code, step=step, key=key)
        return new, jnp.zeros(self.num_embeddings, bool)

    @property
    def _half_widths(self):
        return jnp.array([n // 2 for n in self.levels], jnp.float32)[None, None, None, :]

    def _squash(self, latents):
        """Latents between the outermost values of each channel, which lie at integers."""
        levels = np.array(self.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift, half, offset = (
            jnp.asarray(x, jnp.float32)[None, None, None, :]
            for x in (np.arctanh(offset / half), half, offset)
        )
        return jnp.tanh(latents + shift) * half - offset
