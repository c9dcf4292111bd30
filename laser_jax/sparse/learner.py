"""Dictionary learning from a stream of signals, which may be larger than memory or endless.

Each batch is coded, updates the atoms and is discarded. The `LearnerState` has a size that does not
depend on the number of signals. It is a pytree of plain arrays, and all random choices are folded
from its seed and step, so a restored run is bit-identical to an uninterrupted one.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from laser_jax.checks import check_at_least, check_choice, check_signals, check_sparsity
from laser_jax.sparse.batches import in_batches
from laser_jax.sparse.entry import static_value
from laser_jax.sparse.ksvd import METHODS as SWEEPS
from laser_jax.sparse.ksvd import check_nonnegative
from laser_jax.sparse.learner_state import (
    LearnerState,
    beside,
    check_state,
    compiled_error,
    compiled_init,
    compiled_update,
    mesh_of,
    placement_of,
)
from laser_jax.sparse.nonnegative import nonnegative_omp
from laser_jax.sparse.omp import omp
from laser_jax.sparse.watch import Watch

METHODS = ("online", *SWEEPS, "residual")


@dataclasses.dataclass(frozen=True)
class DictionaryLearner:
    """Learns a dictionary in which the signals of a stream are sparse, a batch at a time.

        learner = DictionaryLearner(512, sparsity=8)
        state = learner.fit(batches, jax.random.key(0))
        state.dictionary  # (512, d)

    Unused atoms and near duplicates are replaced by signals with large errors. A signal that is not
    finite is ignored: a NaN hides its whole row. There is no mask.

    Args:
      num_atoms: m, at least 1.
      sparsity: atoms per signal, `1 <= sparsity <= num_atoms`.
      method: how atoms learn. "online" is block coordinate descent on the moments of the codes,
        `(m, m)` and `(m, d)`. "exact", "approximate" and "parallel" are K-SVD sweeps with moments
        of earlier batches, `(m, d, d)`, for "approximate" `(m, d)`. "residual" is a gradient step
        and keeps no moments: the one for very many atoms.
      batch_size: signals a step, at least 1.
      decay: most that is kept of the moments at a step, in [0, 1): 0.99 remembers about 100
        batches.
      learning_rate: of "residual", a share of the full step to where an atom's users want it.
      max_coherence: |cosine| above which of two atoms the less used one is replaced, in (0, 1].
      min_usage: an atom used less than this multiple of the mean use, over about the steps since
        the last replacement, is replaced, in [0, 1).
      replace_every: steps between replacements of such atoms; 0: never.
      nonnegative: True keeps atoms and coefficients >= 0, "dictionary" atoms, "code" coefficients.
        With "approximate", "online" and "residual".
      coder: of the batches; a function `(signals, dictionary, *, sparsity)` to a `SparseCode`. It
        gets signals over the state's `scale`, of which a tolerance must be too. None: `omp`, or
        `nonnegative_omp` for coefficients >= 0.
      atoms_axis: the axis of a mesh over which the atoms and their statistics are sharded, so that
        there may be more of them than one device holds; signals on that mesh, or a dictionary on
        it, name the mesh. With "online", "parallel" and "residual". A `coder` must take
        `atoms_axis` too, as `omp` does. Replacements gather all atoms on each device for a moment.

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
    nonnegative: bool | str = False
    coder: Callable | None = None
    atoms_axis: str | None = None

    def __post_init__(self):
        for name in ("num_atoms", "sparsity", "batch_size", "replace_every", "nonnegative"):
            object.__setattr__(self, name, static_value(name, getattr(self, name)))
        check_at_least("num_atoms", self.num_atoms, 1)
        check_sparsity(self.sparsity, self.num_atoms)
        check_choice("method", self.method, METHODS)
        if self.atoms_axis is not None and self.method in ("exact", "approximate"):
            raise ValueError(
                f"method {self.method!r} does not take atoms_axis, as it updates atom after atom; "
                "use 'parallel', 'online' or 'residual'."
            )
        atoms, code = self.kept_nonnegative
        if (atoms or code) and self.method in ("exact", "parallel"):
            raise ValueError(
                f"method {self.method!r} does not take nonnegative={self.nonnegative!r}; use "
                "'approximate', 'online' or 'residual'."
            )
        if self.coder is None and code and self.atoms_axis is not None:
            raise ValueError(
                f"nonnegative={self.nonnegative!r} does not take atoms_axis, as nonnegative_omp "
                "does not; use nonnegative='dictionary' or another coder."
            )
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("replace_every", self.replace_every, 0)
        for name in ("decay", "learning_rate", "max_coherence", "min_usage"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("decay", "min_usage"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}.")
        for name in ("learning_rate", "max_coherence"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}.")

    @property
    def used_coder(self) -> Callable:
        """The coder of the batches: `coder`, or what None stands for."""
        return self.coder or (nonnegative_omp if self.kept_nonnegative[1] else omp)

    @property
    def kept_nonnegative(self) -> tuple[bool, bool]:
        """Whether atoms, and whether coefficients, stay >= 0."""
        return check_nonnegative(self.nonnegative)

    def init(
        self,
        key: PRNGKeyArray,
        signals: Float[ArrayLike, "*batch d"] | None = None,
        *,
        dictionary: Float[ArrayLike, "m d"] | None = None,
    ) -> LearnerState:
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
        init = compiled_init(self, mesh_of(self, signals, dictionary))
        state = init(key=key, signals=signals, dictionary=dictionary)
        return state if signals is None else beside(self, state, signals)

    def update(self, state: LearnerState, signals: Float[ArrayLike, "*batch d"]) -> LearnerState:
        """Returns the state after one batch.

        The state passed in is donated: do not use its arrays afterwards. Signals may be sharded
        over a mesh; the new state has the sharding of the old one.

        Args:
          state: `LearnerState`.
          signals: `(..., d)` float array; each new shape is compiled once.

        Raises:
          ValueError: if the widths differ, or the state is of another learner.
        """
        check_state(self, state)
        d = state.dictionary.shape[-1]
        if jnp.ndim(signals) == 0 or jnp.shape(signals)[-1] != d:
            raise ValueError(
                f"signals must have width {d}, as the atoms, got {jnp.shape(signals)}."
            )
        state = beside(self, state, signals)
        return compiled_update(self, placement_of(state))(state, signals)

    def mean_error(
        self, state: LearnerState, signals: Float[ArrayLike, "*batch d"]
    ) -> Float[Array, ""]:
        """Returns the mean of ||y - x D||^2 over `(..., d)` signals that are finite, a scalar.

        NaN if there are none. They are coded as the batches are, over the state's `scale`.
        """
        check_signals(signals, state.dictionary)
        return compiled_error(self, mesh_of(self, state.dictionary))(state=state, signals=signals)

    def fit(
        self,
        batches: Iterable[Float[ArrayLike, "..."]] | Float[ArrayLike, "*batch d"],
        key: PRNGKeyArray,
        *,
        state: LearnerState | None = None,
        callback: Callable[[LearnerState, dict[str, float]], Any] | None = None,
        held_out: Float[ArrayLike, "*held d"] | None = None,
        evaluate_every: int = 100,
        tolerance: float = 0.0,
        progress: bool = False,
    ) -> LearnerState:
        """Returns the state after all batches, or after an early stop.

        Batches are cut and joined to `batch_size` signals, the last one is filled up. A
        `jax.Array` of `batch_size` signals is taken as it is, sharded or not. While a batch is
        learned the next one is read. An error of the iterator, a batch or the callback, and Ctrl-C,
        lose nothing: the exception's attribute `learner_state` is the state after the last step.

        Args:
          batches: iterable of float arrays `(..., d)`, or one such array.
          key: PRNG key of `init` on the first batch; not used where `state` is given.
          state: `LearnerState` to go on from, donated. After whole batches its run learned from
            the first `state.step * batch_size` signals, which `batches` must leave out to resume
            it; a last batch that was filled up counts as a step too.
          callback: called after each step with the state and a dict of numbers: "step", "error",
            and after an evaluation "held_out_error". A true result stops the fit. The next
            step reuses the state's arrays, so copy what you keep (`jax.device_get`).
          held_out: `(..., d)` float array of signals to evaluate on. `state.best_error` starts anew
            where the set is not the one that it is of.
          evaluate_every: steps from one evaluation to the next, at least 1.
          tolerance: stops after an evaluation that lowers the least held-out error by no more
            than this share of it, in [0, 1); 0 never stops.
          progress: whether to show the numbers on a terminal, or log them where there is none.

        Returns:
          `LearnerState`. Where the fit stopped early, one batch more was read than learned.

        Raises:
          ValueError: if there is no signal and no state, or a number or shape does not fit.
        """
        watch = Watch(self, callback, held_out, evaluate_every, tolerance, progress)
        learned = False
        try:
            if state is not None:
                state = watch.start(state)
            for signals in in_batches(batches, self.batch_size):
                if learned:
                    state, numbers = watch.evaluate(state)
                    if watch.report(state, numbers):
                        return state
                elif state is None:
                    state = watch.start(self.init(key, signals))
                state, learned = self.update(state, signals), True
            if state is None:
                raise ValueError("batches must hold at least one signal, got none.")
            if learned:
                state, numbers = watch.evaluate(state)
                watch.report(state, numbers)
            return state
        except BaseException as error:
            _keep(state, error)
            raise
        finally:
            watch.close()


def _keep(state, error):
    """Gives an exception the state of a fit, unless a step that failed has used it up."""
    arrays = [x for x in jax.tree.leaves(state) if isinstance(x, jax.Array)]
    if state is None or any(x.is_deleted() for x in arrays):
        return
    error.learner_state = state
    error.add_note("`learner_state` of this exception is the state after the last step.")
