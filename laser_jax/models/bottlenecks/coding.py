"""How the sparse bottleneck codes a signal: one small object for each way."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from laser_jax.models.bottlenecks.output import Atoms, Signals
from laser_jax.sparse import (
    RateModel,
    SparseCode,
    dequantize_coefficients,
    gradient_pursuit,
    iterative_hard_thresholding,
    matching_pursuit,
    omp,
    rate_distortion_pursuit,
    top_k,
    uniform_rate_model,
)
from laser_jax.sparse.bits import sparse_bits

PURSUITS = {
    "omp": omp,
    "ols": functools.partial(omp, selection="ols"),
    "matching_pursuit": matching_pursuit,
    "gradient_pursuit": gradient_pursuit,
    "iterative_hard_thresholding": iterative_hard_thresholding,
    "top_k": top_k,
}
MAX_LEVEL = 31  # largest absolute value of the integer coefficients


@dataclasses.dataclass(frozen=True)
class Pursuit:
    """At most `sparsity` atoms with real coefficients, fewer if the tolerance is reached."""

    pursuit: Callable[..., SparseCode]
    sparsity: int
    tolerance: Any

    def encode(self, signals: Signals, atoms: Atoms) -> SparseCode:
        """Returns the code of signals."""
        return self.pursuit(signals, atoms, sparsity=self.sparsity, tolerance=self.tolerance)

    def bits(self, num_atoms: int, coefficient_bits: float) -> float:
        """Returns the bits of a signal's fixed-length code."""
        return sparse_bits(num_atoms, sparsity=self.sparsity, coefficient_bits=coefficient_bits)


@dataclasses.dataclass(frozen=True)
class RatePursuit:
    """As many atoms with integer coefficients, at most `sparsity`, as are worth their bits."""

    sparsity: int
    step: float
    bit_price: float

    def encode(self, signals: Signals, atoms: Atoms) -> SparseCode:
        """Returns the code of signals, its coefficients multiples of the step."""
        return dequantize_coefficients(self.levels(signals, atoms), self.step)

    def levels(self, signals: Signals, atoms: Atoms, model: RateModel | None = None) -> SparseCode:
        """Returns the integer code of signals; without a model all symbols cost the same."""
        if model is None:
            model = uniform_rate_model(atoms.shape[0], sparsity=self.sparsity, max_level=MAX_LEVEL)
        return rate_distortion_pursuit(
            signals, atoms, model, sparsity=self.sparsity, step=self.step, bit_price=self.bit_price
        )

    def bits(self, num_atoms: int, coefficient_bits: float) -> float:
        """Returns the bits that distinguish all codes, an upper bound of what they need."""
        sizes = range(self.sparsity + 1)
        return math.log2(sum(math.comb(num_atoms, n) * (2 * MAX_LEVEL) ** n for n in sizes))
