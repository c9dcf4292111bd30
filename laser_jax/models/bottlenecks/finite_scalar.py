"""Finite scalar quantisation: a grid instead of a learned codebook."""

import itertools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from laser_jax.models.bottlenecks.base import Bottleneck
from laser_jax.models.bottlenecks.output import Atoms, Latents, as_pair
from laser_jax.ranges import Integer, Several, setting
from laser_jax.sparse import SparseCode
from laser_jax.tokens import Layout

LARGEST_TABLE = 2**20  # entries whose use is counted, so that the table's memory is bounded


class FiniteScalarQuantizer(Bottleneck):
    """Each entry of a signal is squashed and rounded to one of a few values in [-1, 1].

    As a sparse code: the atoms are the unit vectors, every signal uses all of them, and the
    coefficients are the rounded values. Nothing is learned and there is no loss: the gradient
    reaches the encoder through the squashing.

    Attributes:
      levels: number of values of each entry of a signal, at least 2 each. The latents have
        len(levels) channels, or len(levels) / (p q) with patches.
      patch_size: as in `Bottleneck`; p q divides len(levels).

    References:
      Mentzer, Minnen, Agustsson and Tschannen, Finite scalar quantization: VQ-VAE made
      simple, 2023.
    """

    levels: tuple[int, ...] = setting((8, 5, 5, 5), Several(Integer(2)))

    def __post_init__(self) -> None:
        super().__post_init__()
        p, q = as_pair(self.patch_size)
        if len(self.levels) % (p * q):
            raise ValueError(
                f"the {len(self.levels)} fsq_levels do not divide among the {p}x{q} latents of a "
                "signal (patch_size): give a multiple of their number."
            )

    @property
    def has_indices(self) -> bool:
        return True

    @property
    def embedding_dim(self) -> int:
        """Channels of the latents."""
        p, q = as_pair(self.patch_size)
        return len(self.levels) // (p * q)

    @property
    def num_embeddings(self) -> int:
        """m, as many atoms as a signal has entries."""
        return len(self.levels)

    @property
    def num_codes(self) -> int:
        """Points of the grid, the product of the levels: the vocabulary of `to_indices`."""
        return math.prod(self.levels)

    @property
    def num_entries(self) -> int:
        """Entries whose use is counted: the grid's points, at most `LARGEST_TABLE`.

        In a larger grid, points that differ only in the last levels count as one entry.
        """
        products = itertools.accumulate(self.levels, int.__mul__, initial=1)
        return max(n for n in products if n <= LARGEST_TABLE)

    def random_atoms(self) -> Atoms:
        return jnp.eye(self.num_embeddings)

    def signals(self, latents: Latents) -> Float[Array, "b rows columns d"]:
        """Returns the squashed patches of latents: the grid's points lie at their size."""
        return self._squash(super().signals(latents)) / self._half_widths

    def choose(
        self, signals: Float[Array, "b h w d"], atoms: Atoms, step: Any = None
    ) -> SparseCode:
        values = jnp.round(signals * self._half_widths) / self._half_widths
        return SparseCode(self._entries(values), values)

    def entries(self, code: SparseCode) -> SparseCode:
        """Returns the code as one entry per signal, with coefficient 1, to count their use."""
        indices = self._number(code, self.num_entries)[..., None]
        return SparseCode(indices, jnp.ones(indices.shape, code.coefficients.dtype))

    def to_indices(self, code: SparseCode) -> Int[Array, "b h w"]:
        """Returns the number of each signal's point in the grid, in [0, num_codes).

        The first entry counts fastest, as in the paper.

        Raises:
          ValueError: if the grid has more points than int32 has numbers.
        """
        if self.num_codes > 2**31:
            raise ValueError(
                f"fsq_levels {self.levels} have {self.num_codes} codes, more than 2^31: they "
                "have no int32 index. Use the code's coefficients, one per entry of a signal."
            )
        return self._number(code, self.num_codes)

    def from_indices(self, indices: Int[Array, "b h w"]) -> SparseCode:
        digits = []
        for n in self.levels:
            digits.append(indices % n - n // 2)
            indices = indices // n
        values = jnp.stack(digits, axis=-1) / self._half_widths
        return SparseCode(self._entries(values), values)

    def _number(self, code, size):
        """The mixed-radix number of the first entries' values, those that number `size`."""
        values = jnp.round(code.coefficients * self._half_widths).astype(jnp.int32)
        number, place = jnp.zeros(values.shape[:-1], jnp.int32), 1
        for entry, n in enumerate(self.levels):
            if place == size:
                break
            number += place * (values[..., entry] + n // 2)
            place *= n
        return number

    def _entries(self, values):
        return jnp.broadcast_to(jnp.arange(self.num_embeddings), values.shape)

    def token_layout(self, step: float | None = None) -> Layout:
        return Layout.of_grid(self.levels)

    def bits_per_signal(self, coefficient_bits: float) -> float:
        """Returns the bits of a signal's code; its coefficients are part of it."""
        return float(np.sum(np.log2(self.levels)))

    @property
    def _half_widths(self):
        return jnp.array([n // 2 for n in self.levels], jnp.float32)[None, None, None, :]

    def _squash(self, signals):
        """Signals between the outermost values of each entry, which lie at integers."""
        levels = np.array(self.levels)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift, half, offset = (
            jnp.asarray(x, jnp.float32)[None, None, None, :]
            for x in (np.arctanh(offset / half), half, offset)
        )
        return jnp.tanh(signals + shift) * half - offset
