"""Orthogonal matching pursuit.

Each iteration takes the atom that correlates most with the residual and makes the
residual orthogonal to it by one step of Gram-Schmidt, so the residual is the
least-squares one at every moment. We keep how each orthonormal direction is combined of
the chosen atoms, `W` (Q = W D_S), and read the coefficients off it; no triangular solve is
left at the end. How an atom is made orthogonal to those before it depends on the data available:

- Without the Gram matrix by modified Gram-Schmidt on the directions themselves. One pass
  is enough: with the residual carried along it is as stable as Householder's QR (Björck,
  Solving linear least squares problems by Gram-Schmidt orthogonalization, 1967). Orthogonal
  least squares makes two, always in this form: what it divides by is what the directions leave
  of each atom, which loses all digits near their span unless they are orthogonal to rounding.
  On accelerators by classical Gram-Schmidt, made twice, which is as stable (Giraud, Langou and
  Rozložník, The loss of orthogonality in the Gram-Schmidt orthogonalization process, 2005): all
  directions in one reduction, where a loop over them is several launches a direction.
- With it, its parts along the directions are `W G_S,j`, numbers from the Gram matrix
  (Batch-OMP), and so are the corrections of the correlations. Directions and residual
  are still made of true atoms, not of Gram entries: the error of coefficients grows with the
  square of the support's condition number in units of rounding, but an atom near
  the span of others, and the squared residual that ends the pursuit, are seen in full precision.

Cost: k products of the residuals with the dictionary, O(n d m k), and O(n d k^2) for the
orthogonalisation; with the Gram matrix O(m^2 d + n d m + n m k^2). See `atoms.choose_form`.

Memory: O(block_size (m + k d + k^2)) beside the result, and m^2 for the Gram matrix;
`vmap` over signals is one batch. Derivatives take blocks too, but under `vmap` hold the chosen
atoms of all signals, O(n k d).
"""

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import check_choice, check_mask, check_signals
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.entry import entry
from laser_jax.sparse.loops import fori_loop
from laser_jax.sparse.support import held, optimal_coefficients

_STATIC = "sparsity", "selection", "block_size", "gram_bytes", "atoms_axis"


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
        lower the error further.
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
      ValueError: if widths differ, `sparsity` is out of range or `selection` unknown.

    References:
      Pati, Rezaiifar and Krishnaprasad, Orthogonal Matching Pursuit, Asilomar 1993.
      Chen, Billings and Luo, Orthogonal least squares methods, Int. J. Control 1989 ("ols").
      Rubinstein, Zibulevsky and Elad, Batch-OMP, Technion technical report CS-2008-08.
    """
    check_choice("selection", selection, ("correlation", "ols"))
    signals, dictionary = check_signals(signals, dictionary)
    code = run_coder(
        _code_block, signals, dictionary, sparsity=sparsity, rows_a_step=sparsity / 2,
        tolerance=tolerance, block_size=block_size, gram_bytes=gram_bytes, mask=mask,
        options=(selection,), atoms_axis=atoms_axis,
    )  # fmt: skip
    if atoms_axis is not None:
        return code._replace(coefficients=held("omp", code.coefficients, signals, dictionary))
    mask = check_mask(mask, signals)
    return code._replace(coefficients=optimal_coefficients(signals, dictionary, code, mask))


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
    basis: tuple[jax.Array, jax.Array]
    correlations: jax.Array
    remaining: jax.Array | None  # squared norms of the atoms orthogonal to the support
    code: SparseCode  # (k, b)


def _code_block(signals, atoms, sparsity, tolerance, selection):
    m, d = atoms.num_atoms, atoms.vectors.shape[1]
    steps = min(sparsity, d)  # d independent atoms leave nothing
    eps, passes = jnp.finfo(signals.dtype).eps, 1
    if selection == "ols":
        # It takes atoms near the span of others: the Gram matrix and one pass are not exact enough.
        atoms, passes = dataclasses.replace(atoms, gram=None), 2
    # A residual this small is rounding: its correlations no longer mean anything.
    squared = atoms.dot(signals, signals)
    floor = jnp.maximum(tolerance, squared * (4 * eps) ** 2 * d)

    def add_atom(orthogonalise, i, state):
        correlations, remaining = _follow(i, state, atoms, selection)
        score = jnp.abs(correlations)
        if selection == "ols":
            # ||r||^2 falls by <r, d>^2 / ||d orthogonal to Q||^2.
            score = jnp.where(remaining > 64 * eps, score * lax.rsqrt(remaining + eps**2), 0)
        index, _ = atoms.argmax(score)
        direction, combination = orthogonalise(i, index, state, atoms, passes)
        square = atoms.dot(direction, direction)
        # An atom inside the span of those chosen (one of them again, or its twin) is
        # the best only if no atom can lower the error: the signal is done.
        useful = (square > (32 * eps) ** 2) & (state.squared_residual > floor)
        scale = jnp.where(useful, lax.rsqrt(jnp.where(useful, square, 1)), 0)
        # Barriers: else XLA recomputes these sums for every number that depends on them.
        direction, combination = lax.optimization_barrier(
            (direction * atoms.each(scale), combination * scale[None, :])
        )
        projection = lax.optimization_barrier(atoms.dot(direction, state.residual))
        residual = state.residual - atoms.each(projection) * direction
        return _Step(
            residual,
            jnp.where(useful, atoms.dot(residual, residual), 0),
            direction,
            combination,
            projection,
            _extend(i, state.basis, direction, combination, atoms),
            correlations,
            remaining,
            SparseCode(
                state.code.indices.at[i].set(jnp.where(useful, index, m)),
                state.code.coefficients + projection[None, :] * combination,
            ),
        )

    state = _first_step(signals, squared, steps, atoms, selection)
    for first, last, orthogonalise in _loops(steps, atoms):
        state = fori_loop(first, last, functools.partial(add_atom, orthogonalise), state)
    return state.code


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
        basis=_empty_basis(signals, steps, b, atoms),
        correlations=correlations,
        remaining=jnp.ones_like(correlations) if selection == "ols" else None,
        code=SparseCode(jnp.full((steps, b), atoms.num_atoms, jnp.int32), zeros),
    )


def _loops(steps, atoms):
    """Returns the loops that make the steps: (first, last, how an atom is made orthogonal)."""
    if not atoms.at_once:
        return [(0, steps, _gram_schmidt if atoms.gram is None else _batch_omp)]
    # A reduction has a static length: in parts, less of it goes to directions that are still 0.
    parts = min(4, max(1, steps // 8))
    bounds = [steps * part // parts for part in range(parts + 1)]
    return [
        (first, last, functools.partial(_classical_gram_schmidt, last))
        for first, last in itertools.pairwise(bounds)
    ]


def _follow(i, state, atoms, selection):
    """Returns the correlations with the residual, and what remains of each atom, at step i."""
    remaining, indices = state.remaining, state.code.indices
    if selection == "ols":
        remaining = jnp.maximum(remaining - atoms.correlations(state.direction) ** 2, 0)
    if atoms.gram is None:
        correlations = atoms.correlations(state.residual)
    else:
        change = -state.projection[None, :] * state.combination
        correlations = atoms.add_correlations(state.correlations, change, indices, i)
    return correlations, remaining


def _empty_basis(signals, steps, b, atoms):
    squares = jnp.zeros((steps, steps, b), signals.dtype)
    if atoms.gram is None:
        return jnp.zeros((steps, *signals.shape), signals.dtype), squares
    return squares, squares


def _extend(i, basis, direction, combination, atoms):
    if atoms.gram is None:
        return basis[0].at[i].set(direction), basis[1].at[i].set(combination)
    return basis[0].at[:, i].set(combination), basis[1].at[i].set(combination)


def _gram_schmidt(i, index, state, atoms, passes):
    """Returns atom `index` made orthogonal to the directions, and how it is combined."""
    directions, combinations = state.basis

    def orthogonalise(j, pair):
        direction, combination = pair
        part = atoms.dot(directions[j], direction)
        return (
            direction - atoms.each(part) * directions[j],
            combination - part[None, :] * combinations[j],
        )

    unit = jnp.zeros_like(state.combination).at[i].set(1)
    pair = atoms.take(index), unit
    for _ in range(passes):
        pair = fori_loop(0, i, orthogonalise, pair)
    return pair


def _classical_gram_schmidt(count, i, index, state, atoms, passes):
    """Returns what `_gram_schmidt` does in two passes, by reductions over `count` directions."""
    del passes  # one alone is not stable
    directions, combinations = (basis[:count] for basis in state.basis)
    direction, combination = atoms.take(index), jnp.zeros_like(state.combination).at[i].set(1)
    for _ in range(2):
        parts = jnp.sum(directions * direction[None], axis=-1)
        direction = direction - jnp.sum(parts[:, :, None] * directions, axis=0)
        combination = combination - jnp.sum(parts[:, None, :] * combinations, axis=0)
    return direction, combination


def _batch_omp(i, index, state, atoms, passes):
    """Returns what `_gram_schmidt` does in one pass, from the Gram matrix."""
    del passes
    transposed, combinations = state.basis  # W^T and W, so that both sums run over rows
    products = atoms.gram.at[state.code.indices, index[None, :]].get(mode="clip")

    def sum_rows(matrix, weights):  # the first i; weights of places not yet taken mean nothing
        def add(j, total):
            return total + weights[j][None, :] * matrix[j]

        return fori_loop(0, i, add, jnp.zeros_like(weights))

    parts = sum_rows(transposed, products)
    combination = -sum_rows(combinations, parts)
    direction = atoms.add(atoms.take(index), combination, state.code.indices, i)
    return direction, combination.at[i].set(1)
