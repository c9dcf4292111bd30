"""How the atoms of a bottleneck learn: one small class for each rule.

A rule defines the statistics that an update keeps, the update, and the loss of the atoms.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from laser_jax.models.bottlenecks.output import Atoms, Scalar, Signals, mean_square
from laser_jax.sparse import (
    EmaStatistics,
    SparseCode,
    ema_update,
    ksvd_statistics,
    ksvd_sweep,
    ksvd_update,
    online_statistics,
    online_update,
    residual_update,
)
from laser_jax.sparse.codebook import stage_targets


class LearningRule:
    """The rule of atoms that do not change; other rules override what differs.

    Attributes:
      every_steps: training steps between two updates; 0: there are none.
      by_gradient: whether the optimizer moves the atoms.
      learning_rate_scale: factor of the optimizer's learning rate for the atoms.
    """

    every_steps: Any = 0
    by_gradient: ClassVar[bool] = False
    learning_rate_scale: Any = 1.0

    def statistics(self, atoms: Atoms) -> Any:
        """Returns the statistics of new atoms; None if the rule has no memory."""
        return None

    def update(
        self, statistics: Any, signals: Signals, atoms: Atoms, code: SparseCode
    ) -> tuple[Any, Atoms]:
        """Returns the statistics and the atoms after an update by signals and their code."""
        return statistics, atoms

    def loss(
        self, signals: Float[Array, "*shape"], approximation: Float[Array, "*shape"]
    ) -> Scalar:
        """Returns the loss that trains the atoms."""
        return jnp.zeros((), signals.dtype)


@dataclasses.dataclass(frozen=True)
class Gradient(LearningRule):
    """The optimizer updates the atoms, by the gradient of the approximation error.

    Adam ignores a constant factor of a gradient, so the weight scales the learning rate too.
    """

    weight: float = 1.0
    by_gradient: ClassVar[bool] = True

    @property
    def learning_rate_scale(self) -> float:
        return self.weight

    def loss(self, signals, approximation):
        return self.weight * mean_square(approximation - lax.stop_gradient(signals))


@dataclasses.dataclass(frozen=True)
class MovingMeans(LearningRule):
    """Each atom is the moving average of the signals, or of a stage's residuals, that it codes."""

    decay: float
    every_steps: int = 1

    def statistics(self, atoms):
        return EmaStatistics(jnp.ones(atoms.shape[0]), atoms)

    def update(self, statistics, signals, atoms, code):
        targets, stage_code = stages_of(signals, atoms, code)
        return ema_update(statistics, targets, stage_code, decay=self.decay)


@dataclasses.dataclass(frozen=True)
class KsvdSweeps(LearningRule):
    """K-SVD: sweeps over all atoms. With a decay of 0 they fit this batch alone."""

    method: str
    iterations: int
    decay: float
    every_steps: int

    def statistics(self, atoms):
        return ksvd_statistics(atoms, method=self.method) if self.decay else None

    def update(self, statistics, signals, atoms, code):
        if statistics is None:
            for _ in range(self.iterations):
                atoms, code = ksvd_sweep(signals, atoms, code, method=self.method)
            return None, atoms
        past = statistics  # for every sweep, or the batch would count twice
        for _ in range(self.iterations):
            statistics, atoms, code = ksvd_update(
                past, signals, atoms, code, method=self.method, decay=self.decay
            )
        return statistics, atoms


@dataclasses.dataclass(frozen=True)
class OnlineMoments(LearningRule):
    """Online dictionary learning: block coordinate descent on decayed moments."""

    decay: float
    every_steps: int

    def statistics(self, atoms):
        return online_statistics(atoms)

    def update(self, statistics, signals, atoms, code):
        return online_update(statistics, signals, atoms, code, decay=self.decay)


@dataclasses.dataclass(frozen=True)
class ResidualSteps(LearningRule):
    """Gradient steps on the residual of the batch, without memory."""

    learning_rate: float
    every_steps: int

    def update(self, statistics, signals, atoms, code):
        return None, residual_update(signals, atoms, code, learning_rate=self.learning_rate)


def stages_of(
    signals: Signals, atoms: Atoms, code: SparseCode
) -> tuple[Float[Array, "*batch k d"], SparseCode]:
    """Returns the target of each stage, and its atom as a code of one atom."""
    return stage_targets(signals, atoms, code), SparseCode(*(x[..., None] for x in code))
