"""The encoder's search: which atoms and levels are worth their bits.

`rate_distortion_pursuit` adds one atom after another. Here what an atom saves is computed with its
rounded level and that level's bits, and afterwards each atom in turn is exchanged for the best one
of all, or dropped. Every exchange lowers squared error + bits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from laser_jax.sparse import RateModel
from laser_jax.sparse.linalg import row_argmax

SWEEPS = 1  # over the atoms of a signal; a second one gains 0.01 dB
CHUNK = 128  # signals coded together
_EXACT = 6  # levels whose savings are computed one by one
_NEVER = -1e30


class Problem(NamedTuple):
    """Unit atoms, the step of each one's coefficients, and the bits of symbols."""

    atoms: jax.Array  # (m, d)
    steps: jax.Array  # (m,)
    bits: RateModel

    @classmethod
    def of(cls, dictionary, step, model):
        norms = np.maximum(np.linalg.norm(dictionary, axis=1, keepdims=True), 1e-6)
        arrays = dictionary / norms, step * norms[:, 0], RateModel(*map(np.asarray, model))
        return cls(*jax.device_put(jax.tree.map(np.float32, arrays)))

    def saved(self, correlations):
        """What each atom saves with its best level, nearly, `(b, m)`."""
        size, steps, bits = jnp.abs(correlations), self.steps[None, :], self.bits.level_bits
        large = jnp.maximum(size, (_EXACT + 1) * steps)
        best = (2 * size - large) * large - bits[2 * _EXACT]
        for level in range(1, _EXACT + 1):
            value = level * steps
            best = jnp.maximum(best, (2 * size - value) * value - bits[level - 1])
        return best - self.bits.index_bits[None, :]

    def level(self, wanted, index):
        """The best level of atoms `(b,)` with such correlations, and what it costs, less error."""
        step, bits, size = self.steps[index], self.bits.level_bits, jnp.abs(wanted)
        low = jnp.clip(jnp.floor(size / step), 1, bits.size - 1)

        def cost(level):
            return (step * level - 2 * size) * step * level + bits[level.astype(jnp.int32) - 1]

        first, second = cost(low), cost(low + 1)
        level = jnp.where(first <= second, low, low + 1) * jnp.sign(wanted)
        return level, jnp.minimum(first, second) + self.bits.index_bits[index]


class _State(NamedTuple):
    residual: jax.Array  # (b, d)
    indices: jax.Array  # (k, b)
    levels: jax.Array  # (k, b), 0 where there is no atom
    taken: jax.Array  # (b, m)


def search(signals, problem, *, sparsity, sweeps=SWEEPS, size=CHUNK):
    """Returns atoms and levels `(n, k)` of signals that have least squared error + bits.

    Args:
      signals: `(n, d)` over the square root of the price: what a bit must save is 1.
      problem: the `Problem`, in the same unit.
      sparsity: k, the most atoms of a signal.
      sweeps: of exchanges over the atoms of a signal.
      size: signals coded together: always so many, so that one program serves all.
    """
    # Signals that are coded together wait for the one with the most atoms.
    order = np.argsort(np.sum(signals**2, 1), kind="stable")
    atoms, levels = (np.zeros((len(signals), sparsity), np.int32) for _ in range(2))
    for start in range(0, len(signals), size):
        chosen = order[start : start + size]
        padded = np.zeros((size, signals.shape[1]), np.float32)
        padded[: len(chosen)] = signals[chosen]
        found = jax.device_get(_search(padded, problem, sparsity=sparsity, sweeps=sweeps))
        atoms[chosen], levels[chosen] = (x[: len(chosen)] for x in found)
    return atoms, levels


@functools.partial(jax.jit, static_argnames=("sparsity", "sweeps"))
def _search(signals, problem, *, sparsity, sweeps):
    b, m = signals.shape[0], problem.atoms.shape[0]
    state = _State(
        signals,
        jnp.zeros((sparsity, b), jnp.int32),
        jnp.zeros((sparsity, b), jnp.float32),
        jnp.zeros((b, m), bool),
    )

    def unfinished(carry):
        place, _, grown = carry
        return (place < sparsity) & grown

    def add(carry):
        place, state, _ = carry
        new = _exchange(place, state, problem)
        return place + 1, new, jnp.any(new.levels[place] != 0)

    places, state, _ = lax.while_loop(unfinished, add, (0, state, True))
    for _ in range(sweeps):
        state = lax.fori_loop(0, places, lambda i, s: _exchange(i, s, problem), state)
    return state.indices.T, state.levels.astype(jnp.int32).T


def _exchange(place, state, problem):
    """Puts the best atom in a place, or none, then moves the other levels."""
    residual, indices, levels, taken = state
    own, level = indices[place], levels[place]
    residual = residual + (problem.steps[own] * level)[:, None] * problem.atoms[own]
    is_own = lax.broadcasted_iota(jnp.int32, taken.shape, 1) == own[:, None]
    taken = taken & ~(is_own & (level != 0)[:, None])
    correlations = jnp.matmul(residual, problem.atoms.T, precision="highest")
    saved = jnp.where(taken, _NEVER, problem.saved(correlations))
    index, _ = row_argmax(saved)
    level, cost = problem.level(_of(correlations, index), index)
    # What `saved` says is not exact: the atom that was there may be better.
    own_level, own_cost = problem.level(_of(correlations, own), own)
    stays = (state.levels[place] != 0) & (own_cost <= cost)
    index, level = jnp.where(stays, own, index), jnp.where(stays, own_level, level)
    others = jnp.sum(levels != 0, 0) - (levels[place] != 0)
    counts = problem.bits.count_bits
    cost = jnp.where(stays, own_cost, cost) + counts[others + 1] - counts[others]
    level = jnp.where(cost < 0, level, 0)
    residual = residual - (problem.steps[index] * level)[:, None] * problem.atoms[index]
    is_new = lax.broadcasted_iota(jnp.int32, taken.shape, 1) == index[:, None]
    taken = taken | (is_new & (level != 0)[:, None])
    return _move_levels(
        _State(residual, indices.at[place].set(index), levels.at[place].set(level), taken), problem
    )


def _of(values, index):
    """The value `(b,)` of each row at its index."""
    return jnp.take_along_axis(values, index[:, None], 1)[:, 0]


def _move_levels(state, problem):
    """Moves each level to the better of the two beside its optimum."""
    most = jnp.max(jnp.sum(jnp.cumsum(state.levels[::-1] != 0, 0) > 0, 0))

    def move(i, carry):
        residual, levels = carry
        index, level = state.indices[i], levels[i]
        atom, step = problem.atoms[index], problem.steps[index]
        wanted = jnp.sum(residual * atom, -1) + step * level
        new = jnp.where(level != 0, problem.level(wanted, index)[0], 0)
        return residual - (step * (new - level))[:, None] * atom, levels.at[i].set(new)

    residual, levels = lax.fori_loop(0, most, move, (state.residual, state.levels))
    return state._replace(residual=residual, levels=levels)
