"""The other sparse coders: cheaper or more parallel than OMP, and less exact.

All take what `omp` takes and return a `SparseCode`:

| coder | coefficients | use it when |
|---|---|---|
| `matching_pursuit` | inner products with the residual | speed matters more than the error |
| `gradient_pursuit` | one gradient step over the support an atom | k is large |
| `iterative_hard_thresholding` | least squares over the support | the dictionary is incoherent |
| `top_k` | inner products with the signal | the dictionary is orthonormal, or learned for it |

All are differentiable with the support held. A gradient computes the coefficients anew over
the support, block by block, instead of keeping what the coder did in memory.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.checks import check_at_least, check_signals
from laser_jax.sparse.code import SparseCode, drop_nonfinite
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import (
    default_block_size,
    map_blocks,
    per_platform,
    power_scales,
    safe_norms,
)
from laser_jax.sparse.loops import fori_loop, scan
from laser_jax.sparse.support import least_squares


@entry(static=("sparsity", "revisit", "block_size", "gram_bytes"), compiled=False, like="signals")
def matching_pursuit(
    signals,
    dictionary,
    *,
    sparsity,
    tolerance=None,
    revisit=False,
    block_size=None,
    gram_bytes=None,
):
    """Codes each signal greedily, each coefficient the inner product with the residual.

    Args:
      revisit: False takes a new atom in each of the `sparsity` steps. True is the textbook's
        form: a step may choose an atom again and correct its coefficient, so that a code
        has at most `sparsity` atoms, and the coefficients approach the least-squares ones.
        Not differentiable. Static.
      The others as for `omp`.

    Returns: as for `omp`.

    Raises:
      ValueError: as for `omp`; also where a gradient goes through `revisit=True`.

    References:
      Mallat and Zhang, Matching pursuits with time-frequency dictionaries, 1993.
    """
    return _run(
        _greedy_block,
        _no_gradient if revisit else _projections,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=1,
        tolerance=tolerance,
        block_size=block_size,
        gram_bytes=gram_bytes,
        options=(_project, 1, bool(revisit)),
    )


@entry(static=("sparsity", "block_size", "gram_bytes"), compiled=False, like="signals")
def gradient_pursuit(
    signals, dictionary, *, sparsity, tolerance=None, block_size=None, gram_bytes=None
):
    """Codes each signal greedily, with one exact-step gradient descent over the support an atom.

    Towards OMP's coefficients without its orthogonalisation. Args, Returns and
    Raises as for `omp`.

    References:
      Blumensath and Davies, Gradient pursuits, IEEE Trans. Signal Processing, 2008.
    """
    return _run(
        _greedy_block,
        _descents,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=sparsity / 2,
        tolerance=tolerance,
        block_size=block_size,
        gram_bytes=gram_bytes,
        options=(_descend, sparsity, False),
    )


@entry(
    static=("sparsity", "iterations", "block_size", "gram_bytes"), compiled=False, like="signals"
)
def iterative_hard_thresholding(
    signals,
    dictionary,
    *,
    sparsity,
    iterations=20,
    tolerance=None,
    block_size=None,
    gram_bytes=None,
):
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
    return least_squares(signals, dictionary, code)


@entry(static=("sparsity", "block_size"), compiled=False, like="signals")
def top_k(signals, dictionary, *, sparsity, tolerance=None, block_size=None):
    """Codes each signal with its k largest inner products. Args, Returns and Raises as for `omp`.

    The best code if the dictionary is orthonormal; otherwise the crudest one here.
    With a tolerance, a signal already that small gets zero coefficients.
    """
    return _run(
        _top_k_block,
        _inner_products,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=math.inf,  # one step: a Gram matrix would serve nothing
        tolerance=tolerance,
        block_size=block_size,
    )


def _run(code_block, replay, signals, dictionary, **options):
    """`run_coder`, and the gradient of the function `replay` through the coefficients."""
    signals, dictionary = check_signals(signals, dictionary)
    code = run_coder(code_block, signals, dictionary, **options)
    return code._replace(coefficients=_coefficients(signals, dictionary, code, replay))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _coefficients(signals, dictionary, code, replay):
    """Returns `code.coefficients`, with the gradient of `replay` attached."""
    del signals, dictionary, replay
    return code.coefficients


@_coefficients.defjvp
def _coefficients_jvp(replay, primals, tangents):
    signals, dictionary, code = primals

    def replay_all(signals, dictionary):
        return _replay_blocks(signals, dictionary, code, replay)

    _, tangent = jax.jvp(replay_all, (signals, dictionary), tangents[:2])
    return _coefficients(*primals, replay), tangent


@functools.partial(jax.jit, static_argnums=3)
def _replay_blocks(signals, dictionary, code, replay):
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    # Over powers of two, as in the coders.
    scales = power_scales(dictionary)
    floats = code.indices.shape[-1] * (signals.shape[-1] + code.indices.shape[-1])
    # On accelerators too a gradient keeps several times this at hand.
    block_size = default_block_size(floats, most=2**22)

    @jax.checkpoint  # of each block only its signals and support stay in memory
    def replay_rows(dictionary, block):
        rows, indices, coefficients = block
        own, scale = power_scales(rows), scales[indices, 0]
        atoms = dictionary[indices.T]
        norms = safe_norms(atoms)
        values = replay(rows / own, atoms / norms, coefficients.T != 0) / norms[..., 0]
        return values.T * own / scale

    replay_block = functools.partial(replay_rows, dictionary / scales)
    return map_blocks(replay_block, (signals, *code), block_size)


# Coefficients anew over a held support: signals `(b, d)`, unit atoms `(k, b, d)` in the order
# of their choice, and whether each place is used, `(k, b)`.


def _inner_products(signals, atoms, used):
    return jnp.where(used, jnp.sum(atoms * signals[None, :, :], -1), 0)


def _projections(signals, atoms, used):
    def step(residual, place):
        atom, used = place
        value = jnp.where(used, jnp.sum(residual * atom, -1), 0)
        return residual - value[:, None] * atom, value

    return scan(step, signals, (atoms, used))[1]


def _descents(signals, atoms, used):
    def step(residual, i):
        held = used & used[i][None, :] & (jnp.arange(len(used))[:, None] <= i)
        gradient = jnp.where(held, _inner_products(residual, atoms, held), 0)
        direction = jnp.sum(gradient[..., None] * atoms, 0)
        squared = jnp.sum(direction**2, -1)
        length = jnp.sum(gradient**2, 0) / jnp.where(squared > 0, squared, 1)
        return residual - length[:, None] * direction, length[None, :] * gradient

    return jnp.sum(scan(step, signals, jnp.arange(len(used)))[1], 0)


def _no_gradient(signals, atoms, used):
    raise ValueError(
        "matching_pursuit(..., revisit=True) is not differentiable; take least_squares(signals, "
        "dictionary, code) of its code with stop_gradient, which is, or revisit=False."
    )


def _greedy_block(signals, atoms, sparsity, tolerance, refine, changed, revisit):
    """Greedy coding; `refine` gives the coefficients, of which a step changes so many."""
    b, m = signals.shape[1 - atoms.axis], atoms.vectors.shape[0]

    def add_atom(i, state):
        code, residual, correlations, change, taken = state
        if atoms.gram is None:
            correlations = atoms.correlations(residual)
        else:
            correlations = atoms.add_correlations(
                correlations, -change.coefficients, change.indices, 1 if changed == 1 else i
            )
        score = jnp.abs(correlations)
        index, score = atoms.argmax(score if revisit else jnp.where(taken, -1, score))
        useful = (score > 0) & (atoms.dot(residual, residual) > tolerance)
        indices = code.indices.at[i].set(jnp.where(useful, index, m))
        coefficients, change, approximation = refine(
            i, SparseCode(indices, code.coefficients), correlations, residual, useful, atoms
        )
        taken |= lax.broadcasted_iota(jnp.int32, taken.shape, atoms.axis) == atoms.each(index)
        code = SparseCode(indices, coefficients)
        return code, residual - approximation, correlations, change, taken

    code = SparseCode(
        jnp.full((sparsity, b), m, jnp.int32), jnp.zeros((sparsity, b), signals.dtype)
    )
    correlations = atoms.correlations(signals)
    change = jax.tree.map(lambda x: x[:changed], code)
    state = (code, signals, correlations, change, jnp.zeros(correlations.shape, bool))
    code = fori_loop(0, sparsity, add_atom, state)[0]
    return fori_loop(0, sparsity, functools.partial(_merge, m), code) if revisit else code


def _merge(num_atoms, i, code):
    """Moves to place i what later places hold of its atom."""
    same = code.indices == code.indices[i][None, :]
    later = same & (jnp.arange(len(same))[:, None] > i)
    total = code.coefficients[i] + jnp.sum(jnp.where(later, code.coefficients, 0), 0)
    return SparseCode(
        jnp.where(later, num_atoms, code.indices),
        jnp.where(later, 0, code.coefficients).at[i].set(total),
    )


def _project(i, code, correlations, residual, useful, atoms):
    """The newest atom's inner product; the other coefficients stay.

    Returns the coefficients, what changed as a code, and the approximation's change.
    """
    del correlations  # these numbers again, with the rounding of all steps before
    index = code.indices[i]
    atom = atoms.take(index)
    value = jnp.where(useful, atoms.dot(residual, atom), 0)
    change = SparseCode(index[None, :], value[None, :])
    return code.coefficients.at[i].set(value), change, atoms.each(value) * atom


def _descend(i, code, correlations, residual, useful, atoms):
    """The gradient over the support, times the step that lowers the error most."""
    del residual
    held = useful[None, :] & (code.indices < atoms.vectors.shape[0])
    gradient = jnp.where(held, atoms.pick(correlations, code.indices), 0)
    step, direction = _best_step(gradient, code.indices, i + 1, atoms)
    change = SparseCode(code.indices, step[None, :] * gradient)
    return code.coefficients + change.coefficients, change, atoms.each(step) * direction


def _best_step(gradient, indices, count, atoms):
    """Returns argmin over t of ||r - t g D||^2 for g the gradient at the indices, and g D."""
    shape = indices.shape[1], atoms.vectors.shape[1]
    zeros = jnp.zeros(shape if atoms.axis == 1 else shape[::-1], gradient.dtype)
    direction = atoms.add(zeros, gradient, indices, count)
    squared = atoms.dot(direction, direction)
    step = jnp.sum(gradient**2, axis=0) / jnp.where(squared > 0, squared, 1)
    return lax.optimization_barrier((step, direction))


def _top_k_block(signals, atoms, sparsity, tolerance):
    code = _largest(atoms.correlations(signals), sparsity, atoms)
    small = atoms.dot(signals, signals) <= tolerance
    return code._replace(coefficients=jnp.where(small[None, :], 0, code.coefficients))


def _largest(values, sparsity, atoms):
    """Returns the k entries of each signal's values, a block `m` wide, largest in size."""
    b = values.shape[1 - atoms.axis]
    size = jnp.nan_to_num(jnp.abs(values))  # of NaNs none is largest: one place would come k times

    # On a CPU `lax.top_k` takes half as long again at k = 8.
    def take_largest(i, state):
        indices, size = state
        index, _ = atoms.argmax(size)
        taken = lax.broadcasted_iota(jnp.int32, size.shape, atoms.axis) == atoms.each(index)
        return indices.at[i].set(index), jnp.where(taken, -1, size)

    def one_by_one():
        empty = jnp.zeros((sparsity, b), jnp.int32)
        return fori_loop(0, sparsity, take_largest, (empty, size))[0]

    def at_once():
        rows = size if atoms.axis == 1 else size.T
        return lax.top_k(rows, sparsity)[1].astype(jnp.int32).T

    indices = per_platform(lambda find: find(), one_by_one, at_once)
    return SparseCode(indices, atoms.pick(values, indices))


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
        best, _ = _best_step(on_support, code.indices, sparsity, atoms)
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
        value = jnp.where(wanted, coefficients[i], 0)
        residual = residual - atoms.each(value) * atoms.take(code.indices[i])
        return residual, coefficients.at[i].set(value)

    _, coefficients = fori_loop(0, len(code.indices), keep, (signals, code.coefficients))
    return code._replace(coefficients=coefficients)
