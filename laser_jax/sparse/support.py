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

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Real

from laser_jax.checks import check_at_least, check_code, check_mask, check_signals
from laser_jax.sparse.blocks import map_blocks, one_batch
from laser_jax.sparse.code import SparseCode, drop_nonfinite, take_rows
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul, power_scales, within_range
from laser_jax.sparse.loops import fori_loop, row, with_row
from laser_jax.sparse.masked import apply_weights
from laser_jax.sparse.platforms import default_block_size


@entry(static=("block_size", "atoms_axis"), like="signals")
def least_squares(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    block_size: int | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    atoms_axis: str | None = None,
) -> SparseCode:
    """Returns the code with least-squares coefficients over the atoms it uses.

    Differentiable twice with regard to signals and dictionary, in forward and reverse mode, the
    support held. Unused places keep coefficient 0; so does an atom in the span of those before
    it in the code.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of shape `(..., k)`.
      block_size: signals taken together; None chooses it.
      mask: weights of the entries as for `omp`.
      atoms_axis: as for `omp`: the mesh axis over which the dictionary is sharded. A block's atoms
        are then exchanged; not differentiable.

    Raises:
      ValueError: if the shapes do not match.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    if block_size is not None:
        check_at_least("block_size", block_size, 1)

    mask, k = check_mask(mask, signals), code.indices.shape[-1]
    seen, *roots = (signals,) if mask is None else apply_weights(signals, mask)[:2]

    def solve(dictionary, *rows):
        def solve_block(block):
            signal, indices, coefficients, *roots = block
            signal, atoms = _weighted(roots, signal, take_rows(dictionary, indices, atoms_axis))
            return within_range(_orthonormalise(atoms, coefficients != 0).fit(signal))

        return _map_signals(solve_block, rows, k, block_size)

    rows = dictionary, seen, *code, *roots
    code = code._replace(coefficients=one_batch(solve, *lax.stop_gradient(rows)))
    if atoms_axis is not None:
        return code._replace(coefficients=held("least_squares", code[1], signals, dictionary))
    return code._replace(coefficients=optimal_coefficients(signals, dictionary, code, mask))


def optimal_coefficients(signals, dictionary, code, mask=None):
    """Returns `code.coefficients`, the least-squares ones, with their gradient attached."""
    signals, *roots = (signals,) if mask is None else apply_weights(signals, mask)[:2]
    return _optimal_coefficients(signals, dictionary, code, tuple(roots))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def held(name, coefficients, signals, dictionary):
    """Returns the coefficients, whose derivative would need the atoms of other devices."""
    del name, signals, dictionary
    return coefficients


@held.defjvp
def _held_jvp(name, primals, tangents):
    raise ValueError(
        f"{name} with atoms_axis has no derivative; use lax.stop_gradient of signals and "
        "dictionary."
    )


def _weighted(roots, signals, atoms):
    """Returns signals `(..., d)` and atoms `(..., k, d)` times the roots, if there are any."""
    for root in roots:
        signals, atoms = signals * root, atoms * root[..., None, :]
    return signals, atoms


@jax.custom_jvp
def _optimal_coefficients(signals, dictionary, code, roots):
    del signals, dictionary, roots
    return code.coefficients


@_optimal_coefficients.defjvp
def _optimal_coefficients_jvp(primals, tangents):
    signals, dictionary, code, roots = primals
    d_signals, d_dictionary, *_ = tangents
    # By this very rule, so that the tangent can be differentiated again.
    coefficients = _optimal_coefficients(*primals)
    code = code._replace(coefficients=coefficients)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    # Over powers of two: P and its square stay in range.
    scales = power_scales(dictionary)
    dictionary, d_dictionary = dictionary / scales, d_dictionary / scales

    # The reverse mode would store the atoms of all signals.
    @jax.checkpoint
    def differentiate(block):
        signal, d_signal, indices, coefficients, *roots = block
        signal, atoms = _weighted(roots, signal, dictionary[indices])
        d_signal, d_atoms = _weighted(roots, d_signal, d_dictionary[indices])
        used, own, scale = coefficients != 0, power_scales(signal), scales[indices, 0]
        coefficients = coefficients * scale / own
        basis = _orthonormalise(atoms, used)
        residual = signal / own - _times(coefficients, atoms)
        d_residual = d_signal / own - _times(coefficients, d_atoms)
        change = basis.fit(d_residual + basis.spread(_times(residual, d_atoms.mT)))
        return change * own / scale

    blocks = (signals, d_signals, *code, *roots)
    return coefficients, _map_signals(differentiate, blocks, code.indices.shape[-1])


def _map_signals(function, blocks, k, block_size=None):
    d = blocks[0].shape[-1]
    return map_blocks(function, blocks, block_size or default_block_size(2 * k * (d + k)))


def refitted(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
) -> SparseCode:
    """Returns a coder's code with least-squares coefficients; a row of NaN stays one."""
    found = least_squares(signals, dictionary, code, mask=mask).coefficients
    return code._replace(coefficients=jnp.where(jnp.isnan(code.coefficients), jnp.nan, found))


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
        new, combination = (row(x, i, axis=-2) for x in basis)
        parts = jnp.zeros_like(combination)
        for _ in range(2):  # once would leave more than rounding of the directions before
            part = jnp.where(place < i, _times(new, basis.directions.mT), 0)
            new, parts = new - _times(part, basis.directions), parts + part
        combination = combination - _times(parts, basis.combinations)
        square = jnp.sum(new**2, axis=-1, keepdims=True)
        independent = square > (32 * eps) ** 2
        scale = jnp.where(independent, lax.rsqrt(jnp.where(independent, square, 1)), 0)
        rows = _Basis(scale * new, scale * combination)
        return jax.tree.map(lambda x, new: with_row(x, i, new, axis=-2), basis, rows)

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
