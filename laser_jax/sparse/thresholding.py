"""Coders that keep the k largest entries: iterative hard thresholding and `top_k`.

Both are differentiable with the support held.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import check_at_least, check_signals
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import row_largest
from laser_jax.sparse.loops import fori_loop, row, with_row
from laser_jax.sparse.platforms import per_platform
from laser_jax.sparse.replay import inner_products, run_with_gradient
from laser_jax.sparse.support import least_squares, refitted


@entry(
    static=("sparsity", "iterations", "block_size", "gram_bytes"), compiled=False, like="signals"
)
def iterative_hard_thresholding(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    iterations: int = 20,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    block_size: int | None = None,
    gram_bytes: int | None = None,
) -> SparseCode:
    """Codes each signal by gradient steps, each followed by keeping the k largest coefficients.

    A step has the length that is best over the current support (normalised IHT). One that raises
    the error by more than a quarter, as the support changes, is tried again half as long in the
    next iteration. The coefficients are the least-squares ones over the best support found; with
    a tolerance only the largest of them, as many as reach it.

    Args:
      iterations: gradient steps tried, at least 1. The others as for `omp`.

    Returns and Raises: as for `omp`.

    References:
      Blumensath and Davies, Normalized iterative hard thresholding, IEEE J. Selected
      Topics in Signal Processing, 2010.
    """
    check_at_least("iterations", iterations, 1)
    signals, dictionary = check_signals(signals, dictionary)
    code = run_coder(
        _threshold_block,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=sparsity,
        tolerance=tolerance,
        block_size=block_size,
        gram_bytes=gram_bytes,
        options=(iterations, tolerance is not None),
    )
    return refitted(signals, dictionary, code)


@entry(static=("sparsity", "block_size"), compiled=False, like="signals")
def top_k(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    block_size: int | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
) -> SparseCode:
    """Codes each signal with its k largest inner products. Args, Returns and Raises as for `omp`.

    The best code if the dictionary is orthonormal; otherwise the least accurate coder here.
    With a tolerance, a signal already that small gets zero coefficients.
    """
    return run_with_gradient(
        _top_k_block,
        inner_products,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=math.inf,  # one step: a Gram matrix would serve nothing
        tolerance=tolerance,
        block_size=block_size,
        mask=mask,
    )


def _top_k_block(signals, atoms, sparsity, tolerance):
    code = _largest(atoms.correlations(signals), sparsity, atoms)
    small = atoms.dot(signals, signals) <= tolerance
    return code._replace(coefficients=jnp.where(small[None, :], 0, code.coefficients))


def _largest(values, sparsity, atoms):
    """Returns the k entries of each signal's values, a block `m` wide, largest in size."""
    b = values.shape[1 - atoms.axis]

    def take_largest(i, state):
        indices, size = state
        index, _ = atoms.argmax(size)
        taken = lax.broadcasted_iota(jnp.int32, size.shape, atoms.axis) == atoms.each(index)
        return with_row(indices, i, index), jnp.where(taken, -1, size)

    def one_by_one():
        if atoms.axis == 1:
            return row_largest(values, sparsity)
        empty = jnp.zeros((sparsity, b), jnp.int32)
        return fori_loop(0, sparsity, take_largest, (empty, _sizes(values)))[0]

    def at_once():
        rows = values if atoms.axis == 1 else values.T
        return lax.top_k(_sizes(rows), sparsity)[1].astype(jnp.int32).T

    indices = per_platform(lambda find: find(), one_by_one, at_once)
    return SparseCode(indices, atoms.pick(values, indices))


def _sizes(values):
    return jnp.nan_to_num(jnp.abs(values))  # of NaNs none is largest: one place would come k times


# Of the error in a step, relative. A new support pays later: with 1 the final error is up to six
# times as large on incoherent dictionaries, with 1.5 ten times on very coherent ones.
_RISE = 1.25


def _threshold_block(signals, atoms, sparsity, tolerance, iterations, prune):
    first = atoms.correlations(signals)

    def step(_, state):
        code, residual, error, longest, best_code, least = state
        if atoms.gram is None:
            gradient = atoms.correlations(residual)
        else:
            gradient = atoms.add_correlations(first, -code.coefficients, code.indices, sparsity)
        on_support = atoms.pick(gradient, code.indices)
        best, _ = atoms.best_step(on_support, code.indices, sparsity)
        length = jnp.minimum(best, longest)
        moved = atoms.add_at(atoms.each(length) * gradient, code)
        new = _largest(moved, sparsity, atoms)
        new_residual = atoms.add(signals, -new.coefficients, new.indices, sparsity)
        new_error = atoms.dot(new_residual, new_residual)

        def where(condition, x, y):
            return jax.tree.map(lambda x, y: jnp.where(condition[None, :], x, y), x, y)

        best_code, least = where(new_error < least, new, best_code), jnp.minimum(least, new_error)
        moves = new_error < _RISE * error
        residual = jnp.where(atoms.each(moves), new_residual, residual)
        error = jnp.where(moves, new_error, error)
        # A step too long is tried again, shorter, in the next iteration: a loop here would run
        # until the last signal of the block, and over devices communicate.
        longest = jnp.where(moves, jnp.inf, length / 2)
        return where(moves, new, code), residual, error, longest, best_code, least

    # The first step starts from zero, on the support of the largest correlations.
    start = _largest(first, sparsity, atoms)
    start = start._replace(coefficients=jnp.zeros_like(start.coefficients))
    infinite = jnp.full_like(start.coefficients[0], jnp.inf)
    squared = atoms.dot(signals, signals)
    state = (start, signals, squared, infinite, start, squared)
    code = fori_loop(0, iterations, step, state)[4]
    return _prune(signals, atoms, code, tolerance) if prune else code


def _prune(signals, atoms, code, tolerance):
    """Keeps the largest coefficients, as many as the tolerance needs."""
    rows = signals if atoms.axis == 1 else signals.T
    code = least_squares(rows, atoms.vectors, SparseCode(*(x.T for x in code)))
    order = jnp.argsort(-jnp.abs(code.coefficients), axis=-1)
    code = SparseCode(*(jnp.take_along_axis(x, order, axis=-1).T for x in code))

    def keep(i, state):
        residual, coefficients = state
        wanted = atoms.dot(residual, residual) > tolerance
        value = jnp.where(wanted, row(coefficients, i), 0)
        residual = residual - atoms.each(value) * atoms.take(row(code.indices, i))
        return residual, with_row(coefficients, i, value)

    _, coefficients = fori_loop(0, len(code.indices), keep, (signals, code.coefficients))
    return code._replace(coefficients=coefficients)
