"""What every coder does around its own iteration: checks, unit atoms, blocks, padding."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.checks import check_at_least, check_signals, check_sparsity
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.linalg import default_block_size, map_blocks, safe_norms


def run_coder(
    code_block, signals, dictionary, *, sparsity, tolerance=None, block_size=None, options=()
):
    """Codes signals block by block.

    Args:
      code_block: `(signals (b, d), unit or zero atoms (m, d), sparsity, tolerance,
        *options)` -> `SparseCode` of `(b, at most sparsity)` in which an unused place
        holds index m and coefficient 0. Static: a function of a module, not a closure.
      signals, dictionary, sparsity, tolerance, block_size: as for `omp`.
      options: hashable, passed on to `code_block`.
    """
    signals, dictionary = check_signals(signals, dictionary)
    check_sparsity(sparsity, dictionary.shape[0])
    tolerance = 0 if tolerance is None else tolerance
    if jnp.ndim(tolerance) != 0:
        raise ValueError(f"tolerance must be a scalar, got shape {jnp.shape(tolerance)}.")
    if block_size is None:
        (m, d), k = dictionary.shape, min(sparsity, dictionary.shape[1])
        # The (b, m) correlations are read all the time, the k directions in turn.
        block_size = default_block_size(m + k * (d + k) // 8)
    check_at_least("block_size", block_size, 1)
    # Where to stop is a choice, like the support: no gradient goes through it.
    tolerance = lax.stop_gradient(jnp.asarray(tolerance, signals.dtype))
    return _run(code_block, signals, dictionary, tolerance, sparsity, block_size, options)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _run(code_block, signals, dictionary, tolerance, sparsity, block_size, options):
    norms = safe_norms(dictionary)
    atoms = dictionary / norms

    def code_and_fill(block):
        code = code_block(block, atoms, sparsity, tolerance, *options)
        return _fill_unused(code, sparsity, atoms.shape[0])

    code = map_blocks(code_and_fill, signals, block_size)
    return SparseCode(code.indices, code.coefficients / norms[code.indices, 0])


def _fill_unused(code, sparsity, num_atoms):
    """Gives unused places (index `num_atoms`) distinct indices, those of the first free atoms.

    Of the first k atoms at least as many are free as places are unused.
    """
    width = ((0, 0), (0, sparsity - code.indices.shape[1]))
    indices = jnp.pad(code.indices, width, constant_values=num_atoms)
    coefficients = jnp.pad(code.coefficients, width)
    first = jnp.arange(sparsity, dtype=jnp.int32)
    free = ~jnp.any(indices[:, :, None] == first[None, None, :], axis=1)
    unused = indices == num_atoms
    # The p-th free atom comes after all atoms up to which there are at most p free ones.
    free_so_far = jnp.cumsum(free, axis=-1)[:, None, :]
    filler = jnp.sum(free_so_far < jnp.cumsum(unused, axis=-1)[:, :, None], axis=-1)
    return SparseCode(jnp.where(unused, filler.astype(jnp.int32), indices), coefficients)
