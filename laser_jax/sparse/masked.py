"""Signals of which some entries are missing, or count less than others.

With weights w >= 0 of its entries, the error of a signal is sum w (y - x D)^2. Its code is the
plain one of sqrt(w) y in atoms sqrt(w) d_j, which differ from signal to signal. They are never
stored: their correlations take one product, (sqrt(w) r) D^T, and their norms another, w (D^2)^T.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.atoms import Atoms
from laser_jax.sparse.linalg import matmul, power_scales


def hide(signals, weights):
    """Returns signals, with 0 in entries of weight 0, and weights.

    A signal with a weight that is negative or not finite becomes NaN, its weights 0.

    Args:
      signals: `(..., d)`.
      weights: `(..., d)`; no gradient goes through them.
    """
    weights = lax.stop_gradient(weights)
    valid = jnp.all((weights >= 0) & jnp.isfinite(weights), axis=-1, keepdims=True)
    weights = jnp.where(valid, weights, 0)
    return jnp.where(valid, jnp.where(weights > 0, signals, 0), jnp.nan), weights


def apply_weights(signals, weights):
    """Returns the signals of `hide`, the roots of the weights, and the power of two they are over.

    Each signal has its own power of two, `(..., 1)`.
    """
    signals, weights = hide(signals, weights)
    scales = power_scales(weights)
    return signals, jnp.sqrt(weights / scales), scales


def impute(signals, weights, approximation):
    """Returns signals and weights `(..., 1)` whose plain error bounds the weighted one from above.

    Where the weight of an entry is below the signal's largest, the approximation takes its place in
    part: all of it where the weight is 0. The bound is tight at the approximation, so what lowers
    it lowers the weighted error (majorisation and minimisation).
    """
    largest = jnp.max(weights, axis=-1, keepdims=True)
    share = weights / jnp.where(largest > 0, largest, 1)
    return approximation + share * (signals - approximation), largest


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAtoms(Atoms):
    """The atoms as each signal of a block sees them, of norm 1, or 0 where it sees nothing.

    Attributes:
      roots: `(b, d)`, the square roots of the weights.
      scales: `(b, m)`, 1 over the norms of the atoms times the roots; 0 where the norm is 0.
    """

    roots: jax.Array
    scales: jax.Array

    @classmethod
    def of(cls, atoms, roots):
        """Returns `atoms`, whose blocks have signals as rows, seen through the roots `(b, d)`."""
        squares = matmul(roots**2, (atoms.vectors**2).T)
        scales = jnp.where(squares > 0, lax.rsqrt(jnp.where(squares > 0, squares, 1)), 0)
        # Barriers: else XLA recomputes the product where the scales are used.
        roots, scales = lax.optimization_barrier((roots, scales))
        return cls(atoms.vectors, None, 1, at_once=atoms.at_once, roots=roots, scales=scales)

    def correlations(self, vectors):
        return super().correlations(vectors * self.roots) * self.scales

    def take(self, indices):
        scale = jnp.take_along_axis(self.scales, indices[:, None], axis=1, mode="clip")
        return super().take(indices) * (self.roots * scale)

    def add(self, total, weights, indices, count):
        weights = weights * self.pick(self.scales, indices)
        return total + self.roots * super().add(jnp.zeros_like(total), weights, indices, count)
