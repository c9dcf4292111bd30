"""The other sparse coders: cheaper or more parallel than OMP, and less exact.

All take what `omp` takes and return a `SparseCode`:

| coder | coefficients | use it when |
|---|---|---|
| `matching_pursuit` | inner products with the residual | speed matters more than the error |
| `gradient_pursuit` | one gradient step over the support an atom | k is large |
| `iterative_hard_thresholding` | gradient steps over all atoms | the dictionary is incoherent |
| `top_k` | inner products with the signal | the dictionary is orthonormal, or learned for it |
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.checks import check_at_least
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.entry import entry
from laser_jax.sparse.loops import fori_loop


@entry(static=("sparsity", "block_size"), compiled=False, like="signals")
def matching_pursuit(signals, dictionary, *, sparsity, tolerance=None, block_size=None):
    """Codes each signal greedily, each coefficient the inner product with the residual.

    No least squares; no atom is chosen twice. Args, Returns and Raises as for `omp`.

    References:
      Mallat and Zhang, Matching pursuits with time-frequency dictionaries, 1993.
    """
    return run_coder(
        _greedy_block,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=1,
        tolerance=tolerance,
        block_size=block_size,
        options=(_project, 1),
    )


@entry(static=("sparsity", "block_size"), compiled=False, like="signals")
def gradient_pursuit(signals, dictionary, *, sparsity, tolerance=None, block_size=None):
    """Codes each signal greedily, with one exact-step gradient descent over the support an atom.

    Towards OMP's coefficients without its orthogonalisation. Args, Returns and
    Raises as for `omp`.

    References:
      Blumensath and Davies, Gradient pursuits, IEEE Trans. Signal Processing, 2008.
    """
    return run_coder(
        _greedy_block,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=sparsity / 2,
        tolerance=tolerance,
        block_size=block_size,
        options=(_descend, sparsity),
    )


@entry(static=("sparsity", "iterations", "block_size"), compiled=False, like="signals")
def iterative_hard_thresholding(
    signals, dictionary, *, sparsity, iterations=20, tolerance=None, block_size=None
):
    """Codes each signal by gradient steps, each followed by keeping the k largest coefficients.

    The step is the best one over the current support (normalised IHT), and the best
    code met on the way is returned.

    Args:
      iterations: gradient steps, at least 1. The others as for `omp`.

    Returns and Raises: as for `omp`.

    References:
      Blumensath and Davies, Normalized iterative hard thresholding, IEEE J. Selected
      Topics in Signal Processing, 2010.
    """
    check_at_least("iterations", iterations, 1)
    return run_coder(
        _threshold_block,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=sparsity,
        tolerance=tolerance,
        block_size=block_size,
        options=(iterations,),
    )


@entry(static=("sparsity", "block_size"), compiled=False, like="signals")
def top_k(signals, dictionary, *, sparsity, tolerance=None, block_size=None):
    """Codes each signal with its k largest inner products. Args, Returns and Raises as for `omp`.

    The best code if the dictionary is orthonormal; otherwise the crudest one here.
    With a tolerance, a signal already that small gets zero coefficients.
    """
    return run_coder(
        _top_k_block,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=math.inf,  # one step: a Gram matrix would serve nothing
        tolerance=tolerance,
        block_size=block_size,
    )


def _greedy_block(signals, atoms, sparsity, tolerance, refine, changed):
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
        index, score = atoms.argmax(jnp.where(taken, -1, jnp.abs(correlations)))
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
    return fori_loop(0, sparsity, add_atom, state)[0]


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

    # On a CPU `lax.top_k` takes half as long again at k = 8 (on others signals are rows anyway).
    def take_largest(i, state):
        indices, size = state
        index, _ = atoms.argmax(size)
        taken = lax.broadcasted_iota(jnp.int32, size.shape, atoms.axis) == atoms.each(index)
        return indices.at[i].set(index), jnp.where(taken, -1, size)

    if jax.default_backend() == "cpu":
        empty = jnp.zeros((sparsity, b), jnp.int32)
        indices, _ = fori_loop(0, sparsity, take_largest, (empty, size))
    else:
        indices = lax.top_k(size, sparsity)[1].astype(jnp.int32).T
    return SparseCode(indices, atoms.pick(values, indices))


def _threshold_block(signals, atoms, sparsity, tolerance, iterations):
    squared = atoms.dot(signals, signals)
    first = atoms.correlations(signals)

    def step(_, state):
        code, gradient, best, best_error = state
        on_support = atoms.pick(gradient, code.indices)
        length, _ = _best_step(on_support, code.indices, sparsity, atoms)
        moved = atoms.add_at(atoms.each(length) * gradient, code)
        code = _largest(moved, sparsity, atoms)
        residual = atoms.add(signals, -code.coefficients, code.indices, sparsity)
        if atoms.gram is None:
            gradient = atoms.correlations(residual)
        else:
            gradient = atoms.add_correlations(first, -code.coefficients, code.indices, sparsity)
        error = atoms.dot(residual, residual)
        better = error < best_error
        best = jax.tree.map(lambda new, old: jnp.where(better[None, :], new, old), code, best)
        return code, gradient, best, jnp.minimum(error, best_error)

    # The first step starts from zero, on the support of the largest correlations.
    start = _largest(first, sparsity, atoms)
    start = start._replace(coefficients=jnp.zeros_like(start.coefficients))
    state = fori_loop(0, iterations, step, (start, first, start, squared))
    small = squared <= tolerance
    best = state[2]
    return best._replace(coefficients=jnp.where(small[None, :], 0, best.coefficients))
