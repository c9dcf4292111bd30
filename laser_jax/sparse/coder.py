"""What every coder does around its own iteration: checks, unit atoms, blocks, padding."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from laser_jax.checks import (
    check_at_least,
    check_mask,
    check_signals,
    check_sparsity,
    check_tolerance,
)
from laser_jax.sparse.atoms import ON_ACCELERATORS, Atoms, ShardedAtoms, choose_form, num_shards
from laser_jax.sparse.blocks import map_blocks, one_batch
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.linalg import largest_entries, matmul, power_scales, safe_norms, within_range
from laser_jax.sparse.masked import MaskedAtoms, apply_weights
from laser_jax.sparse.platforms import default_block_size, per_platform

# Largest Gram matrix by default, in bytes: 8192 atoms in float32.
_GRAM_BYTES = 2**28


def run_coder(
    code_block,
    signals,
    dictionary,
    *,
    sparsity,
    tolerance=None,
    mask=None,
    rows_only=False,
    **options,
):
    """Codes signals block by block.

    A signal that is not finite, or whose tolerance is NaN or negative, gets coefficients NaN; an
    atom that is not finite is never used.

    Args:
      code_block: `(block of signals, Atoms, sparsity, tolerance, *options)` -> `SparseCode`
        of `(at most sparsity, b)` in which an unused place holds index m and coefficient 0.
        All that it is given is finite and has largest entries near 1; tolerance is `(b,)`.
        Static: a function of a module, not a closure.
      signals, dictionary, sparsity, tolerance, mask: as for `omp`.
      rows_only, options: the other fields of a `_Coder`.
    """
    signals, dictionary = check_signals(signals, dictionary)
    mask = check_mask(mask, signals)
    rows_only = rows_only or mask is not None
    coder = _Coder(code_block, sparsity, rows_only=rows_only, **options)
    if mask is not None and coder.atoms_axis is not None:
        raise ValueError("mask does not work with atoms_axis; use the whole dictionary.")
    check_sparsity(sparsity, dictionary.shape[0] * num_shards(coder.atoms_axis))
    tolerance = check_tolerance(tolerance, signals)
    coder.plans(signals, dictionary)  # checks what the caller chose
    # No gradient goes through support and tolerance. The caller attaches the gradient of the
    # coefficients; `one_batch` has no reverse mode.
    return _run(coder, *lax.stop_gradient((dictionary, signals, tolerance, mask)))


def coding_plans(
    signals, dictionary, sparsity, rows_a_step, block_size, gram_bytes=None, rows_only=False,
    scores=1,
):  # fmt: skip
    """Returns the form of a block and how many signals it holds, on a CPU and on others."""
    (m, d), n, k = dictionary.shape, math.prod(signals.shape[:-1]), sparsity
    gram_bytes = _GRAM_BYTES if gram_bytes is None else gram_bytes
    check_at_least("gram_bytes", gram_bytes, 0)
    if m**2 * dictionary.dtype.itemsize > gram_bytes:
        rows_a_step = math.inf
    forms = "rows" if rows_only else choose_form(n, m, d, k, rows_a_step), ON_ACCELERATORS
    if block_size is not None:
        check_at_least("block_size", block_size, 1)
        return tuple((form, block_size) for form in forms)
    # With columns, all numbers of a step stay in the inner cache. Otherwise the (b, m) correlations
    # are read in every step, and the k directions one after the other.
    basis = min(k, d) * (d + min(k, d)) // 8
    wide = 128 if forms[0] == "columns" else scores if forms[0] == "gram" else 1 + rows_only
    floats = wide * m + (0 if forms[0] == "columns" else basis), (1 + rows_only) * m + basis
    sizes = map(default_block_size, floats)
    cpu, other = (size.within(n) for size in sizes)
    return (forms[0], cpu.cpu), (forms[1], other.other)


@dataclasses.dataclass(frozen=True)
class _Coder:
    """How a coder processes a batch of signals.

    Attributes:
      code_block: as for `run_coder`.
      sparsity, block_size, gram_bytes: as for `omp`.
      rows_a_step: Gram rows that one of its steps would add up, on average.
      rows_only: whether it needs signals as rows and no Gram matrix, as weights of entries do.
      scores: `(b, m)` arrays that a step reads where it has the Gram matrix.
      options: hashable, passed on to `code_block`.
      atoms_axis: as for `omp`.
    """

    code_block: Callable
    sparsity: int
    rows_a_step: float
    block_size: int | None = None
    gram_bytes: int | None = None
    rows_only: bool = False
    scores: int = 1
    options: tuple = ()
    atoms_axis: str | None = None

    def plans(self, signals, dictionary):
        chosen = self.sparsity, self.rows_a_step, self.block_size, self.gram_bytes
        plans = coding_plans(signals, dictionary, *chosen, self.rows_only, self.scores)
        if self.atoms_axis is None:
            return plans
        return ("rows", plans[0][1]), plans[1]

    def atoms(self, vectors, form):
        atoms = Atoms.in_form(vectors, form)
        if self.atoms_axis is None:
            return atoms
        return ShardedAtoms(**vars(atoms), axis_name=self.atoms_axis)


@functools.partial(jax.jit, static_argnums=0)
def _run(coder, dictionary, signals, tolerance, mask):
    """Codes by the plan of the platform that this is compiled for."""

    def run(dictionary, signals, *rows):
        plans = coder.plans(signals, dictionary)
        return per_platform(lambda plan: _run_plan(coder, plan, dictionary, signals, *rows), *plans)

    rows = (tolerance,) if mask is None else (tolerance, mask)
    return one_batch(run, dictionary, signals, *rows)


def _run_plan(coder, plan, dictionary, signals, tolerance, mask=None):
    (form, block_size), sparsity = plan, coder.sparsity
    dictionary = jnp.where(jnp.isfinite(largest_entries(dictionary)), dictionary, 0)
    norms = safe_norms(dictionary)
    atoms = coder.atoms(dictionary / norms, form)

    def code_rows(signals, tolerance, weights=None):
        seen = atoms
        if weights is not None:
            signals, roots, weight = apply_weights(signals, weights)
            signals, seen = signals * roots, MaskedAtoms.of(atoms, roots)
            tolerance = tolerance / weight[:, 0]
        signals = atoms.block(signals)
        finite = jnp.isfinite(largest_entries(signals, atoms.axis))
        scale = power_scales(signals, atoms.axis)
        signals = jnp.where(finite, signals / scale, 0)
        finite, scale = finite.ravel(), scale.ravel()
        # The square of a scale may be too large or small to divide by.
        tolerance = (jnp.sqrt(tolerance) / scale) ** 2
        finite = finite & ~jnp.isnan(tolerance)
        code = coder.code_block(signals, seen, sparsity, tolerance, *coder.options)
        code = fill_unused(atoms.agreed(code), sparsity, atoms.num_atoms)
        if weights is not None:
            visible = seen.pick(seen.scales, code.indices)
            code = code._replace(coefficients=code.coefficients * visible)
        factor = jnp.where(finite, scale, jnp.nan)[None, :]
        norm = atoms.gather(norms, code.indices)[..., 0]
        return code.indices.T, within_range(code.coefficients * factor / norm).T

    rows = {"signals": signals}
    if mask is not None:
        rows["weights"] = mask
    if tolerance.ndim == 0:
        code = map_blocks(lambda rows: code_rows(**rows, tolerance=tolerance), rows, block_size)
    else:
        rows["tolerance"] = tolerance[..., None]
        code = map_blocks(
            lambda rows: code_rows(**rows | {"tolerance": rows["tolerance"][:, 0]}),
            rows,
            block_size,
        )
    return SparseCode(*code)


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
    # Numbers of places so far, exact in float32: a cumulative sum is a kernel, a product is none.
    so_far = np.tri(sparsity, dtype=np.float32)
    free_so_far, unused_so_far = (matmul(so_far, x.astype(jnp.float32)) for x in (free, unused))
    # The p-th free atom comes after all atoms up to which there are fewer than p free ones.
    filler = jnp.sum(free_so_far[:, None, :] < unused_so_far[None, :, :], axis=0)
    return SparseCode(jnp.where(unused, filler.astype(jnp.int32), indices), coefficients)
