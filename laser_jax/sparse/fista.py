"""FISTA for a block of signals: the solver of `lasso`.

Each iteration takes a proximal gradient step from a point extrapolated along the last move. Each
signal restarts its momentum where that points uphill (O'Donoghue and Candes), has its own stopping
test and then stays as it is, so the other signals of its block do not change its code.

The stopping test is the duality gap. With r = y - x D and correlations c = r D^T, s r is feasible
in the dual for s = min(1, min_j penalty_j / |c_j|), and the gap

    1/2 (1 - s)^2 ||r||^2 + sum_j (penalty_j |x_j| - s x_j c_j)

is a sum of terms >= 0, so it is accurate in spite of rounding. c is linear in x: that of the
extrapolated point follows from those of the last two, and an iteration takes two products.

First-order steps find the support early and its coefficients late. So every 20 of them conjugate
gradients minimise the error over the support, its signs held, and the result is kept where the
objective is lower.

Atoms are scaled to norm 1, which changes penalties and not the problem, and conditions it better.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.code import is_finite
from laser_jax.sparse.linalg import matmul, power_scales, safe_norms, within_range
from laser_jax.sparse.loops import while_loop

# Proximal steps between two minimisations over the support, and the most steps of one of those.
_PERIOD, _SUPPORT_STEPS = 20, 40


class UnitProblem(NamedTuple):
    """Atoms of norm 1 or 0, their norms, and the penalty of each one's coefficient."""

    atoms: jax.Array  # (m, d)
    norms: jax.Array  # (m,)
    penalty: jax.Array  # (1, m)
    bound: jax.Array  # of the largest eigenvalue of D D^T


def unit_problem(dictionary, penalty):
    dictionary = jnp.where(is_finite(dictionary), dictionary, 0)
    norms = safe_norms(dictionary)
    atoms = dictionary / norms
    penalty = jnp.maximum(within_range(penalty / norms[:, 0]), 0)[None, :]
    return UnitProblem(atoms, norms[:, 0], penalty, _largest_eigenvalue_bound(atoms))


def _largest_eigenvalue_bound(atoms, squarings=5):
    """Returns a bound of the largest eigenvalue of D D^T from above, within a factor d^(1/64).

    ||A^p||_F^(1/p) is one for any p and symmetric A >= 0, and tends to it.
    """
    m, d = atoms.shape
    eps = jnp.finfo(atoms.dtype).eps
    power = matmul(atoms.T, atoms) if d <= m else matmul(atoms, atoms.T)
    size = jnp.sqrt(jnp.sum(power**2))
    bound, share = jnp.ones_like(size), 1.0
    for _ in range(squarings):
        size = jnp.where(size > 0, size, 1)
        bound, power = bound * size**share, power / size
        power, share = matmul(power, power), share / 2
        size = jnp.sqrt(jnp.sum(power**2))
    # Rounding of the products must not bring it below.
    bound = bound * size**share * (1 + 64 * eps)
    return jnp.where(bound > 0, bound, 1)


class _State(NamedTuple):
    step: jax.Array
    x: jax.Array  # (b, m)
    correlations: jax.Array  # (b, m), of the residual at x
    point: jax.Array  # (b, m), extrapolated
    point_correlations: jax.Array
    momentum: jax.Array  # (b, 1), t of FISTA
    active: jax.Array  # (b, 1)


class _Block(NamedTuple):
    """The problem of a block of signals, each over a power of two."""

    signals: jax.Array  # (b, d), times the roots
    atoms: jax.Array  # (m, d), of norm 1 or 0
    root: jax.Array | int  # (b, d), of the weights; 1 without
    penalty: jax.Array  # (b, m)
    step: jax.Array  # 1 over a bound of the curvature
    tolerance: jax.Array
    nonnegative: bool

    def correlate(self, x):
        """Returns the residual, and its correlations with the atoms."""
        residual = self.signals - matmul(x, self.atoms) * self.root
        return residual, matmul(residual * self.root, self.atoms.T)

    def objective(self, x, residual):
        paid = jnp.sum(self.penalty * jnp.abs(x), -1, keepdims=True)
        return jnp.sum(residual**2, -1, keepdims=True) / 2 + paid

    def gap(self, x, residual, correlations):
        """Returns the duality gap `(b, 1)`."""
        size = jnp.maximum(correlations, 0) if self.nonnegative else jnp.abs(correlations)
        share = jnp.where(size > self.penalty, self.penalty / size, 1)
        share = jnp.min(share, -1, keepdims=True)
        half = jnp.sum(residual**2, -1, keepdims=True) / 2
        slack = self.penalty * jnp.abs(x) - share * x * correlations
        return (1 - share) ** 2 * half + jnp.sum(slack, -1, keepdims=True)

    def proximal_step(self, state):
        x = state.point + self.step * state.point_correlations
        size = jnp.maximum((x if self.nonnegative else jnp.abs(x)) - self.step * self.penalty, 0)
        return size if self.nonnegative else jnp.sign(x) * size

    def iterate(self, state):
        state = lax.cond(
            state.step % _PERIOD == _PERIOD - 1, self.polish, lambda state: state, state
        )
        x = self.proximal_step(state)
        residual, correlations = self.correlate(x)
        move = x - state.x
        uphill = jnp.sum((state.point - x) * move, -1, keepdims=True) > 0
        momentum = jnp.where(uphill, 1, state.momentum)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        along = jnp.where(uphill, 0, (momentum - 1) / following)
        allowed = self.tolerance * self.objective(x, residual)
        rounding = 2 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(x), -1, keepdims=True)
        moves = jnp.max(jnp.abs(x - state.point), -1, keepdims=True) > rounding
        new = _State(
            state.step + 1,
            x,
            correlations,
            x + along * move,
            correlations + along * (correlations - state.correlations),
            following,
            state.active & moves & (self.gap(x, residual, correlations) > allowed),
        )
        return jax.tree.map(
            lambda new, old: jnp.where(state.active, new, old) if new.ndim else new, new, state
        )

    def polish(self, state):
        """Minimises over the support of x; the momentum restarts where that helps."""
        held = (state.x != 0) & state.active
        pull = jnp.where(held, state.correlations - self.penalty * jnp.sign(state.x), 0)
        gram = gram_product(self.atoms, self.root, held)
        move = conjugate_gradients(_SUPPORT_STEPS, gram, pull, 1e-3)
        best = state.x, state.correlations
        least = before = self.objective(state.x, self.correlate(state.x)[0])
        for x in _along(state.x, move):
            residual, correlations = self.correlate(x)
            cost = self.objective(x, residual)
            lower = functools.partial(jnp.where, cost < least)
            best = jax.tree.map(lower, (x, correlations), best)
            least = jnp.minimum(cost, least)
        better = least < before
        return state._replace(
            x=best[0],
            correlations=best[1],
            point=jnp.where(better, best[0], state.point),
            point_correlations=jnp.where(better, best[1], state.point_correlations),
            momentum=jnp.where(better, 1, state.momentum),
        )


def solve_block(solver, problem, limits, signals, start, weights):
    iterations, tolerance = limits
    root, weight = weights or (1, 1)
    signals = signals * root
    finite, own = is_finite(signals), power_scales(signals)
    signals = jnp.where(finite, signals / own, 0)
    # No correlation is larger: a penalty above it says the same.
    most = 4 * signals.shape[-1] ** 0.5
    penalty = jnp.minimum(problem.penalty / own / weight, most)
    step = 1 / problem.bound if not weights else 1 / (2 * problem.bound)  # a root is at most 2^0.5
    block = _Block(signals, problem.atoms, root, penalty, step, tolerance, solver.nonnegative)
    x = jnp.zeros_like(penalty)
    for given in start:
        usable = finite & is_finite(given) & jnp.any(problem.atoms != 0, -1)[None, :]
        x = jnp.where(usable, given * problem.norms[None, :] / own, 0)
        x = jnp.maximum(x, 0) if solver.nonnegative else x
    _, correlations = block.correlate(x)
    ones = jnp.ones_like(own)
    state = _State(jnp.int32(0), x, correlations, x, correlations, ones, finite)
    state = while_loop(
        lambda state: (state.step < iterations) & jnp.any(state.active),
        block.iterate,
        state,
    )
    return within_range(state.x * jnp.where(finite, own, jnp.nan) / problem.norms[None, :])


def _along(x, move):
    """Returns x + move with 0 where a sign changes, and x moved until the first sign changes.

    The second lowers the objective, also where the atoms of the support are dependent.
    """
    end = x + move
    changes = end * x < 0
    reach = jnp.where(changes, x / jnp.where(changes, -move, 1), jnp.inf)
    first = jnp.min(reach, -1, keepdims=True)
    until = x + jnp.minimum(first, 1) * move
    return jnp.where(changes, 0, end), jnp.where(changes & (reach == first), 0, until)


def gram_product(atoms, root, held):
    """Returns the product of `(b, m)` with the Gram matrix of each signal's held atoms."""

    def product(v):
        image = matmul(jnp.where(held, v, 0), atoms) * root
        return jnp.where(held, matmul(image * root, atoms.T), v)

    return product


def conjugate_gradients(most, product, target, tolerance=None):
    """Solves A x = y for each row of `(b, m)`, A symmetric, in at most `most` steps.

    Down to residuals of `tolerance` times the target, by default rounding.
    """
    tolerance = jnp.finfo(target.dtype).eps if tolerance is None else tolerance

    def dot(a, b):
        return jnp.sum(a * b, -1, keepdims=True)

    def going_on(square):
        return square > tolerance**2 * first

    def step(state):
        i, x, residual, direction, square = state
        image = product(direction)
        curvature = dot(direction, image)
        going = going_on(square) & (curvature > 0)
        length = jnp.where(going, square / jnp.where(going, curvature, 1), 0)
        x, residual = x + length * direction, residual - length * image
        new = jnp.where(going, dot(residual, residual), square)
        share = jnp.where(going, new / jnp.where(square > 0, square, 1), 0)
        direction = jnp.where(going, residual + share * direction, direction)
        return i + 1, x, residual, direction, new

    first = dot(target, target)
    state = jnp.int32(0), jnp.zeros_like(target), target, target, first
    return while_loop(lambda s: (s[0] < most) & jnp.any(going_on(s[-1])), step, state)[1]
