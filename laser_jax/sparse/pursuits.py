"""The other sparse coders: cheaper or more parallel than OMP, and less exact.

All take what `omp` takes and return a `SparseCode`:

| coder | coefficients | use it when |
|---|---|---|
| `matching_pursuit` | inner products with the residual | speed matters more than the error |
| `gradient_pursuit` | one gradient step over the support an atom | k is large |
| `iterative_hard_thresholding` | gradient steps over all atoms | the dictionary is incoherent |
| `top_k` | inner products with the signal | the dictionary is orthonormal, or learned for it |
"""

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.checks import check_at_least
from laser_jax.sparse.code import SparseCode, decode, to_dense
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.linalg import matmul, row_argmax


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
        tolerance=tolerance,
        block_size=block_size,
        options=(_project,),
    )


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
        tolerance=tolerance,
        block_size=block_size,
        options=(_descend,),
    )


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
        tolerance=tolerance,
        block_size=block_size,
        options=(iterations,),
    )


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
        tolerance=tolerance,
        block_size=block_size,
    )


def _greedy_block(signals, atoms, sparsity, tolerance, refine):
    b, m = signals.shape[0], atoms.shape[0]

    def add_atom(i, state):
        code, residual, taken = state
        correlations = matmul(residual, atoms.T)
        index, score = row_argmax(jnp.where(taken, -1, jnp.abs(correlations)))
        useful = (score > 0) & (jnp.sum(residual**2, -1) > tolerance)
        indices = code.indices.at[:, i].set(jnp.where(useful, index, m))
        change, approximation = refine(i, indices, correlations, atoms)
        coefficients = code.coefficients + jnp.where(useful[:, None], change, 0)
        residual -= jnp.where(useful[:, None], approximation, 0)
        taken |= jnp.arange(m)[None, :] == index[:, None]
        return SparseCode(indices, coefficients), residual, taken

    code = SparseCode(
        jnp.full((b, sparsity), m, jnp.int32), jnp.zeros((b, sparsity), signals.dtype)
    )
    state = (code, signals, jnp.zeros((b, m), bool))
    return lax.fori_loop(0, sparsity, add_atom, state)[0]


def _project(i, indices, correlations, atoms):
    """The newest atom's inner product; the other coefficients stay."""
    index = jnp.minimum(indices[:, i], atoms.shape[0] - 1)
    value = jnp.take_along_axis(correlations, index[:, None], axis=1)
    change = jnp.zeros(indices.shape, value.dtype).at[:, i].set(value[:, 0])
    return change, value * atoms[index]


def _descend(i, indices, correlations, atoms):
    """The gradient over the support, times the step that lowers the error most."""
    del i
    held = indices < atoms.shape[0]
    indices = jnp.minimum(indices, atoms.shape[0] - 1)
    gradient = jnp.where(held, jnp.take_along_axis(correlations, indices, axis=1), 0)
    direction = decode(SparseCode(indices, gradient), atoms)
    step = _best_step(gradient, direction)
    return step * gradient, step * direction


def _best_step(gradient, direction):
    """argmin over t of ||r - t g D||^2 for g the gradient (zero outside the support)."""
    squared = jnp.sum(direction**2, -1, keepdims=True)
    return jnp.sum(gradient**2, -1, keepdims=True) / jnp.where(squared > 0, squared, 1)


def _top_k_block(signals, atoms, sparsity, tolerance):
    code = _largest(matmul(signals, atoms.T), sparsity)
    small = jnp.sum(signals**2, -1, keepdims=True) <= tolerance
    return SparseCode(code.indices, jnp.where(small, 0, code.coefficients))


def _largest(dense, sparsity):
    _, indices = lax.top_k(jnp.abs(dense), sparsity)
    indices = indices.astype(jnp.int32)
    return SparseCode(indices, jnp.take_along_axis(dense, indices, axis=-1))


def _threshold_block(signals, atoms, sparsity, tolerance, iterations):
    m = atoms.shape[0]

    def step(_, state):
        code, best, best_error = state
        dense = to_dense(code, m)
        residual = signals - decode(code, atoms)
        gradient = matmul(residual, atoms.T)
        on_support = jnp.take_along_axis(gradient, code.indices, axis=-1)
        length = _best_step(on_support, decode(SparseCode(code.indices, on_support), atoms))
        code = _largest(dense + length * gradient, sparsity)
        error = jnp.sum((signals - decode(code, atoms)) ** 2, -1)
        better = error < best_error
        best = jax.tree.map(lambda new, old: jnp.where(better[:, None], new, old), code, best)
        return code, best, jnp.minimum(error, best_error)

    # The first step starts from zero, on the support of the largest correlations.
    start = _largest(matmul(signals, atoms.T), sparsity)
    start = start._replace(coefficients=jnp.zeros_like(start.coefficients))
    squared = jnp.sum(signals**2, -1)
    _, best, _ = lax.fori_loop(0, iterations, step, (start, start, squared))
    small = squared[:, None] <= tolerance
    return SparseCode(best.indices, jnp.where(small, 0, best.coefficients))
