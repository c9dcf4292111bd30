"""Dictionary learning from a stream: signals that are more than memory holds, or never end.

Each batch is coded, moves the atoms, and is forgotten; what stays is a `LearnerState` of a size
that does not depend on how many signals there were. It is a pytree of plain arrays, all random
choices are folded from its seed and step, so a run that is stored and read back goes on bit for
bit as one that never stopped.

Early batches were coded in a poor dictionary, so they must be forgotten faster than `decay` says:
after t batches the share of the past that is kept is the least of `decay` and (t / (t + 1))^8,
by which the weight of a batch grows as a power of its number (Mairal et al. 2010, section 3.4.3).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from laser_jax.checks import (
    check_at_least,
    check_choice,
    check_floats,
    check_rows,
    check_signals,
    check_sparsity,
)
from laser_jax.sparse.batches import Progress, in_batches
from laser_jax.sparse.code import is_finite, squared_errors, usage
from laser_jax.sparse.dictionary import replace_atoms, unit_norm
from laser_jax.sparse.entry import entry, static_value
from laser_jax.sparse.fit import start_dictionary
from laser_jax.sparse.ksvd import METHODS as SWEEPS
from laser_jax.sparse.ksvd import ksvd_statistics, ksvd_update
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.omp import omp
from laser_jax.sparse.online import (
    OnlineStatistics,
    online_statistics,
    online_update,
    residual_update,
)

METHODS = ("online", *SWEEPS, "residual")


# 2 keeps early batches too long, 16 forgets small ones too fast: on photographs' patches and on
# signals of a known dictionary, in batches of 128 to 1024.
_FORGETTING = 8


class LearnerState(NamedTuple):
    """Where a `DictionaryLearner` is.

    Attributes:
      dictionary: `(m, d)`, unit-norm atoms.
      statistics: decayed moments, of the method: `OnlineStatistics`, an array, or ().
      usage: `(m,)` decayed use of each atom as a multiple of the mean use.
      step: int32 scalar, batches learned from.
      seed: uint32 scalar, from which all random choices follow.
      scale: scalar, the power of two that signals are divided by; 0 until the first ones came.
      error: scalar, mean squared error ||y - x D||^2 of the last batch, before it was learned.
      best_error: scalar, the least held-out error of a `fit` with `held_out`, infinite before.
    """

    dictionary: jax.Array
    statistics: Any
    usage: jax.Array
    step: jax.Array
    seed: jax.Array
    scale: jax.Array
    error: jax.Array
    best_error: jax.Array


@dataclasses.dataclass(frozen=True)
class DictionaryLearner:
    """Learns a dictionary in which the signals of a stream are sparse, a batch at a time.

        learner = DictionaryLearner(512, sparsity=8)
        state = learner.fit(batches, jax.random.key(0))
        state.dictionary  # (512, d)

    Atoms that go unused, or nearly equal another, are replaced by signals approximated badly. A
    signal that is not finite takes no part.

    Args:
      num_atoms: m, at least 1.
      sparsity: atoms per signal, `1 <= sparsity <= num_atoms`.
      method: how atoms learn. "online" is block coordinate descent on the moments of the codes,
        `(m, m)` and `(m, d)`. "exact", "approximate" and "parallel" are K-SVD sweeps with moments
        of earlier batches, `(m, d, d)`, for "approximate" `(m, d)`. "residual" is a gradient step
        and keeps no moments: the one for very many atoms.
      batch_size: signals a step, at least 1.
      decay: most that is kept of the moments and of the use at a step, in [0, 1): 0.99 remembers
        about 100 batches.
      learning_rate: of "residual", a share of the full step to where an atom's users want it.
      max_coherence: |cosine| above which of two atoms the less used one is replaced.
      min_usage: an atom used less than this multiple of the mean use is replaced.
      replace_every: steps from one look for such atoms to the next; 0 never looks.
      coder: of the batches; a function `(signals, dictionary, *, sparsity)` to a `SparseCode`.

    Raises:
      ValueError: if a number is out of range or `method` is unknown.

    References:
      Mairal, Bach, Ponce and Sapiro, Online learning for matrix factorization and sparse coding,
      JMLR 2010.
    """

    num_atoms: int
    sparsity: int
    _: dataclasses.KW_ONLY
    method: str = "online"
    batch_size: int = 4096
    decay: float = 0.99
    learning_rate: float = 0.2
    max_coherence: float = 0.99
    min_usage: float = 0.05
    replace_every: int = 20
    coder: Callable = omp

    def __post_init__(self):
        for name in ("num_atoms", "sparsity", "batch_size", "replace_every"):
            object.__setattr__(self, name, static_value(name, getattr(self, name)))
        check_at_least("num_atoms", self.num_atoms, 1)
        check_sparsity(self.sparsity, self.num_atoms)
        check_choice("method", self.method, METHODS)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("replace_every", self.replace_every, 0)
        for name in ("decay", "learning_rate", "max_coherence", "min_usage"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}.")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate must be in (0, 1], got {self.learning_rate}.")

    def init(self, key, signals=None, *, dictionary=None):
        """Returns the state before the first batch.

        Args:
          key: PRNG key; all random choices follow from it.
          signals: `(..., d)` float array to take atoms from, usually the first batch.
          dictionary: `(m, d)` float array to start from instead, atoms of any norm.

        Raises:
          ValueError: if neither is given, or `dictionary` does not have `num_atoms` rows.
        """
        if signals is None and dictionary is None:
            raise ValueError("init needs signals to take atoms from, or a dictionary.")
        state = _compiled_init(self)(key=key, signals=signals, dictionary=dictionary)
        return state if signals is None else _beside(state, signals)

    def update(self, state, signals):
        """Returns the state after one batch.

        The state given is donated: its arrays cannot be used again, on a device that reuses
        them. Signals sharded over a mesh are summed over, and the state stays sharded as it is.

        Args:
          state: `LearnerState`.
          signals: `(..., d)` float array; each new shape is compiled once.

        Raises:
          ValueError: if the widths differ.
        """
        d = state.dictionary.shape[-1]
        if jnp.ndim(signals) == 0 or jnp.shape(signals)[-1] != d:
            raise ValueError(
                f"signals must have width {d}, as the atoms, got {jnp.shape(signals)}."
            )
        state = _beside(state, signals)
        return _compiled_update(self, _placement(state))(state, signals)

    def mean_error(self, state, signals):
        """Returns the mean of ||y - x D||^2 over `(..., d)` signals that are finite, a scalar."""
        check_signals(signals, state.dictionary)
        return _compiled_error(self)(dictionary=state.dictionary, signals=signals)

    def fit(
        self,
        batches,
        key,
        *,
        state=None,
        callback=None,
        held_out=None,
        evaluate_every=100,
        tolerance=0.0,
        progress=False,
    ):
        """Returns the state after all batches, or after an early stop.

        Batches are cut and joined to `batch_size` signals, the last one is filled up. A
        `jax.Array` of `batch_size` signals is taken as it is, sharded or not. While a batch is
        learned the next one is read.

        Args:
          batches: iterable of float arrays `(..., d)`, or one such array.
          key: PRNG key of `init` on the first batch; not used where `state` is given.
          state: `LearnerState` to go on from, donated. Its run learned from the first
            `state.step * batch_size` signals, which `batches` must leave out to resume it.
          callback: called after each step with the state and a dict of numbers: "step", "error",
            and after an evaluation "held_out_error". A true result stops the fit. The next
            step reuses the state's arrays, so copy what you keep (`jax.device_get`).
          held_out: `(..., d)` float array of signals to evaluate on.
          evaluate_every: steps from one evaluation to the next, at least 1.
          tolerance: stops after an evaluation that lowers the least held-out error by less than
            this share of it; 0 never stops.
          progress: whether to show the numbers on a terminal, or log them where there is none.

        Returns:
          `LearnerState`. Where the fit stopped early, one batch more was read than learned.

        Raises:
          ValueError: if there is no signal and no state, or a number or shape does not fit.
        """
        check_at_least("evaluate_every", evaluate_every, 1)
        if held_out is None and tolerance:
            raise ValueError(f"tolerance {tolerance} needs held_out signals to evaluate on.")
        watch = _Watch(self, callback, held_out, evaluate_every, tolerance, progress)
        learned = False
        try:
            for signals in in_batches(batches, self.batch_size):
                if learned:
                    state, stop = watch.look(state)
                    if stop:
                        return state
                elif state is None:
                    state = self.init(key, signals)
                state, learned = self.update(state, signals), True
            if state is None:
                raise ValueError("batches must hold at least one signal, got none.")
            return watch.look(state)[0] if learned else state
        finally:
            watch.close()


@dataclasses.dataclass
class _Watch:
    """What a fit does between its steps."""

    learner: DictionaryLearner
    callback: Callable | None
    held_out: Any
    evaluate_every: int
    tolerance: float
    progress: Any

    def __post_init__(self):
        self.progress = Progress() if self.progress else None

    def look(self, state):
        """Returns the state after a step, and whether to stop."""
        step, stop = int(state.step), False
        # Waits for the step, so that no queue of batches fills the memory.
        numbers = {"step": step, "error": float(state.error)}
        if self.held_out is not None and step % self.evaluate_every == 0:
            error, best = self.learner.mean_error(state, self.held_out), float(state.best_error)
            numbers["held_out_error"] = float(error)
            stop = bool(self.tolerance) and not error < (1 - self.tolerance) * best
            state = state._replace(best_error=jnp.minimum(state.best_error, error))
        if self.progress:
            self.progress.report(self.learner.batch_size, numbers)
        if self.callback and self.callback(state, numbers):
            stop = True
        return state, stop

    def close(self):
        if self.progress:
            self.progress.close()


@functools.lru_cache(maxsize=64)
def _compiled_init(learner):
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
def _compiled_update(learner, placement):
    """The update of a learner, whose results lie as the state did."""
    update = entry(compiled=False, like="state")(functools.partial(_update, learner))
    return jax.jit(update, donate_argnums=0, out_shardings=placement)


def _placement(state):
    """The state's shardings over a mesh, or None: then it lies where the signals are."""
    leaves, tree = jax.tree.flatten(state)
    found = [
        None if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None) for x in leaves
    ]
    if all(isinstance(x, NamedSharding) for x in found):
        return tree.unflatten(found)
    return None


def _beside(state, signals):
    """Returns the state, replicated over the mesh of the signals unless it is on that mesh."""
    there = getattr(signals, "sharding", None)
    here = getattr(state.dictionary, "sharding", None)
    if not isinstance(there, NamedSharding) or not isinstance(signals, jax.Array):
        return state
    if isinstance(here, NamedSharding) and here.mesh == there.mesh:
        return state
    return jax.device_put(state, NamedSharding(there.mesh, PartitionSpec()))


@functools.lru_cache(maxsize=64)
def _compiled_error(learner):
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
    keep = jnp.minimum(learner.decay, (age + 1) / (age + 2))  # what it starts with is a batch
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
    """Replaces atoms, and with each what was remembered of it."""
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
