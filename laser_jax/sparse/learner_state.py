"""The state of a `DictionaryLearner` and the compiled steps from one to the next.

Early batches were coded in a poor dictionary, so they must be forgotten faster than `decay` says:
after t batches the share of the past that is kept is the least of `decay` and (t / (t + 1))^8,
by which the weight of a batch grows as a power of its number (Mairal et al. 2010, section 3.4.3).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32, UInt32

from laser_jax.checks import check_floats, check_rows
from laser_jax.sparse.code import is_finite, squared_errors, usage
from laser_jax.sparse.dictionary import replace_atoms, unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.fit import start_dictionary
from laser_jax.sparse.ksvd import ksvd_statistics, ksvd_update
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.online import (
    OnlineStatistics,
    online_statistics,
    online_update,
    residual_update,
)

# 2 keeps early batches too long, 16 forgets small ones too fast: on photographs' patches and on
# signals of a known dictionary, in batches of 128 to 1024.
_FORGETTING = 8


class LearnerState(NamedTuple):
    """The state of a `DictionaryLearner`.

    Attributes:
      dictionary: `(m, d)`, unit-norm atoms.
      statistics: decayed moments, of the method: `OnlineStatistics`, an array, or ().
      usage: `(m,)` decayed use of each atom as a multiple of the mean use.
      step: int32 scalar, batches learned from.
      seed: uint32 scalar, from which all random choices follow.
      scale: scalar, the power of two that signals are divided by; 0 before the first batch.
      error: scalar, mean squared error ||y - x D||^2 of the last batch, before it was learned.
      best_error: scalar, the least held-out error of a `fit` with `held_out`, infinite before.
    """

    dictionary: Float[Array, "m d"]
    statistics: Any
    usage: Float[Array, " m"]
    step: Int32[Array, ""]
    seed: UInt32[Array, ""]
    scale: Float[Array, ""]
    error: Float[Array, ""]
    best_error: Float[Array, ""]


@functools.lru_cache(maxsize=64)
def compiled_init(learner):
    return entry()(functools.partial(_init, learner))


def _init(learner, key, signals, dictionary):
    m = learner.num_atoms
    seed_key, key = jax.random.split(key)
    if signals is None:
        (signals,) = check_floats(dictionary=dictionary)
        scale = jnp.zeros((), signals.dtype)
    else:
        signals = check_rows(signals, m)
        scale = _scale_of(signals)
    dictionary = start_dictionary(signals, m, dictionary, learner.max_coherence, key)
    infinite = jnp.asarray(jnp.inf, dictionary.dtype)
    return LearnerState(
        dictionary,
        _empty_statistics(learner, dictionary),
        usage=jnp.ones(m, dictionary.dtype),
        step=jnp.int32(0),
        seed=jax.random.bits(seed_key, dtype=jnp.uint32),
        scale=scale.astype(dictionary.dtype),
        error=infinite,
        best_error=infinite + 0,  # a buffer of its own, as the state is donated
    )


def _empty_statistics(learner, dictionary):
    if learner.method == "online":
        return online_statistics(dictionary)
    if learner.method == "residual":
        return ()
    return ksvd_statistics(dictionary, method=learner.method)


def _scale_of(signals):
    return power_scales(jnp.where(is_finite(signals), signals, 0).ravel())[0]


@functools.lru_cache(maxsize=64)
def compiled_update(learner, placement):
    """The compiled update of a learner; its result has the shardings of the state."""
    update = entry(compiled=False, like="state")(functools.partial(_update, learner))
    return jax.jit(update, donate_argnums=0, out_shardings=placement)


def placement_of(state):
    """The state's shardings over a mesh, or None: then it follows the signals."""
    leaves, tree = jax.tree.flatten(state)
    found = [
        None if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None) for x in leaves
    ]
    if all(isinstance(x, NamedSharding) for x in found):
        return tree.unflatten(found)
    return None


def beside(state, signals):
    """Returns the state, replicated over the mesh of the signals unless it is on that mesh."""
    there = getattr(signals, "sharding", None)
    here = getattr(state.dictionary, "sharding", None)
    if not isinstance(there, NamedSharding) or not isinstance(signals, jax.Array):
        return state
    if isinstance(here, NamedSharding) and here.mesh == there.mesh:
        return state
    return jax.device_put(state, NamedSharding(there.mesh, PartitionSpec()))


@functools.lru_cache(maxsize=64)
def compiled_error(learner):
    return entry()(functools.partial(_mean_error, learner))


def _mean_error(learner, dictionary, signals):
    signals = check_rows(signals, learner.num_atoms).astype(dictionary.dtype)
    scale = _scale_of(signals)
    error = _error_of(signals / scale, dictionary, learner)[1]
    return (error * scale) * scale


def _error_of(signals, dictionary, learner):
    code = learner.coder(signals, dictionary, sparsity=learner.sparsity)
    coded = is_finite(signals) & is_finite(code.coefficients)
    total = jnp.sum(squared_errors(signals, dictionary, code))
    return code, total / jnp.maximum(jnp.sum(coded), 1)


def _update(learner, state, signals):
    m, dictionary = learner.num_atoms, state.dictionary
    signals = check_rows(signals, m).astype(dictionary.dtype)
    scale = jnp.where(state.scale > 0, state.scale, _scale_of(signals))
    signals = signals / scale
    code, error = _error_of(signals, dictionary, learner)
    age = state.step.astype(dictionary.dtype)
    keep = jnp.minimum(learner.decay, (age / (age + 1)) ** _FORGETTING)
    statistics, dictionary = _learn(learner, state.statistics, signals, dictionary, code, keep)
    counts = usage(code, m).astype(dictionary.dtype)
    share = counts / jnp.maximum(jnp.mean(counts), 1e-12)
    keep = jnp.minimum(learner.decay, (age + 1) / (age + 2))  # initial usage: one batch
    state = state._replace(
        dictionary=dictionary,
        statistics=statistics,
        usage=keep * state.usage + (1 - keep) * share,
        step=state.step + 1,
        scale=scale,
        error=(error * scale) * scale,
    )
    if not learner.replace_every:
        return state
    due = state.step % learner.replace_every == 0
    return lax.cond(due, lambda x: _replace(learner, x, signals, code), lambda x: x, state)


def _learn(learner, statistics, signals, dictionary, code, keep):
    if learner.method == "online":
        return online_update(statistics, signals, dictionary, code, decay=keep)
    if learner.method == "residual":
        squares = jnp.where(jnp.isfinite(code.coefficients), code.coefficients, 0) ** 2
        square = jnp.sum(squares) / jnp.maximum(jnp.sum(squares > 0), 1)
        rate = learner.learning_rate / jnp.where(square > 0, square, 1)
        return (), unit_norm(residual_update(signals, dictionary, code, learning_rate=rate))
    return ksvd_update(statistics, signals, dictionary, code, method=learner.method, decay=keep)[:2]


def _replace(learner, state, signals, code):
    """Replaces atoms and resets their statistics."""
    atoms = replace_atoms(
        signals,
        state.dictionary,
        code,
        max_coherence=learner.max_coherence,
        key=jax.random.fold_in(jax.random.key(state.seed), state.step),
        counts=state.usage,
        min_count=learner.min_usage,
    )
    old = jnp.all(atoms == state.dictionary, axis=-1)
    kept = jax.tree.map(
        lambda x: jnp.where(old.reshape(-1, *[1] * (x.ndim - 1)), x, 0), state.statistics
    )
    if isinstance(kept, OnlineStatistics):
        kept = kept._replace(code_moment=jnp.where(old[None, :], kept.code_moment, 0))
    return state._replace(dictionary=atoms, statistics=kept, usage=jnp.where(old, state.usage, 1))
