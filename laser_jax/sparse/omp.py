"""Orthogonal matching pursuit.

Each iteration takes the atom that correlates most with the residual and makes
the residual orthogonal to it by one step of modified Gram-Schmidt, so the
residual is the least-squares one at every moment. Beside the orthonormal
directions `Q` we keep how each is combined of the chosen atoms, `W` (Q = W D_S),
and read the coefficients off it; no triangular solve is left at the end. One pass
of Gram-Schmidt is enough: with the residual carried along it is as stable as
Householder's QR (Björck, Solving linear least squares problems by Gram-Schmidt
orthogonalization, 1967).

Cost: k products of the residuals with the dictionary, O(n d m k), and
O(n d k^2) for the orthogonalisation. Recomputing the correlations as a product
beats the Gram updates of Batch-OMP on CPUs and accelerators alike: gathering
Gram rows moves k times more memory than the product reads.

Memory: O(block_size (m + k d + k^2)) beside the result.
"""

import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.checks import check_choice, check_signals
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.linalg import matmul, row_argmax, safe_norms
from laser_jax.sparse.support import optimal_coefficients


def omp(signals, dictionary, *, sparsity, tolerance=None, selection="correlation", block_size=None):
    """Codes each signal with at most `sparsity` atoms, chosen greedily.

    Approximates argmin_x ||y - x D||^2 subject to ||x||_0 <= k. The coefficients
    are the least-squares ones over the chosen atoms. Differentiable with regard to
    signals and dictionary through the coefficients, the support held.

    Args:
      signals: `(..., d)` float array, one signal a row.
      dictionary: `(m, d)` float array, atoms of any norm. Zero atoms are never used.
      sparsity: atoms per signal, `1 <= sparsity <= m`. Static under jit.
      tolerance: squared residual at which a signal is done, `>= 0`; a scalar, or
        None to stop only where no atom can lower the error further.
      selection: "correlation" takes the atom with the largest |<r, d>| / ||d||;
        "ols" (orthogonal least squares) the one that leaves the smallest error.
      block_size: signals coded together; None chooses it by the number of atoms.

    Returns:
      A `SparseCode` of shape `(..., k)`. Atoms of one signal are distinct; where
      fewer than `sparsity` were needed the rest have coefficient 0, so an all-zero
      signal gets zero coefficients.

    Raises:
      ValueError: if widths differ, `sparsity` is out of range or `selection` unknown.

    References:
      Pati, Rezaiifar and Krishnaprasad, Orthogonal Matching Pursuit, Asilomar 1993.
      Chen, Billings and Luo, Orthogonal least squares methods and their application
      to non-linear system identification, 1989 (`selection="ols"`).
    """
    check_choice("selection", selection, ("correlation", "ols"))
    signals, dictionary = check_signals(signals, dictionary)
    code = run_coder(
        _code_block,
        lax.stop_gradient(signals),
        lax.stop_gradient(dictionary),
        sparsity=sparsity,
        tolerance=tolerance,
        block_size=block_size,
        options=(selection,),
    )
    return code._replace(coefficients=optimal_coefficients(signals, dictionary, code))


def _code_block(signals, atoms, sparsity, tolerance, selection):
    (b, d), m = signals.shape, atoms.shape[0]
    steps = min(sparsity, d)  # d independent atoms leave nothing
    dtype = signals.dtype
    eps = jnp.finfo(dtype).eps
    # A residual this small is rounding: its correlations no longer mean anything.
    floor = jnp.maximum(tolerance, jnp.sum(signals**2, -1) * (4 * eps) ** 2 * d)

    def add_atom(i, state):
        residual, squared_residual, directions, combinations, remaining, code = state
        score = jnp.abs(matmul(residual, atoms.T))
        if selection == "ols":
            # ||r||^2 falls by <r, d>^2 / ||d orthogonal to Q||^2.
            score = jnp.where(remaining > 64 * eps, score * lax.rsqrt(remaining + eps**2), 0)
        index, _ = row_argmax(score)
        atom = atoms[index]
        combination = jnp.zeros((b, steps), dtype).at[:, i].set(1)

        def orthogonalise(j, pair):
            direction, combination = pair
            projection = jnp.sum(directions[j] * direction, -1, keepdims=True)
            return (
                direction - projection * directions[j],
                combination - projection * combinations[j],
            )

        direction, combination = lax.fori_loop(0, i, orthogonalise, (atom, combination))
        norm = safe_norms(direction)
        # An atom inside the span of those chosen (one of them again, or its twin) is
        # the best only if no atom can lower the error: the signal is done.
        independent = jnp.sum(direction**2, -1) > (32 * eps) ** 2
        useful = independent & (squared_residual > floor)
        scale = jnp.where(useful[:, None], 1 / norm, 0)
        direction, combination = direction * scale, combination * scale
        projection = jnp.sum(direction * residual, -1, keepdims=True)
        residual = residual - projection * direction
        squared_residual = jnp.where(useful, jnp.sum(residual**2, -1), 0)
        if selection == "ols":
            remaining = jnp.maximum(remaining - matmul(direction, atoms.T) ** 2, 0)
        return (
            residual,
            squared_residual,
            directions.at[i].set(direction),
            combinations.at[i].set(combination),
            remaining,
            SparseCode(
                code.indices.at[:, i].set(jnp.where(useful, index, m)),
                code.coefficients + projection * combination,
            ),
        )

    state = (
        signals,
        jnp.sum(signals**2, -1),
        jnp.zeros((steps, b, d), dtype),
        jnp.zeros((steps, b, steps), dtype),
        jnp.ones((b, m), dtype) if selection == "ols" else None,
        SparseCode(jnp.full((b, steps), m, jnp.int32), jnp.zeros((b, steps), dtype)),
    )
    return lax.fori_loop(0, steps, add_atom, state)[-1]
