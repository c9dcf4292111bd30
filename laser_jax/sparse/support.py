"""Least squares over a held support, with derivatives of any order in both modes.

For a signal y and the rows A of its atoms the coefficients are c = P y, where P = (A A^T)^-1 A.
P comes from orthonormal directions Q = W A as P = W^T Q, so the error of c grows with the
condition number of A and not with its square. With P alone also the derivative is exact:

    dc = P (dy - dA^T c + P^T dA (y - A^T c))

Golub and Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems
whose variables separate, 1973.

Memory: signals are taken in blocks, in derivatives too: no array holds the atoms of all signals.
Derivatives under `vmap` are the exception: each call's blocks are mapped, all at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.checks import check_at_least, check_code, check_signals
from laser_jax.sparse.code import drop_nonfinite
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import (
    default_block_size,
    map_blocks,
    matmul,
    one_batch,
    power_scales,
    within_range,
)
from laser_jax.sparse.loops import fori_loop


@entry(static=("block_size",), like="signals")
def least_squares(signals, dictionary, code, *, block_size=None):
    """Returns the code with least-squares coefficients over the atoms it uses.

    Differentiable twice with regard to signals and dictionary, in forward and reverse mode, the
    support held. Unused places keep coefficient 0; so does an atom in the span of those before
    it in the code.

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
    if block_size is not None:
        check_at_least("block_size", block_size, 1)

    def solve(dictionary, *rows):
        def solve_block(block):
            signal, indices, coefficients = block
            return within_range(_orthonormalise(dictionary[indices], coefficients != 0).fit(signal))

        return _map_signals(solve_block, rows, block_size)

    coefficients = one_batch(solve, *lax.stop_gradient((dictionary, signals, *code)))
    code = code._replace(coefficients=coefficients)
    return code._replace(coefficients=optimal_coefficients(signals, dictionary, code))


@jax.custom_jvp
def optimal_coefficients(signals, dictionary, code):
    """Returns `code.coefficients`, the least-squares ones, with their gradient attached."""
    del signals, dictionary
    return code.coefficients


@optimal_coefficients.defjvp
def _optimal_coefficients_jvp(primals, tangents):
    signals, dictionary, code = primals
    d_signals, d_dictionary, _ = tangents
    # By this very rule, so that the tangent can be differentiated again.
    coefficients = optimal_coefficients(*primals)
    code = code._replace(coefficients=coefficients)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    # Over powers of two: P and its square stay in range.
    scales = power_scales(dictionary)
    dictionary, d_dictionary = dictionary / scales, d_dictionary / scales

    # The reverse mode would keep the atoms of all signals at hand.
    @jax.checkpoint
    def differentiate(block):
        signal, d_signal, indices, coefficients = block
        used, own, scale = coefficients != 0, power_scales(signal), scales[indices, 0]
        atoms, d_atoms = dictionary[indices], d_dictionary[indices]
        coefficients = coefficients * scale / own
        basis = _orthonormalise(atoms, used)
        residual = signal / own - _times(coefficients, atoms)
        d_residual = d_signal / own - _times(coefficients, d_atoms)
        change = basis.fit(d_residual + basis.spread(_times(residual, d_atoms.mT)))
        return change * own / scale

    blocks = (signals, d_signals, *code)
    return coefficients, _map_signals(differentiate, blocks)


def _map_signals(function, blocks, block_size=None):
    d, k = blocks[0].shape[-1], blocks[-1].shape[-1]
    return map_blocks(function, blocks, block_size or default_block_size(2 * k * (d + k)))


class _Basis(NamedTuple):
    """Orthonormal directions that span each signal's atoms; rows of atoms not fitted are 0."""

    directions: jax.Array  # (..., k, d)
    combinations: jax.Array  # (..., k, k), lower triangular: directions = combinations @ atoms

    def fit(self, vectors):
        """Returns P x, the coefficients `(..., k)` of vectors `(..., d)`."""
        return _times(_times(vectors, self.directions.mT), self.combinations)

    def spread(self, coefficients):
        """Returns P^T z, the least vectors `(..., d)` whose products with the atoms are z."""
        return _times(_times(coefficients, self.combinations.mT), self.directions)


def _times(vectors, matrices):
    return matmul(vectors[..., None, :], matrices)[..., 0, :]


@jax.custom_jvp
def _orthonormalise(atoms, used):
    """Returns the basis of the used atoms `(..., k, d)` by Gram-Schmidt, all signals at once.

    LAPACK would take one small matrix after another, and gather a sharded batch.
    """
    k, eps = atoms.shape[-2], jnp.finfo(atoms.dtype).eps
    largest = jnp.max(jnp.abs(atoms), axis=-1, keepdims=True)  # without it squares would overflow
    fitted = used[..., None] & (largest > 0)
    largest = jnp.where(fitted, largest, 1)
    directions = jnp.where(fitted, atoms / largest, 0)
    norms = jnp.sqrt(jnp.where(fitted, jnp.sum(directions**2, axis=-1, keepdims=True), 1))
    identity = jnp.broadcast_to(jnp.eye(k, dtype=atoms.dtype), (*atoms.shape[:-1], k))
    combinations = jnp.where(fitted, identity / norms / largest, 0)

    place = lax.broadcasted_iota(jnp.int32, atoms.shape[:-1], atoms.ndim - 2)

    def add_atom(i, basis):
        new, combination = (x[..., i, :] for x in basis)
        parts = jnp.zeros_like(combination)
        for _ in range(2):  # once would leave more than rounding of the directions before
            part = jnp.where(place < i, _times(new, basis.directions.mT), 0)
            new, parts = new - _times(part, basis.directions), parts + part
        combination = combination - _times(parts, basis.combinations)
        square = jnp.sum(new**2, axis=-1, keepdims=True)
        independent = square > (32 * eps) ** 2
        scale = jnp.where(independent, lax.rsqrt(jnp.where(independent, square, 1)), 0)
        rows = _Basis(scale * new, scale * combination)
        return jax.tree.map(lambda x, row: x.at[..., i, :].set(row), basis, rows)

    return fori_loop(0, k, add_atom, _Basis(directions / norms, combinations))


@_orthonormalise.defjvp
def _orthonormalise_jvp(primals, tangents):
    """W dA = S Q + dQ and dW = -S W, where S is lower triangular and dQ Q^T antisymmetric."""
    basis = _orthonormalise(*primals)
    change = matmul(basis.combinations, tangents[0])
    along = matmul(change, basis.directions.mT)
    lower = jnp.tril(along) + jnp.triu(along, 1).mT
    d_directions = change - matmul(lower, basis.directions)
    return basis, _Basis(d_directions, -matmul(lower, basis.combinations))
