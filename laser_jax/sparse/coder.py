"""What every coder does around its own iteration: checks, unit atoms, blocks, padding."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.atoms import Atoms, choose_form
from laser_jax.sparse.checks import (
    check_at_least,
    check_scalars,
    check_signals,
    check_sparsity,
)
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.linalg import default_block_size, map_blocks, safe_norms


def run_coder(
    code_block,
    signals,
    dictionary,
    *,
    sparsity,
    rows_a_step,
    tolerance=None,
    block_size=None,
    options=(),
):
    """Codes signals block by block.

    Args:
      code_block: `(block of signals, Atoms, sparsity, tolerance, *options)` -> `SparseCode`
        of `(at most sparsity, b)` in which an unused place holds index m and coefficient 0.
        Static: a function of a module, not a closure.
      signals, dictionary, sparsity, tolerance, block_size: as for `omp`.
      rows_a_step: Gram rows that one of its steps would add up, on average.
      options: hashable, passed on to `code_block`.
    """
    signals, dictionary = check_signals(signals, dictionary)
    check_sparsity(sparsity, dictionary.shape[0])
    tolerance = 0 if tolerance is None else tolerance
    check_scalars(tolerance=tolerance)
    (m, d), n = dictionary.shape, math.prod(signals.shape[:-1])
    form = choose_form(n, m, d, sparsity, rows_a_step)
    if block_size is None:
        block_size = coder_block_size(m, d, sparsity, form)
    check_at_least("block_size", block_size, 1)
    # Where to stop is a choice, like the support: no gradient goes through it.
    tolerance = lax.stop_gradient(jnp.asarray(tolerance, signals.dtype))
    return _run(code_block, signals, dictionary, tolerance, sparsity, form, block_size, options)


def coder_block_size(m, d, k, form):
    """Returns how many signals to code together."""
    if form == "columns":
        return default_block_size(128 * m)  # all of a step's numbers in the inner cache
    # The (b, m) correlations are read all the time, the k directions in turn.
    return default_block_size(m + min(k, d) * (d + min(k, d)) // 8)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6, 7))
def _run(code_block, signals, dictionary, tolerance, sparsity, form, block_size, options):
    norms = safe_norms(dictionary)
    atoms = Atoms.in_form(dictionary / norms, form)

    def code_rows(signals):
        code = code_block(atoms.block(signals), atoms, sparsity, tolerance, *options)
        code = fill_unused(code, sparsity, dictionary.shape[0])
        return code.indices.T, (code.coefficients / norms[code.indices, 0]).T

    return SparseCode(*map_blocks(code_rows, signals, block_size))


def fill_unused(code, sparsity, num_atoms):
    """Gives unused places (index `num_atoms`) distinct indices, those of the first free atoms.

    Of the first k atoms at least as many are free as places are unused.
    """
    width = ((0, sparsity - code.indices.shape[0]), (0, 0))
    indices = jnp.pad(code.indices, width, constant_values=num_atoms)
    coefficients = jnp.pad(code.coefficients, width)
    first = jnp.arange(sparsity, dtype=jnp.int32)
    free = ~jnp.any(indices[:, None, :] == first[None, :, None], axis=0)
    unused = indices == num_atoms
    # The p-th free atom comes after all atoms up to which there are at most p free ones.
    free_so_far = jnp.cumsum(free, axis=0)[:, None, :]
    filler = jnp.sum(free_so_far < jnp.cumsum(unused, axis=0)[None, :, :], axis=0)
    return SparseCode(jnp.where(unused, filler.astype(jnp.int32), indices), coefficients)
