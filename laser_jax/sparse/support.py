"""Coefficients over a held support: least squares, and the gradient through OMP."""

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.checks import check_at_least, check_code, check_signals
from laser_jax.sparse.code import decode
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import default_block_size, map_blocks, matmul
from laser_jax.sparse.loops import fori_loop


@entry(static=("block_size",), like="signals")
def least_squares(signals, dictionary, code, *, block_size=None):
    """Returns the code with least-squares coefficients over the atoms it uses.

    Unused places keep coefficient 0. Atoms that depend on each other share their part.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of shape `(..., k)`.
      block_size: signals taken together; None chooses it.

    Raises:
      ValueError: if the shapes do not fit.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)

    def solve(block):
        signal, indices, used = block
        atoms = dictionary[indices]
        return _solve(atoms, used, matmul(atoms, signal[..., None])[..., 0])

    d, k = signals.shape[-1], code.indices.shape[-1]
    block_size = default_block_size(k * (d + k)) if block_size is None else block_size
    check_at_least("block_size", block_size, 1)
    used = code.coefficients != 0
    return code._replace(coefficients=map_blocks(solve, (signals, code.indices, used), block_size))


@jax.custom_jvp
def optimal_coefficients(signals, dictionary, code):
    """Returns `code.coefficients`, the least-squares ones, with their gradient attached."""
    del signals, dictionary
    return code.coefficients


@optimal_coefficients.defjvp
def _optimal_coefficients_jvp(primals, tangents):
    """Differentiates the normal equations (D_S D_S^T) c = D_S y at a fixed support."""
    signals, dictionary, code = primals
    d_signals, d_dictionary, _ = tangents
    atoms, d_atoms = dictionary[code.indices], d_dictionary[code.indices]
    residual = signals - decode(code, dictionary)
    d_residual = d_signals - matmul(code.coefficients[..., None, :], d_atoms)[..., 0, :]
    right = matmul(d_atoms, residual[..., None]) + matmul(atoms, d_residual[..., None])
    return code.coefficients, _solve(atoms, code.coefficients != 0, right[..., 0])


def _solve(atoms, used, right):
    """Solves (A A^T) c = right over the used rows of A, `(..., k, d)`; the others get 0."""
    k = atoms.shape[-2]
    used &= jnp.any(atoms != 0, axis=-1)
    gram = matmul(atoms, atoms.mT) * (used[..., :, None] & used[..., None, :])
    diagonal = jnp.diagonal(gram, axis1=-2, axis2=-1)
    # Unused rows become the identity's. The ridge is rounding: dependent atoms share.
    ridge = jnp.where(used, 8 * jnp.finfo(gram.dtype).eps * diagonal, 1)
    identity = jnp.broadcast_to(jnp.eye(k, dtype=gram.dtype), gram.shape)
    gram += ridge[..., None] * identity
    return lax.custom_linear_solve(
        lambda x: matmul(gram, x[..., None])[..., 0],
        jnp.where(used, right, 0),
        lambda _, b: _eliminate(gram, b),
        symmetric=True,
    )


def _eliminate(gram, right):
    """Solves positive definite systems by Gauss-Jordan elimination, all signals at once.

    No pivots are needed. LAPACK would take one small system after another, and gather
    a sharded batch.
    """
    system = jnp.concatenate([gram, right[..., None]], axis=-1)
    k = right.shape[-1]

    def eliminate(i, system):
        row = lax.dynamic_index_in_dim(system, i, axis=-2)
        pivot = lax.dynamic_index_in_dim(row, i, axis=-1)
        row = row / jnp.where(pivot > 0, pivot, 1)  # rounding alone makes it 0 or less
        column = lax.dynamic_index_in_dim(system, i, axis=-1)
        return lax.dynamic_update_index_in_dim(system - column * row, row, i, axis=-2)

    return fori_loop(0, k, eliminate, system)[..., -1]
