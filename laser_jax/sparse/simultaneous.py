"""Simultaneous orthogonal matching pursuit: one support for a group of signals.

Each iteration takes the atom whose correlations with the group's residuals have the largest sum of
sizes, and makes all residuals orthogonal to it by Gram-Schmidt, made twice. The coefficients
are then each signal's least-squares ones.

Cost: k products of the residuals with the dictionary, as for `omp` without a Gram matrix; the
support is orthogonalised once a group.
Memory: O(block_size (g (m + d) + k d)) in addition to the result.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from laser_jax.checks import check_at_least, check_signals, check_sparsity, check_tolerance
from laser_jax.sparse.blocks import map_blocks, one_batch
from laser_jax.sparse.code import SparseCode, is_finite
from laser_jax.sparse.coder import fill_unused
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul, power_scales, row_argmax, safe_norms
from laser_jax.sparse.loops import fori_loop, with_row
from laser_jax.sparse.platforms import default_block_size
from laser_jax.sparse.support import least_squares


@entry(static=("sparsity", "block_size"), like="signals")
def simultaneous_omp(
    signals: Float[Array, "*batch g d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    block_size: int | None = None,
) -> SparseCode:
    """Codes groups of signals; the signals of a group share their atoms, chosen greedily.

    Approximates argmin_X ||Y - X D||^2 for each group Y `(g, d)`, where at most k columns of X are
    not 0. A group of one signal is coded as by `omp`. Differentiable twice with regard to signals
    and dictionary through the coefficients, in both modes, the support held.

    Args:
      signals: `(..., g, d)` float array, groups of g signals, one signal a row.
      dictionary: `(m, d)` float array, atoms of any norm. Zero atoms are never used.
      sparsity: atoms a group, `1 <= sparsity <= m`. Static under jit.
      tolerance: squared residual, summed over the group, at which the group is done, `>= 0`; a
        scalar, an array that broadcasts to one number a group, `(...)`, or None to stop only where
        no atom can lower the error further.
      block_size: groups coded together; None chooses it.

    Returns:
      A `SparseCode` of shape `(..., g, k)`; the indices of a group's signals are equal. A signal
      that is not finite gets coefficients NaN and is ignored in its group's choice; an atom that
      is not finite is never used. Places that were not needed have coefficient 0.

    Raises:
      ValueError: if signals are not groups, widths differ, or `sparsity` or `tolerance` is out of
        range.

    References:
      Tropp, Gilbert and Strauss, Algorithms for simultaneous sparse approximation. Part I: Greedy
      pursuit, 2006.
    """
    signals, dictionary = check_signals(signals, dictionary)
    if signals.ndim < 2:
        raise ValueError(
            f"signals must be groups, (..., g, d), got {signals.shape}; for one code a signal use "
            "omp."
        )
    check_sparsity(sparsity, dictionary.shape[0])
    if block_size is not None:
        check_at_least("block_size", block_size, 1)
    *leading, g, d = signals.shape
    groups = signals.reshape(*leading, g * d)
    limits = check_tolerance(tolerance, groups)
    choose = functools.partial(_choose, sparsity, g, block_size)
    indices, used = one_batch(choose, *lax.stop_gradient((dictionary, groups, limits)))
    shape = (*leading, g, sparsity)
    indices, used = (jnp.broadcast_to(x[..., None, :], shape) for x in (indices, used))
    code = least_squares(signals, dictionary, SparseCode(indices, used.astype(signals.dtype)))
    coded = is_finite(signals) & jnp.broadcast_to(limits >= 0, leading)[..., None, None]
    return code._replace(coefficients=jnp.where(coded, code.coefficients, jnp.nan))


def _choose(sparsity, g, block_size, dictionary, groups, tolerance):
    """Returns the atoms of each group, `(..., k)`, and which of these places are used."""
    dictionary = jnp.where(is_finite(dictionary), dictionary, 0)
    atoms = dictionary / safe_norms(dictionary)
    (m, d), steps = atoms.shape, min(sparsity, atoms.shape[1])
    size = block_size or default_block_size(max(g * (m + 3 * d) + steps * d, 1))

    def choose_block(rows):
        groups, tolerance = rows
        signals = groups.reshape(len(groups), g, d)
        signals = jnp.where(is_finite(signals), signals, 0)
        scale = power_scales(signals, (1, 2))
        tolerance = (jnp.sqrt(tolerance) / scale[:, 0]) ** 2
        indices = _pursue(signals / scale, atoms, steps, tolerance[:, 0])
        filled = fill_unused(SparseCode(indices, jnp.zeros(indices.shape)), sparsity, m).indices
        used = jnp.pad(indices, ((0, sparsity - steps), (0, 0)), constant_values=m) < m
        return filled.T, used.T

    tolerance = jnp.broadcast_to(tolerance, groups.shape[:-1])[..., None]
    return map_blocks(choose_block, (groups, tolerance), size)


def _pursue(signals, atoms, steps, tolerance):
    """Returns the chosen atoms `(steps, b)`, index m where none was wanted."""
    (b, _, d), (m, _) = signals.shape, atoms.shape
    eps = jnp.finfo(signals.dtype).eps

    def add_atom(i, state):
        residual, squared, directions, indices = state
        index, _ = row_argmax(jnp.sum(jnp.abs(matmul(residual, atoms.T)), axis=1))
        direction = atoms[index]
        for _ in range(2):  # once would leave more than rounding of the directions before
            parts = jnp.sum(directions * direction[None], axis=-1, keepdims=True)
            direction = direction - jnp.sum(parts * directions, axis=0)
        square = jnp.sum(direction**2, axis=-1)
        # An atom inside the span of those chosen is the best only if none can lower the error.
        useful = (square > (32 * eps) ** 2) & (squared > floor)
        scale = jnp.where(useful, lax.rsqrt(jnp.where(useful, square, 1)), 0)
        direction = lax.optimization_barrier(direction * scale[:, None])
        parts = jnp.sum(residual * direction[:, None], axis=-1, keepdims=True)
        residual = residual - parts * direction[:, None]
        squared = jnp.where(useful, jnp.sum(residual**2, axis=(1, 2)), 0)
        chosen = with_row(indices, i, jnp.where(useful, index, m))
        return residual, squared, with_row(directions, i, direction), chosen

    squared = jnp.sum(signals**2, axis=(1, 2))
    # A residual this small is rounding: its correlations no longer mean anything.
    floor = jnp.maximum(tolerance, squared * (4 * eps) ** 2 * d)
    directions = jnp.zeros((steps, b, d), signals.dtype)
    start = signals, squared, directions, jnp.full((steps, b), m, jnp.int32)
    return fori_loop(0, steps, add_atom, start)[-1]
