"""Sparse coding by an L1 penalty: the lasso, or basis pursuit denoising.

`fista.py` has the solver. Derivatives are those of the optimality conditions (implicit function
theorem), the support and the signs held: dx solves (D_S D_S^T) dx = change of the conditions, by
conjugate gradients.

Memory: O(block_size (m + d)) in addition to the result, in derivatives too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import check_at_least, check_mask, check_penalty, check_scalars, check_signals
from laser_jax.sparse.blocks import map_blocks, one_batch
from laser_jax.sparse.code import is_finite
from laser_jax.sparse.entry import entry
from laser_jax.sparse.fista import conjugate_gradients, gram_product, solve_block, unit_problem
from laser_jax.sparse.linalg import matmul, power_scales, safe_norms
from laser_jax.sparse.masked import apply_weights
from laser_jax.sparse.platforms import default_block_size


@entry(static=("iterations", "nonnegative", "block_size"), compiled=False, like="signals")
def lasso(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    penalty: Real[ArrayLike, ""] | Real[Array, " m"],
    iterations: int = 200,
    tolerance: Real[ArrayLike, ""] = 1e-6,
    nonnegative: bool = False,
    initial: Float[Array, "*batch m"] | None = None,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    block_size: int | None = None,
) -> Float[Array, "*batch m"]:
    """Returns argmin over x of 1/2 ||y - x D||^2 + penalty ||x||_1 for each signal.

    Differentiable twice with regard to signals, dictionary and penalty, the support held.

    Args:
      signals: `(..., d)` float array, one signal a row.
      dictionary: `(m, d)` float array, atoms of any norm.
      penalty: >= 0, of each |x_j|: a scalar, or `(m,)`, one an atom. A negative one is 0.
      iterations: most proximal gradient steps, at least 1. Static. 200 are enough for incoherent
        atoms; atoms learned on photographs need 1000 at 8 atoms a code; at 30 even 3000 left
        1 signal of 512 more than 1e-5 above the optimum.
      tolerance: a signal is done when the duality gap is at most this share of its objective, or
        rounding stops it. float32 reaches about 1e-6.
      nonnegative: whether x >= 0. Static.
      initial: `(..., m)` coefficients to start from, as those of a similar penalty; None for 0.
      mask: weights of the signals' entries as for `omp`.
      block_size: signals coded together; None chooses it.

    Returns:
      Dense coefficients `(..., m)`: NaN for a signal, 0 for an atom that is not finite.

    Raises:
      ValueError: if shapes do not match or a number is out of range.

    References:
      Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm, 2009.
      O'Donoghue and Candes, Adaptive restart for accelerated gradient schemes, 2015.
    """
    signals, dictionary = check_signals(signals, dictionary)
    penalty = check_penalty(penalty, dictionary)
    check_at_least("iterations", iterations, 1)
    check_scalars(tolerance=tolerance)
    if block_size is not None:
        check_at_least("block_size", block_size, 1)
    mask, m = check_mask(mask, signals), dictionary.shape[0]
    weights = ()
    if mask is not None:
        signals, *weights = apply_weights(signals, mask)
    shape = (*signals.shape[:-1], m)
    if initial is not None and jnp.shape(initial) != shape:
        raise ValueError(f"initial must have the shape {shape}, got {jnp.shape(initial)}.")
    solver = _Solver(bool(nonnegative), block_size)
    # Not of the solver, which would be compiled for each number of them.
    limits = jnp.int32(iterations), jnp.asarray(tolerance, signals.dtype)
    start = () if initial is None else (jnp.asarray(initial, signals.dtype),)
    fixed = (dictionary, penalty, limits), signals, start
    x = _solve(solver, *lax.stop_gradient((*fixed, tuple(weights))))
    return _implicit(signals, dictionary, penalty, x, tuple(weights))


class _Solver(NamedTuple):
    nonnegative: bool
    block_size: int | None


@functools.partial(jax.jit, static_argnums=0)
def _solve(solver, shared, signals, start, weights):
    def solve(shared, signals, *rows):
        dictionary, penalty, limits = shared
        problem = unit_problem(dictionary, penalty)
        rows = signals, rows[: len(start)], rows[len(start) :]
        size = solver.block_size or _block_size(*problem.atoms.shape)
        return map_blocks(lambda rows: solve_block(solver, problem, limits, *rows), rows, size)

    return one_batch(solve, shared, signals, *start, *weights)


def _block_size(m, d):
    return default_block_size(6 * m + 2 * d)


@jax.custom_jvp
def _implicit(signals, dictionary, penalty, x, weights):
    """Returns x with the gradient of the optimality conditions attached."""
    del signals, dictionary, penalty, weights
    return x


@_implicit.defjvp
def _implicit_jvp(primals, tangents):
    signals, dictionary, penalty, _, weights = primals
    d_signals, d_dictionary, d_penalty, *_ = tangents
    # By this very rule, so that the tangent can be differentiated again.
    x = _implicit(*primals)
    finite = is_finite(dictionary)
    norms = lax.stop_gradient(safe_norms(jnp.where(finite, dictionary, 0)))
    atoms, d_atoms = (jnp.where(finite, a, 0) / norms for a in (dictionary, d_dictionary))
    penalty, d_penalty = (
        jnp.broadcast_to(p, norms[:, 0].shape) / norms[:, 0] for p in (penalty, d_penalty)
    )

    @jax.checkpoint  # the reverse mode would store all blocks
    def differentiate(atoms, d_atoms, d_penalty, block):
        signals, d_signals, x, weights = block
        root, weight = weights or (1, 1)
        coded = is_finite(x) & is_finite(signals)
        held = (x != 0) & coded
        # In the units of the solver.
        own = power_scales(jnp.where(coded, signals * root, 0))
        signals, d_signals = (jnp.where(coded, s, 0) / own for s in (signals, d_signals))
        x = jnp.where(held, x, 0) * norms.T / own

        def conditions(signals, atoms, penalty):
            residual = (signals - matmul(x, atoms)) * root
            paid = penalty[None, :] / own / weight * jnp.sign(x)
            return jnp.where(held, matmul(residual * root, atoms.T) - paid, 0)

        change = jax.jvp(conditions, (signals, atoms, penalty), (d_signals, d_atoms, d_penalty))[1]
        most = 2 * min(atoms.shape) + 8
        d_x = lax.custom_linear_solve(
            gram_product(atoms, root, held),
            change,
            functools.partial(conjugate_gradients, most),
            symmetric=True,
        )
        return jnp.where(held, d_x, 0) * own / norms.T

    rows = signals, d_signals, x, weights
    function = functools.partial(differentiate, atoms, d_atoms, d_penalty)
    return x, map_blocks(function, rows, _block_size(*atoms.shape))
