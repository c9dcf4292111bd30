"""Finite scalar quantisation: a grid instead of a learned codebook."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from laser_jax.models.bottlenecks.output import BottleneckOutput, check_latents, straight_through
from laser_jax.models.precision import at_least_float32
from laser_jax.sparse import SparseCode, decode


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
        indices = jnp.broadcast_to(jnp.arange(self.embedding_dim), values.shape)
        return SparseCode(indices, values)

    def decode(self, atoms, code):
        """Returns the latents `(b, h, w, c)` that a code stands for."""
        return decode(code, atoms)

    def bits_per_signal(self, coefficient_bits):
        """Returns the bits of a latent's fixed-length code."""
        return float(np.sum(np.log2(self.levels)))

    def init_dictionary(self, dictionary, latents, *, key):
        """Returns the collection as it is: a grid needs no data."""
        return dictionary

    def adapt(self, dictionary, latents, code, *, step, key):
        """Returns the collection as it is: a grid does not learn."""
        return dictionary

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
