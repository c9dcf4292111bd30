"""How a bottleneck with learned atoms codes a signal: one small object for each way."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

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
    rate_distortion_stages,
    residual_nearest_atoms,
    top_k,
    uniform_rate_model,
)
from laser_jax.sparse.bits import sparse_bits, vq_bits

PURSUITS: dict[str, Callable[..., SparseCode]] = {
    "omp": omp,
    "ols": functools.partial(omp, selection="ols"),
    "matching_pursuit": matching_pursuit,
    "gradient_pursuit": gradient_pursuit,
    "iterative_hard_thresholding": iterative_hard_thresholding,
    "top_k": top_k,
}
RATE_DISTORTION = "rate_distortion"  # the coder that weighs error against bits
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
    bit_price: Any

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


@dataclasses.dataclass(frozen=True)
class Stages:
    """One atom of each stage with coefficient 1, the nearest to what the stages before left."""

    num_stages: int

    def encode(self, signals: Signals, atoms: Atoms) -> SparseCode:
        """Returns the code of signals."""
        return residual_nearest_atoms(signals, atoms, stages=self.num_stages)

    def bits(self, num_atoms: int, coefficient_bits: float) -> float:
        """Returns the bits of a signal's code; it has no coefficients."""
        return vq_bits(num_atoms, stages=self.num_stages)


@dataclasses.dataclass(frozen=True)
class RateStages:
    """As many of the first stages, with coefficient 1, as are worth their bits."""

    num_stages: int
    bit_price: Any

    def encode(self, signals: Signals, atoms: Atoms) -> SparseCode:
        """Returns the code of signals; unused stages have coefficient 0."""
        code = self.levels(signals, atoms)
        return code._replace(coefficients=code.coefficients.astype(signals.dtype))

    def levels(self, signals: Signals, atoms: Atoms, model: RateModel | None = None) -> SparseCode:
        """Returns the integer code of signals; without a model all symbols cost the same."""
        if model is None:
            m, k = atoms.shape[0], self.num_stages
            counts = jnp.full(k + 1, math.log2(k + 1))
            model = RateModel(jnp.full(m, math.log2(m // k)), jnp.zeros(1), counts)
        return rate_distortion_stages(
            signals, atoms, model, stages=self.num_stages, bit_price=self.bit_price
        )

    def bits(self, num_atoms: int, coefficient_bits: float) -> float:
        """Returns the bits that distinguish all codes, an upper bound of what they need."""
        size = num_atoms // self.num_stages
        return math.log2(sum(size**n for n in range(self.num_stages + 1)))
