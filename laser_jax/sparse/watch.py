"""What happens between the steps of a fit: evaluation, early stop, callback and progress."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from laser_jax.checks import check_at_least, check_not_empty, check_signals
from laser_jax.sparse.batches import Progress
from laser_jax.sparse.code import is_finite
from laser_jax.sparse.entry import entry, static_value
from laser_jax.sparse.learner_state import check_state


@dataclasses.dataclass
class Watch:
    """The evaluation, callback and progress of a fit; see `DictionaryLearner.fit`.

    Raises:
      ValueError: if a number is out of range.
    """

    learner: Any
    callback: Callable | None
    held_out: Any
    evaluate_every: int
    tolerance: float
    progress: Any

    def __post_init__(self):
        self.evaluate_every = static_value("evaluate_every", self.evaluate_every)
        check_at_least("evaluate_every", self.evaluate_every, 1)
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance must be in [0, 1), got {self.tolerance}.")
        if self.held_out is None and self.tolerance:
            raise ValueError(f"tolerance {self.tolerance} needs held_out signals to evaluate on.")
        self.progress = Progress() if self.progress else None
        self._stop = False

    def start(self, state):
        """Returns the state to start with: `best_error` is that of the held-out set, or infinite.

        Raises:
          ValueError: if the state is of another learner, or the held-out set does not fit.
        """
        check_state(self.learner, state)
        if self.held_out is None:
            return state
        check_not_empty(held_out=self.held_out)
        check_signals(self.held_out, state.dictionary)
        number, count = _number_of(self.held_out)
        if not count:
            raise ValueError(f"held_out {jnp.shape(self.held_out)} has no signal that is finite.")
        if int(number) == int(state.held_out):
            return state
        # Sums keep the sharding of the state.
        changes = {"held_out": state.held_out * 0 + np.uint32(number)}
        return state._replace(best_error=state.best_error + np.inf, **changes)

    def evaluate(self, state):
        """Returns a step's state, with a new `best_error` if that was due, and its numbers."""
        step = int(state.step)
        # Waits for the step, so that no queue of batches fills the memory.
        numbers = {"step": step, "error": float(state.error)}
        self._stop = False
        if self.held_out is not None and step % self.evaluate_every == 0:
            error, best = self.learner.mean_error(state, self.held_out), float(state.best_error)
            numbers["held_out_error"] = float(error)
            # An error of NaN neither stops nor counts.
            self._stop = bool(self.tolerance) and float(error) >= (1 - self.tolerance) * best
            state = state._replace(best_error=jnp.fmin(state.best_error, error))
        return state, numbers

    def report(self, state, numbers):
        """Shows the numbers of a step and calls the callback; returns whether to stop."""
        if self.progress:
            self.progress.report(self.learner.batch_size, numbers)
        return bool(self.callback and self.callback(state, numbers)) or self._stop

    def close(self):
        if self.progress:
            self.progress.close()


@entry()
def _number_of(signals):
    """Returns a number that tells a set from others, however it is sharded, and its finite signals.

    The bits of each entry count with an odd weight of their own, so no change of one is lost.
    """
    bits = lax.bitcast_convert_type(jnp.asarray(signals, jnp.float32), jnp.uint32).ravel()
    weights = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1
    return jnp.sum(bits * weights, dtype=jnp.uint32), jnp.sum(is_finite(signals))
