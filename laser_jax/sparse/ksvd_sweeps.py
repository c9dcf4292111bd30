"""The two orders in which K-SVD visits atoms: one after another, or all at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from laser_jax.sparse.linalg import matmul
from laser_jax.sparse.loops import fori_loop


class _Pairs(NamedTuple):
    """The (signal, atom) pairs in use, sorted by atom; atom j holds `starts[j]:starts[j + 1]`."""

    order: jax.Array  # (n k,) place of each sorted pair in the code
    signal: jax.Array  # (n k,)
    coefficient: jax.Array  # (n k,)
    starts: jax.Array  # (m + 1,)


def sort_pairs(code, num_atoms):
    k = code.indices.shape[-1]
    # Unused places come after every atom.
    atom = jnp.where(code.coefficients != 0, code.indices, num_atoms).ravel()
    order = jnp.argsort(atom, stable=True)
    starts = jnp.searchsorted(atom[order], jnp.arange(num_atoms + 1))
    return _Pairs(order, order // k, code.coefficients.ravel()[order], starts)


def one_by_one(memory, errors, weights, dictionary, pairs, rule):
    """Updates atom after atom; the errors and coefficients follow each one as it changes.

    Args:
      memory: `(m, ...)` moments to which those of these signals are added, or None.
      errors: `(n, d)` of the signals.
      weights: `(n, d)` of their entries, or None.
      dictionary: `(m, d)`.
      pairs: `_Pairs` of the code.
      rule: `PlainRule` or `WeightedRule`.

    Returns:
      memory, dictionary, and the coefficients of the sorted pairs.
    """
    chunk = 128  # users taken at a time; an atom with more takes several rounds
    window = jnp.arange(chunk)

    def gather(start, stop, errors, coefficients, atom):
        """A chunk's users: places, coefficients, errors without the atom, and weights."""
        place = jnp.where(start + window < stop, start + window, pairs.signal.size)
        coefficient = coefficients.at[place].get(mode="fill", fill_value=0)
        signal = pairs.signal.at[place].get(mode="fill", fill_value=errors.shape[0])
        error = errors.at[signal].get(mode="fill", fill_value=0)
        error += coefficient[:, None] * atom[None, :]
        seen = None if weights is None else weights.at[signal].get(mode="fill", fill_value=0)
        return place, signal, coefficient, error, seen

    def update_atom(j, state):
        memory, errors, dictionary, coefficients = state
        start, stop, old = pairs.starts[j], pairs.starts[j + 1], dictionary[j]
        rounds = -(-(stop - start) // chunk)

        def add_moment(i, moment):
            _, _, coefficient, error, seen = gather(
                start + i * chunk, stop, errors, coefficients, old
            )
            return moment + rule.moment(error, coefficient, seen)

        moment = rule.empty(old) if memory is None else memory[j]
        moment = fori_loop(0, rounds, add_moment, moment)
        new = rule.direction(moment, old)

        def move_users(i, state):
            errors, coefficients = state
            place, signal, _, error, seen = gather(
                start + i * chunk, stop, errors, coefficients, old
            )
            coefficient = rule.coefficients(error, new, seen)
            error -= coefficient[:, None] * new[None, :]
            errors = errors.at[signal].set(error, mode="drop")
            return errors, coefficients.at[place].set(coefficient, mode="drop")

        errors, coefficients = fori_loop(0, rounds, move_users, (errors, coefficients))
        if memory is not None:
            memory = memory.at[j].set(moment)
        return memory, errors, dictionary.at[j].set(new), coefficients

    state = (memory, errors, dictionary, pairs.coefficient)
    memory, _, dictionary, coefficients = fori_loop(0, dictionary.shape[0], update_atom, state)
    return memory, dictionary, coefficients


def all_moments(errors, dictionary, code, atom_shards=1):
    """Every atom's E^T E, `(m, d, d)`, each device's signals by themselves and then summed.

    Sorting all of a sharded batch would gather it on every device.
    """

    def share_moments(errors, code):
        return _restricted_moments(errors, dictionary, sort_pairs(code, dictionary.shape[0]))

    n, devices = errors.shape[0], jax.device_count() // atom_shards
    if devices == 1 or n % devices:
        return share_moments(errors, code)
    split = jax.tree.map(lambda x: x.reshape(devices, n // devices, -1), (errors, code))
    return jnp.sum(jax.vmap(share_moments)(*split), axis=0)


def _restricted_moments(errors, dictionary, pairs):
    """Every atom's E^T E over these signals.

    Atoms have few or many users, so the sorted pairs are cut into groups of one size,
    each within one atom: one batched product, then a sum over each atom's groups. At
    a group size of the average number of users there are at most 2 m groups.
    """
    (m, _), total = dictionary.shape, pairs.signal.size
    size = max(16, -(-total // m))
    groups = -(-total // size) + m
    counts = -(-jnp.diff(pairs.starts) // size)
    ends = jnp.cumsum(counts)
    atom = jnp.searchsorted(ends, jnp.arange(groups), side="right")
    inside = jnp.minimum(atom, m - 1)
    first = pairs.starts[inside] + (jnp.arange(groups) - (ends - counts)[inside]) * size
    place = first[:, None] + jnp.arange(size)[None, :]
    valid = (place < pairs.starts[inside + 1][:, None]) & (atom < m)[:, None]
    place = jnp.minimum(place, total - 1)
    coefficient = pairs.coefficient[place][..., None]
    error = errors[pairs.signal[place]] + coefficient * dictionary[inside][:, None]
    error = jnp.where(valid[..., None], error, 0)
    moments = matmul(error.mT, error)
    return jax.ops.segment_sum(moments, atom, m, indices_are_sorted=True)
