"""Orthogonal matching pursuit.

Each iteration takes the atom that correlates most with the residual and makes the
residual orthogonal to it by one step of Gram-Schmidt, so the residual is always the least-squares
one. We keep the combination of chosen atoms that gives each orthonormal direction, `W` (Q = W D_S),
and compute the coefficients from it; no triangular solve is needed at the end. How an atom is made
orthogonal to those before it depends on the data available:

- Without the Gram matrix by modified Gram-Schmidt on the directions themselves. One pass
  is enough: with the residual carried along it is as stable as Householder's QR (Björck,
  Solving linear least squares problems by Gram-Schmidt orthogonalization, 1967). Orthogonal least
  squares makes two, always in this form: it divides by the norm of the part of each atom that is
  orthogonal to the directions, which loses all digits near their span unless they are orthogonal to
  rounding. On accelerators by classical Gram-Schmidt, made twice, which is as stable (Giraud,
  Langou and Rozložník, The loss of orthogonality in the Gram-Schmidt orthogonalization process,
  2005): all directions in one reduction, where a loop over them is several launches a direction.
- With it, its parts along the directions are `W G_S,j`, numbers from the Gram matrix
  (Batch-OMP), and so are the corrections of the correlations. Directions and residual
  are still made of true atoms, not of Gram entries: the error of coefficients grows with the
  square of the support's condition number in units of rounding, but an atom near
  the span of others, and the squared residual that ends the pursuit, are seen in full precision.

Cost: k products of the residuals with the dictionary, O(n d m k), and O(n d k^2) for the
orthogonalisation; with the Gram matrix O(m^2 d + n d m + n m k^2). See `atoms.choose_form`.

Memory: O(block_size (m + k d + k^2)) in addition to the result, and m^2 for the Gram matrix;
`vmap` over signals is one batch. Derivatives take blocks too, but under `vmap` hold the chosen
atoms of all signals, O(n k d).
"""

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import check_choice, check_mask, check_signals
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.entry import entry
from laser_jax.sparse.loops import fori_loop, row, while_loop, with_row
from laser_jax.sparse.support import held, optimal_coefficients

_STATIC = "sparsity", "selection", "block_size", "gram_bytes", "atoms_axis"
# How far orthogonal least squares goes by the Gram matrix, see `_while_exact`.
_LARGEST_WEIGHTS, _SMALLEST_RESIDUAL = 64, 1e-6


@entry(static=_STATIC, compiled=False, like="signals")
def omp(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    sparsity: int,
    tolerance: Real[ArrayLike, "*#batch"] | None = None,
    selection: str = "correlation",
    block_size: int | None = None,
    gram_bytes: int | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    atoms_axis: str | None = None,
) -> SparseCode:
    """Codes each signal with at most `sparsity` atoms, chosen greedily.

    Approximates argmin_x ||y - x D||^2 subject to ||x||_0 <= k. The coefficients are the
    least-squares ones over the chosen atoms. They are twice differentiable, in both modes, with
    regard to signals and dictionary, the support held.

    Args:
      signals: `(..., d)` float array, one signal a row.
      dictionary: `(m, d)` float array, atoms of any norm. Zero atoms are never used.
      sparsity: atoms per signal, `1 <= sparsity <= m`. Static under jit.
      tolerance: squared residual at which a signal is done, `>= 0`; a scalar, an
        array that broadcasts to one number a signal, or None to stop only where no atom can
        lower the error further. NaN for one signal gives it coefficients NaN.
      selection: "correlation" takes the atom with the largest |<r, d>| / ||d||;
        "ols" (orthogonal least squares) the one that leaves the smallest error.
      block_size: signals coded together; None chooses it by the number of atoms.
      gram_bytes: largest Gram matrix, in bytes; None is 2^28, 0 makes none, as where it is slower.
      mask: `(..., d)` weights >= 0 of the entries, or bool; it broadcasts to the signals. The
        error is then sum w (y - x D)^2, for the selection and the tolerance too. An entry of
        weight 0 may be NaN. No gradient goes to the weights. None for 1.
      atoms_axis: inside `jax.shard_map`, the name of the mesh axis over which the dictionary is
        sharded: each device gives its equal part of the atoms and gets the whole code, that of
        all m. Makes no Gram matrix; not differentiable.

    Returns:
      A `SparseCode` of shape `(..., k)`. A signal that is not finite gets coefficients NaN, an
      atom that is not finite is never used. Atoms of one signal are distinct; where fewer than
      `sparsity` were needed the rest have coefficient 0, as all have for an all-zero signal.

    Raises:
      ValueError: if widths differ, `sparsity` or `tolerance` is out of range or `selection`
        unknown.

    References:
      Pati, Rezaiifar and Krishnaprasad, Orthogonal Matching Pursuit, Asilomar 1993.
      Chen, Billings and Luo, Orthogonal least squares methods, Int. J. Control 1989 ("ols").
      Rubinstein, Zibulevsky and Elad, Batch-OMP, Technion technical report CS-2008-08.
    """
    check_choice("selection", selection, ("correlation", "ols"))
    signals, dictionary = check_signals(signals, dictionary)
    # Orthogonal least squares checks for each block whether the Gram matrix is exact enough:
    # several devices would have to communicate.
    by_gram = selection == "correlation" or jax.device_count() == 1
    code = run_coder(
        _code_block, signals, dictionary, sparsity=sparsity,
        rows_a_step=sparsity / 2 if by_gram else math.inf,
        tolerance=tolerance, block_size=block_size, gram_bytes=gram_bytes, mask=mask,
        scores=1 if selection == "correlation" else 4, options=(selection,), atoms_axis=atoms_axis,
    )  # fmt: skip
    if atoms_axis is not None:
        return code._replace(coefficients=held("omp", code.coefficients, signals, dictionary))
    mask = check_mask(mask, signals)
    return code._replace(coefficients=optimal_coefficients(signals, dictionary, code, mask))


class _Basis(NamedTuple):
    """Orthonormal directions of each signal, in the forms that the next step reads."""

    directions: jax.Array | None  # (k, *block), without the Gram matrix or for its last check
    combinations: jax.Array  # (k, k, b), W
    transposed: jax.Array | None  # W^T, with the Gram matrix: both sums then run over rows


class _Step(NamedTuple):
    """What an iteration leaves to the next one.

    Of the newest direction also what correlations need to follow it, which they do only
    when another atom is wanted.
    """

    residual: jax.Array
    squared_residual: jax.Array  # (b,); 0 once the signal is done
    direction: jax.Array
    combination: jax.Array  # (k, b)
    projection: jax.Array  # (b,) of the residual on the direction
    basis: _Basis
    correlations: jax.Array
    remaining: jax.Array | None  # squared norms of the atoms orthogonal to the support
    code: SparseCode  # (k, b)


def _code_block(signals, atoms, sparsity, tolerance, selection):
    m, d = atoms.num_atoms, atoms.vectors.shape[1]
    steps = min(sparsity, d)  # d independent atoms leave nothing
    eps = jnp.finfo(signals.dtype).eps
    # A residual this small is rounding: its correlations no longer mean anything.
    squared = atoms.dot(signals, signals)
    floor = jnp.maximum(tolerance, squared * (4 * eps) ** 2 * d)

    def add_atom(atoms, orthogonalise, i, state, check=None):
        """Returns the state with an atom more, and whether `check` allowed it; if not, as it was.

        Then only correlations and what remains of the atoms are those of step i.
        """
        correlations, remaining = _follow(i, state, atoms, selection)
        if selection == "ols":
            # ||r||^2 falls by <r, d>^2 / ||d orthogonal to Q||^2.
            falls = jnp.where(remaining > 64 * eps, correlations**2 / remaining, 0)
            index, _ = atoms.argmax(falls)
        else:
            index, _ = atoms.largest(correlations)
        direction, combination = orthogonalise(i, index, state, atoms)
        square = atoms.dot(direction, direction)
        active = state.squared_residual > floor
        good = True if check is None else check(active, square, combination, state)
        # An atom inside the span of those chosen (one of them again, or a duplicate) is
        # the best only if no atom can lower the error: the signal is done.
        useful = (square > (32 * eps) ** 2) & active & good
        scale = jnp.where(useful, lax.rsqrt(jnp.where(useful, square, 1)), 0)
        # Barriers: else XLA recomputes these sums for every number that depends on them.
        direction, combination = lax.optimization_barrier(
            (direction * atoms.each(scale), combination * scale[None, :])
        )
        projection = lax.optimization_barrier(atoms.dot(direction, state.residual))
        residual = state.residual - atoms.each(projection) * direction
        left = jnp.where(useful, atoms.dot(residual, residual), 0)
        return good, _Step(
            residual,
            left if check is None else jnp.where(good, left, state.squared_residual),
            direction,
            combination,
            projection,
            _extend(i, state.basis, direction, combination),
            correlations,
            remaining,
            SparseCode(
                with_row(state.code.indices, i, jnp.where(useful, index, m)),
                state.code.coefficients + projection[None, :] * combination,
            ),
        )

    first, state = 0, _first_step(signals, squared, steps, atoms, selection)
    if selection == "ols" and atoms.gram is not None:
        first, state = _while_exact(add_atom, steps, atoms, squared, state)
        atoms = dataclasses.replace(atoms, gram=None)
    for start, last, orthogonalise in _loops(steps, atoms, selection):
        body = functools.partial(add_atom, atoms, orthogonalise)
        start = jnp.maximum(first, start) if start == 0 else start
        state = fori_loop(start, last, lambda i, state, body=body: body(i, state)[1], state)
    return state.code


def _while_exact(add_atom, steps, atoms, squared, state):
    """Adds atoms by the Gram matrix as long as it is exact enough for orthogonal least squares.

    It is while each direction is a combination of atoms with small weights: what the directions
    leave of an atom then has an error of so many units of rounding. And while the residual is not
    small compared with the signal, because correlations are corrected and not computed again. If
    this fails for one signal of the block, all continue without the Gram matrix.

    Returns how many atoms were added, and the state.
    """

    def check(active, square, combination, state):
        weights = jnp.sum(jnp.abs(combination), axis=0)
        doubtful = (weights**2 > _LARGEST_WEIGHTS**2 * square) | (
            state.squared_residual < _SMALLEST_RESIDUAL * squared
        )
        return ~jnp.any(active & doubtful)

    def step(carry):
        i, _, state = carry
        good, state = add_atom(atoms, _batch_omp, i, state, check)
        return i + good, good, state

    def exact(carry):
        return (carry[0] < steps) & carry[1]

    i, _, state = while_loop(exact, step, (jnp.int32(0), jnp.bool(True), state))
    return i, state


def _first_step(signals, squared, steps, atoms, selection):
    b = signals.shape[1 - atoms.axis]
    zeros = jnp.zeros((steps, b), signals.dtype)
    correlations = atoms.correlations(signals)
    return _Step(
        residual=signals,
        squared_residual=squared,
        direction=jnp.zeros_like(signals),
        combination=zeros,
        projection=zeros[0],
        basis=_empty_basis(signals, steps, b, atoms, selection),
        correlations=correlations,
        remaining=jnp.ones_like(correlations) if selection == "ols" else None,
        code=SparseCode(jnp.full((steps, b), atoms.num_atoms, jnp.int32), zeros),
    )


def _loops(steps, atoms, selection):
    """Returns the loops that make the steps: (first, last, how an atom is made orthogonal)."""
    if not atoms.at_once:
        if atoms.gram is not None:
            return [(0, steps, _batch_omp)]
        passes = 2 if selection == "ols" else 1
        return [(0, steps, functools.partial(_gram_schmidt, passes))]
    # A reduction has a static length: in parts, less of it goes to directions that are still 0.
    parts = min(4, max(1, steps // 8))
    bounds = [steps * part // parts for part in range(parts + 1)]
    return [
        (first, last, functools.partial(_classical_gram_schmidt, last))
        for first, last in itertools.pairwise(bounds)
    ]


def _follow(i, state, atoms, selection):
    """Returns the correlations with the residual, and what remains of each atom, at step i."""
    remaining, indices, correlations = state.remaining, state.code.indices, state.correlations
    if atoms.gram is None:
        if selection == "ols":
            remaining = jnp.maximum(remaining - atoms.correlations(state.direction) ** 2, 0)
        return atoms.correlations(state.residual), remaining
    if selection == "ols":
        newest = jnp.maximum(i - 1, 0)  # its weight is 0 before the first step
        along = atoms.each(row(state.combination, newest)) * atoms.gram_rows(row(indices, newest))
        along = atoms.add_correlations(along, state.combination, indices, newest)
        remaining = jnp.maximum(remaining - along**2, 0)
        return correlations - atoms.each(state.projection) * along, remaining
    change = -state.projection[None, :] * state.combination
    return atoms.add_correlations(correlations, change, indices, i), remaining


def _empty_basis(signals, steps, b, atoms, selection):
    squares = jnp.zeros((steps, steps, b), signals.dtype)
    directions = jnp.zeros((steps, *signals.shape), signals.dtype)
    if atoms.gram is None:
        return _Basis(directions, squares, None)
    return _Basis(directions if selection == "ols" else None, squares, squares)


def _extend(i, basis, direction, combination):
    directions, combinations, transposed = basis
    return _Basis(
        None if directions is None else with_row(directions, i, direction),
        with_row(combinations, i, combination),
        None if transposed is None else with_row(transposed, i, combination, axis=1),
    )


def _unit(i, like):
    """Returns the weights `(k, b)` that are 1 in row i and 0 in the others."""
    return (lax.broadcasted_iota(jnp.int32, like.shape, 0) == i).astype(like.dtype)


def _gram_schmidt(passes, i, index, state, atoms):
    """Returns atom `index` made orthogonal to the directions, and how it is combined."""
    directions, combinations, _ = state.basis

    def orthogonalise(j, pair):
        direction, combination = pair
        earlier = row(directions, j)
        part = atoms.dot(earlier, direction)
        return (
            direction - atoms.each(part) * earlier,
            combination - part[None, :] * row(combinations, j),
        )

    pair = atoms.take(index), _unit(i, state.combination)
    for _ in range(passes):
        pair = fori_loop(0, i, orthogonalise, pair)
    return pair


def _classical_gram_schmidt(count, i, index, state, atoms):
    """Returns what `_gram_schmidt` does in two passes, by reductions over `count` directions."""
    directions, combinations = (basis[:count] for basis in state.basis[:2])
    direction = atoms.take(index)
    combination = _unit(i, state.combination)
    for _ in range(2):  # once is not stable
        parts = jnp.sum(directions * direction[None], axis=-1)
        direction = direction - jnp.sum(parts[:, :, None] * directions, axis=0)
        combination = combination - jnp.sum(parts[:, None, :] * combinations, axis=0)
    return direction, combination


def _batch_omp(i, index, state, atoms):
    """Returns what `_gram_schmidt` does in one pass, from the Gram matrix."""
    _, combinations, transposed = state.basis
    products = atoms.gram.at[state.code.indices, index[None, :]].get(mode="clip")
    k = len(products)
    # So many rows in one pass over the sum, as a pass is a kernel.
    rows = next(rows for rows in (4, 2, 1) if k % rows == 0)

    def sum_rows(matrix, weights):  # the first i; rows not yet written are 0
        def add(j, total):
            for place in range(rows):
                weight, part = (row(x, rows * j + place) for x in (weights, matrix))
                total = total + weight[None, :] * part
            return total

        return fori_loop(0, -(-i // rows), add, jnp.zeros_like(weights))

    parts = sum_rows(transposed, products)
    combination = _unit(i, parts) - sum_rows(combinations, parts)  # row i is still 0
    return atoms.add(atoms.take(index), combination, state.code.indices, i), combination
