"""Bottlenecks with learned atoms: how atoms are initialised, updated and replaced."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from laser_jax.models.bottlenecks.base import Bottleneck
from laser_jax.models.bottlenecks.coding import RATE_DISTORTION
from laser_jax.models.bottlenecks.learning import LearningRule
from laser_jax.models.bottlenecks.output import (
    Atoms,
    Latents,
    Scalar,
    Signals,
    as_pair,
    from_patches,
    mean_square,
    to_patches,
)
from laser_jax.models.bottlenecks.rotation import rotation
from laser_jax.ranges import COUNT, COUNT_OR_NONE, SHARE, WEIGHT, Choice, setting
from laser_jax.sparse import RateModel, SparseCode, usage


class DictionaryBottleneck(Bottleneck):
    """A bottleneck whose dictionary learns.

    A subclass has `coder`, `coding_at`, `learning`, `random_atoms`, `initial_atoms` and
    `replacements`.

    Attributes:
      num_embeddings: m, number of atoms.
      embedding_dim: channels of the latents.
      commitment_cost: weight of the loss that moves the latents towards their approximation.
      usage_decay: decay per step of the average use of each atom, in [0, 1).
      min_usage: an atom used less than this fraction of the mean is replaced, in [0, 1).
      replace_every_steps: steps between replacements; 0: never.
      gradient_estimator: how the decoder's gradient reaches the latents: "straight_through", as
        it is, or "rotation", turned and scaled as the code turns and scales a signal.
      bit_price: squared error that each bit must save (coder "rate_distortion").
      price_warmup_steps: training steps in which the price rises linearly from 0 (the same
        coder). Evaluation has the full price.
    """

    num_embeddings: int = setting(512, COUNT)
    embedding_dim: int = setting(64, COUNT)
    commitment_cost: float = setting(0.25, WEIGHT)
    usage_decay: float = setting(0.99, SHARE)
    min_usage: float = setting(0.05, SHARE)
    replace_every_steps: int = setting(100, COUNT_OR_NONE)
    gradient_estimator: str = setting("straight_through", Choice(("straight_through", "rotation")))
    bit_price: float = setting(0.01, WEIGHT)
    price_warmup_steps: int = setting(0, COUNT_OR_NONE)

    is_learned: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.price_warmup_steps:
            self._check_by_rate(f"price_warmup_steps {self.price_warmup_steps}")

    @property
    def coder(self) -> str:
        """Name of the algorithm that finds codes."""
        raise NotImplementedError

    @property
    def by_rate(self) -> bool:
        """Whether a signal has as many atoms as are worth their bits."""
        return self.coder == RATE_DISTORTION

    def coding_at(self, bit_price: Any) -> Any:
        """Returns how a signal is coded at a price, an object of `coding`."""
        raise NotImplementedError

    @property
    def learning(self) -> LearningRule:
        """How the atoms learn."""
        raise NotImplementedError

    @property
    def learns_by_gradient(self) -> bool:
        return self.learning.by_gradient

    @property
    def learning_rate_scale(self) -> float:
        return self.learning.learning_rate_scale

    def choose(self, signals: Signals, atoms: Atoms, step: Any = None) -> SparseCode:
        price: Any = self.bit_price
        if step is not None and self.price_warmup_steps:
            price *= jnp.minimum(step / self.price_warmup_steps, 1)
        return self.coding_at(price).encode(*self.coder_inputs(signals, atoms, step))

    def coder_inputs(self, signals: Signals, atoms: Atoms, step: Any) -> tuple[Signals, Atoms]:
        """Returns the signals and the atoms that the coder sees; `step` as for `choose`."""
        return signals, atoms

    def encode_levels(
        self, atoms: Atoms, latents: Latents, model: RateModel | None = None
    ) -> SparseCode:
        """Returns the integer `SparseCode` of latents, each atom worth its bits.

        Args:
          atoms: `(m, d)`.
          latents: `(b, h, w, c)`.
          model: `RateModel`; None: all symbols cost the same, as in training.

        Raises:
          ValueError: if the coder is not "rate_distortion".
        """
        self._check_by_rate("an integer code")
        inputs = self.coder_inputs(self.signals(latents), atoms, None)
        return self.coding_at(self.bit_price).levels(*inputs, model)

    def bits_per_signal(self, coefficient_bits: float) -> float:
        """Returns the bits of a signal's fixed-length code, coefficients at this precision.

        For the coder "rate_distortion", whose coefficients are integers: the bits that distinguish
        all its codes, an upper bound. `laser_jax.sparse.code_bits` has what a code needs.
        """
        return self.coding_at(self.bit_price).bits(self.num_embeddings, coefficient_bits)

    def pass_gradient(self, latents: Latents, approximation: Latents) -> Latents:
        if self.gradient_estimator == "straight_through":
            return super().pass_gradient(latents, approximation)
        patch_size = as_pair(self.patch_size)
        turned = rotation(self.signals(latents), to_patches(approximation, patch_size))
        return from_patches(turned, patch_size)

    def memory(self, atoms: Atoms) -> dict[str, Any]:
        memory, statistics = super().memory(atoms), self.learning.statistics(atoms)
        return memory if statistics is None else memory | {"statistics": statistics}

    def loss(self, latents, approximation, code, atoms, step=None):
        """Returns commitment_cost x MSE(target, sg(approximation)) + the loss of the atoms."""
        target = self.target(latents)
        commitment = mean_square(target - lax.stop_gradient(approximation))
        return self.commitment_cost * commitment + self.learning.loss(target, approximation)

    def share_in_use(self, dictionary: Any, code: SparseCode) -> Scalar:
        """Returns the share of atoms whose recent use is at least `min_usage` of the mean."""
        return jnp.mean(dictionary["usage"] >= self.min_usage)

    def initial_atoms(self, signals: Signals, *, key: Any) -> Atoms:
        """Returns the atoms to start from, given signals."""
        raise NotImplementedError

    def constrain(self, atoms: Atoms) -> Atoms:
        """Returns the atoms after a step under their constraint, such as unit norm."""
        return atoms

    def replacements(
        self, dictionary: Any, signals: Signals, code: SparseCode, *, key: Any
    ) -> tuple[Atoms, Bool[Array, " m"]]:
        """Returns the atoms with the unused ones replaced, and which those are."""
        raise NotImplementedError

    def init_dictionary(self, dictionary: Any, latents: Latents, *, key: Any) -> Any:
        return self._started(dictionary, self.initial_atoms(self.signals(latents), key=key))

    def adapt_and_mark(
        self, dictionary: Any, latents: Latents, code: SparseCode, *, step: Any, key: Any
    ) -> tuple[Any, Bool[Array, " m"]]:
        return self.adapt_to_signals(dictionary, self.signals(latents), code, step=step, key=key)

    def adapt_to_signals(
        self, dictionary: Any, signals: Signals, code: SparseCode, *, step: Any, key: Any
    ) -> tuple[Any, Bool[Array, " m"]]:
        """Returns what `adapt_and_mark` returns, given the signals of the latents."""
        new = _every(
            self.learning.every_steps, step,
            lambda old: self._updated(old, signals, code), lambda old: old, dict(dictionary),
        )  # fmt: skip
        new["atoms"] = self.constrain(new["atoms"])
        # As multiples of the mean use: 1 everywhere if all atoms are used alike.
        counts = usage(code, self.num_embeddings)
        relative = counts / jnp.maximum(jnp.mean(counts), 1e-12)
        new["usage"] = self.usage_decay * new["usage"] + (1 - self.usage_decay) * relative
        return _every(
            self.replace_every_steps, step,
            lambda old: self._replaced(old, signals, code, key),
            lambda old: (old, jnp.zeros(self.num_embeddings, bool)), new,
        )  # fmt: skip

    def _check_by_rate(self, what):
        if not self.by_rate:
            raise ValueError(
                f"{what} needs codes by rate: sparse_coder, or stage_coder for VQ, must be "
                f"{RATE_DISTORTION!r}, got {self.coder!r}."
            )

    def _started(self, dictionary, atoms):
        """Returns the collection for new atoms."""
        return {**dictionary, "atoms": atoms, **self.memory(atoms)}

    def _updated(self, dictionary, signals, code):
        statistics, atoms = self.learning.update(
            dictionary.get("statistics"), signals, dictionary["atoms"], code
        )
        new = {**dictionary, "atoms": atoms}
        return new if statistics is None else new | {"statistics": statistics}

    def _replaced(self, dictionary, signals, code, key):
        atoms, marked = self.replacements(dictionary, signals, code, key=key)
        # The usage and the statistics of a replaced atom start again too.
        started = self._started(dictionary, atoms)
        return jax.tree.map(
            lambda old, new: jnp.where(marked.reshape(-1, *[1] * (old.ndim - 1)), new, old),
            dictionary, started,
        ), marked  # fmt: skip


def _every(steps, step, change, keep, value):
    """Applies `change` at each multiple of `steps`, else `keep`; never if `steps` is 0."""
    if steps == 0:
        return keep(value)
    if steps == 1:
        return change(value)
    return lax.cond(step % steps == 0, change, keep, value)
