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
from laser_jax.sparse.code import is_finite, own_part, squared_errors, usage
from laser_jax.sparse.dictionary import unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.fit import mean_of_finite, replaced, start_dictionary
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
      held_out: uint32 scalar, the number of the held-out set that `best_error` is of.
    """

    dictionary: Float[Array, "m d"]
    statistics: Any
    usage: Float[Array, " m"]
    step: Int32[Array, ""]
    seed: UInt32[Array, ""]
    scale: Float[Array, ""]
    error: Float[Array, ""]
    best_error: Float[Array, ""]
    held_out: UInt32[Array, ""]


@functools.lru_cache(maxsize=64)
def compiled_init(learner, mesh=None):
    init = functools.partial(_init, learner)
    if mesh is None:
        return entry()(init)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs_of(learner))
    return jax.jit(entry(compiled=False)(init), out_shardings=places)


def specs_of(learner):
    """Returns over which axis of a mesh a state is sharded, as a prefix of its tree."""
    whole, atoms = PartitionSpec(), PartitionSpec(learner.atoms_axis)
    return LearnerState(atoms, atoms, atoms, *6 * [whole])


def over_atoms(learner, function, mesh, outputs):
    """Returns a function of state and signals with each device's part of the atoms.

    Other axes of the mesh stay with the compiler: signals may be sharded over them.
    """
    if learner.atoms_axis is None:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=(specs_of(learner), PartitionSpec()), out_specs=outputs,
        axis_names={learner.atoms_axis},
    )  # fmt: skip


def mesh_of(learner, *arrays):
    """Returns the mesh over which the atoms are sharded, None if they are not.

    Raises:
      ValueError: if no array lies on a mesh with that axis, or it does not divide the atoms.
    """
    axis = learner.atoms_axis
    if axis is None:
        return None
    places = [getattr(x, "sharding", None) for x in arrays]
    found = [x.mesh for x in places if isinstance(x, NamedSharding) and axis in x.mesh.shape]
    if not found:
        raise ValueError(
            f"atoms_axis {axis!r} needs signals or a dictionary on a mesh that has it; use "
            "jax.device_put(signals, NamedSharding(mesh, PartitionSpec()))."
        )
    if learner.num_atoms % found[0].shape[axis]:
        raise ValueError(
            f"num_atoms {learner.num_atoms} must be a multiple of the {found[0].shape[axis]} "
            f"devices of the axis {axis!r}."
        )
    return found[0]


def _init(learner, key, signals, dictionary):
    m = learner.num_atoms
    seed_key, key = jax.random.split(key)
    if signals is None:
        (signals,) = check_floats(dictionary=dictionary)
        scale = jnp.zeros((), signals.dtype)
    else:
        signals = check_rows(signals, m)
        scale = _scale_of(signals)
    nonnegative, _ = learner.kept_nonnegative
    dictionary = start_dictionary(signals, m, dictionary, learner.max_coherence, key, nonnegative)
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
        held_out=jnp.uint32(0),
    )


def _empty_statistics(learner, dictionary):
    if learner.method == "online":
        return online_statistics(dictionary)
    if learner.method == "residual":
        return ()
    return ksvd_statistics(dictionary, method=learner.method)


@functools.lru_cache(maxsize=64)
def _shapes_of_statistics(learner, width):
    atoms = jax.ShapeDtypeStruct((learner.num_atoms, width), jnp.float32)
    empty = jax.eval_shape(functools.partial(_empty_statistics, learner), atoms)
    return [x.shape for x in jax.tree.leaves(empty)]


def check_state(learner, state):
    """Raises ValueError if a state is not of the learner's atoms and method."""
    atoms, width = state.dictionary.shape
    remedy = "use the learner that made it, or start with init(key, dictionary=state.dictionary)"
    if atoms != learner.num_atoms:
        raise ValueError(f"state has {atoms} atoms, the learner {learner.num_atoms}; {remedy}.")
    found = [jnp.shape(x) for x in jax.tree.leaves(state.statistics)]
    expected = _shapes_of_statistics(learner, width)
    if found != expected:
        raise ValueError(
            f"state has statistics of the shapes {found}, those of method {learner.method!r} are "
            f"{expected}; {remedy}."
        )


def _scale_of(signals):
    return power_scales(jnp.where(is_finite(signals), signals, 0).ravel())[0]


def _to_scale(learner, state, signals):
    """Returns signals in the type of the atoms and over a power of two, and this power.

    It is the state's, so that a coder's tolerance means the same at every step and evaluation.
    """
    signals = check_rows(signals, learner.num_atoms).astype(state.dictionary.dtype)
    scale = jnp.where(state.scale > 0, state.scale, _scale_of(signals))
    return signals / scale, scale


@functools.lru_cache(maxsize=64)
def compiled_update(learner, placement):
    """The compiled update of a learner; its result has the shardings of the state."""
    function = functools.partial(_update, learner)
    if learner.atoms_axis is not None:
        function = over_atoms(learner, function, placement.dictionary.mesh, specs_of(learner))
    update = entry(compiled=False, like="state")(lambda state, signals: function(state, signals))
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


def beside(learner, state, signals):
    """Returns the state, on the mesh of the signals unless it is on that mesh."""
    there = getattr(signals, "sharding", None)
    here = getattr(state.dictionary, "sharding", None)
    if not isinstance(there, NamedSharding) or not isinstance(signals, jax.Array):
        return state
    if isinstance(here, NamedSharding) and here.mesh == there.mesh:
        return state
    if learner.atoms_axis is None:
        return jax.device_put(state, NamedSharding(there.mesh, PartitionSpec()))
    mesh = mesh_of(learner, signals)
    places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs_of(learner))
    return LearnerState(*map(jax.device_put, state, places))


@functools.lru_cache(maxsize=64)
def compiled_error(learner, mesh=None):
    function = over_atoms(
        learner, functools.partial(_mean_error, learner), mesh, outputs=PartitionSpec()
    )
    return entry()(lambda state, signals: function(state, signals))


def _mean_error(learner, state, signals):
    signals, scale = _to_scale(learner, state, signals)
    error = _error_of(signals, state.dictionary, learner)[1]
    return (error * scale) * scale


def _error_of(signals, dictionary, learner):
    options = {} if learner.atoms_axis is None else {"atoms_axis": learner.atoms_axis}
    code = learner.used_coder(signals, dictionary, sparsity=learner.sparsity, **options)
    errors = squared_errors(signals, dictionary, code, **options)
    return code, mean_of_finite(errors, signals, code)


def _update(learner, state, signals):
    m, dictionary = learner.num_atoms, state.dictionary
    signals, scale = _to_scale(learner, state, signals)
    code, error = _error_of(signals, dictionary, learner)
    age = state.step.astype(dictionary.dtype)
    keep = jnp.minimum(learner.decay, (age / (age + 1)) ** _FORGETTING)
    statistics, dictionary = _learn(learner, state.statistics, signals, dictionary, code, keep)
    own = own_part(code, len(dictionary), learner.atoms_axis)
    counts = usage(own, len(dictionary)).astype(dictionary.dtype)
    total = jnp.sum(counts)
    if learner.atoms_axis is not None:
        total = lax.psum(total, learner.atoms_axis)
    share = counts / jnp.maximum(total / m, 1e-12)
    keep = jnp.minimum(_kept_usage(learner), (age + 1) / (age + 2))  # initial usage: one batch
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


def _kept_usage(learner):
    """The share of the use that is kept at a step: of about the steps since a replacement.

    With a longer memory, atoms that were used at the start and not since would never be replaced.
    """
    every = learner.replace_every
    return min(learner.decay, 1 - 1 / every) if every else learner.decay


def _learn(learner, statistics, signals, dictionary, code, keep):
    axis = learner.atoms_axis
    nonnegative, _ = learner.kept_nonnegative
    if learner.method == "online":
        options = {"decay": keep, "nonnegative": nonnegative, "atoms_axis": axis}
        return online_update(statistics, signals, dictionary, code, **options)
    if learner.method == "residual":
        squares = jnp.where(jnp.isfinite(code.coefficients), code.coefficients, 0) ** 2
        square = jnp.sum(squares) / jnp.maximum(jnp.sum(squares > 0), 1)
        rate = learner.learning_rate / jnp.where(square > 0, square, 1)
        options = {"learning_rate": rate, "atoms_axis": axis}
        new = residual_update(signals, dictionary, code, **options)
        if nonnegative:
            new = jnp.maximum(new, 0)
            new = jnp.where(jnp.any(new > 0, -1, keepdims=True), new, dictionary)
        return (), unit_norm(new)
    options = {"method": learner.method, "decay": keep, "atoms_axis": axis}
    options["nonnegative"] = learner.nonnegative
    return ksvd_update(statistics, signals, dictionary, code, **options)[:2]


def _replace(learner, state, signals, code):
    """Replaces atoms and resets their statistics.

    Each device looks at all atoms, which are gathered for it.
    """
    axis, before = learner.atoms_axis, state.dictionary
    everything = (before, state.usage) if axis is None else lax.all_gather(
        (before, state.usage), axis, tiled=True
    )  # fmt: skip
    atoms = replaced(
        signals,
        everything[0],
        code,
        nonnegative=learner.kept_nonnegative[0],
        max_coherence=learner.max_coherence,
        key=jax.random.fold_in(jax.random.key(state.seed), state.step),
        counts=everything[1],
        min_count=learner.min_usage,
    )
    old = every_old = jnp.all(atoms == everything[0], axis=-1)
    if axis is not None:
        first = lax.axis_index(axis) * len(before)
        atoms, old = (lax.dynamic_slice_in_dim(x, first, len(before)) for x in (atoms, every_old))
    kept = jax.tree.map(
        lambda x: jnp.where(old.reshape(-1, *[1] * (x.ndim - 1)), x, 0), state.statistics
    )
    if isinstance(kept, OnlineStatistics):
        kept = kept._replace(code_moment=jnp.where(every_old, kept.code_moment, 0))
    return state._replace(dictionary=atoms, statistics=kept, usage=jnp.where(old, state.usage, 1))
