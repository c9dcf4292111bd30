"""Matching pursuit and gradient pursuit: one atom after another, without orthogonalisation.

Both are faster than `omp` at some sizes and leave a larger error. They are differentiable with the
support held.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.entry import entry
from laser_jax.sparse.loops import fori_loop, row, scan, with_row
from laser_jax.sparse.replay import inner_products, run_with_gradient


@entry(static=("sparsity", "revisit", "block_size", "gram_bytes"), compiled=False, like="signals")
def matching_pursuit(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    revisit: bool = False,
    block_size: int | None = None,
    gram_bytes: int | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
) -> SparseCode:
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
    return run_with_gradient(
        _greedy_block,
        _no_gradient if revisit else _projections,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=1,
        tolerance=tolerance,
        block_size=block_size,
        gram_bytes=gram_bytes,
        mask=mask,
        options=(_project, 1, bool(revisit)),
    )


@entry(static=("sparsity", "block_size", "gram_bytes"), compiled=False, like="signals")
def gradient_pursuit(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    block_size: int | None = None,
    gram_bytes: int | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
) -> SparseCode:
    """Codes each signal greedily, with one exact-step gradient descent over the support an atom.

    The coefficients approach those of OMP, without its orthogonalisation. Args, Returns and
    Raises as for `omp`.

    References:
      Blumensath and Davies, Gradient pursuits, IEEE Trans. Signal Processing, 2008.
    """
    return run_with_gradient(
        _greedy_block,
        _descents,
        signals,
        dictionary,
        sparsity=sparsity,
        rows_a_step=sparsity / 2,
        tolerance=tolerance,
        block_size=block_size,
        gram_bytes=gram_bytes,
        mask=mask,
        options=(_descend, sparsity, False),
    )


def _projections(signals, atoms, used):
    def step(residual, place):
        atom, used = place
        value = jnp.where(used, jnp.sum(residual * atom, -1), 0)
        return residual - value[:, None] * atom, value

    return scan(step, signals, (atoms, used))[1]


def _descents(signals, atoms, used):
    def step(residual, i):
        held = used & used[i][None, :] & (jnp.arange(len(used))[:, None] <= i)
        gradient = jnp.where(held, inner_products(residual, atoms, held), 0)
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
        indices = with_row(code.indices, i, jnp.where(useful, index, m))
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
    same = code.indices == row(code.indices, i)[None, :]
    later = same & (jnp.arange(len(same))[:, None] > i)
    total = row(code.coefficients, i) + jnp.sum(jnp.where(later, code.coefficients, 0), 0)
    return SparseCode(
        jnp.where(later, num_atoms, code.indices),
        with_row(jnp.where(later, 0, code.coefficients), i, total),
    )


def _project(i, code, correlations, residual, useful, atoms):
    """The newest atom's inner product; the other coefficients stay.

    Returns the coefficients, what changed as a code, and the approximation's change.
    """
    del correlations  # these numbers again, with the rounding of all steps before
    index = row(code.indices, i)
    atom = atoms.take(index)
    value = jnp.where(useful, atoms.dot(residual, atom), 0)
    change = SparseCode(index[None, :], value[None, :])
    return with_row(code.coefficients, i, value), change, atoms.each(value) * atom


def _descend(i, code, correlations, residual, useful, atoms):
    """The gradient over the support, times the step that lowers the error most."""
    del residual
    held = useful[None, :] & (code.indices < atoms.vectors.shape[0])
    gradient = jnp.where(held, atoms.pick(correlations, code.indices), 0)
    step, direction = atoms.best_step(gradient, code.indices, i + 1)
    change = SparseCode(code.indices, step[None, :] * gradient)
    return code.coefficients + change.coefficients, change, atoms.each(step) * direction
