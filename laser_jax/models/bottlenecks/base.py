"""What the bottlenecks have in common: the forward pass, and the life of a dictionary."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from laser_jax.models.bottlenecks.learning import LearningRule
from laser_jax.models.bottlenecks.output import (
    Atoms,
    BottleneckOutput,
    Latents,
    Scalar,
    Signals,
    as_pair,
    check_latents,
    from_patches,
    mean_square,
    straight_through,
    to_patches,
)
from laser_jax.models.precision import at_least_float32
from laser_jax.ranges import COUNT, COUNT_OR_NONE, SHARE, WEIGHT, check_settings, setting
from laser_jax.sparse import SparseCode, decode, usage


class Bottleneck(nn.Module):
    """Codes latents in a dictionary and returns their approximation.

    The collection `dictionary` holds the `atoms` `(m, d)`, their recent `usage` `(m,)`, and the
    `statistics` of a learning rule with memory. Applying the module only reads it.

    In this class the dictionary never changes; `DictionaryBottleneck` adds learning. A new
    bottleneck overrides `choose`, `random_atoms`, `bits_per_signal` and what else differs. Other
    code uses the attributes below and does not test the class.

    Attributes:
      is_learned: whether the atoms come from data.
      has_coefficients: whether the entries of a code have coefficients that differ from 1.
      has_indices: whether one integer is the code of a signal (`to_indices`, `from_indices`).
      learns_by_gradient: whether the optimizer moves the atoms.
      learning_rate_scale: factor of the optimizer's learning rate for the atoms.
      patch_size: p, or (p, q): latents of one signal, without overlap.
    """

    is_learned: ClassVar[bool] = False
    has_coefficients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        as_pair(self.patch_size)
        check_settings(self)

    @property
    def num_embeddings(self) -> int:
        """m, the number of atoms."""
        raise NotImplementedError

    @property
    def embedding_dim(self) -> int:
        """Channels of the latents."""
        raise NotImplementedError

    @property
    def patch_size(self) -> int | tuple[int, int]:
        return 1

    @property
    def signal_width(self) -> int:
        """d, the width of a signal and of an atom."""
        p, q = as_pair(self.patch_size)
        return self.embedding_dim * p * q

    @property
    def has_indices(self) -> bool:
        return False

    @property
    def learns_by_gradient(self) -> bool:
        return False

    @property
    def learning_rate_scale(self) -> float:
        return 1.0

    @nn.compact
    def __call__(self, latents: Latents) -> BottleneckOutput:
        """Codes latents `(b, h, w, embedding_dim)`."""
        check_latents(latents, self.embedding_dim, as_pair(self.patch_size))
        atoms = self.variable("dictionary", "atoms", self.random_atoms).value
        if self.is_initializing():
            for name, value in self.memory(atoms).items():
                self.variable("dictionary", name, lambda value=value: value)
        latents = at_least_float32(latents)
        code = self.encode(atoms, latents)
        approximation = self.decode(atoms, code)
        loss = self.loss(latents, approximation, code, atoms)
        return BottleneckOutput(self.pass_gradient(latents, approximation), loss, code)

    def random_atoms(self) -> Atoms:
        """Returns the atoms of `init`, in use until `init_dictionary` is called."""
        raise NotImplementedError

    def memory(self, atoms: Atoms) -> dict[str, Any]:
        """Returns the other entries of the collection for new atoms."""
        return {"usage": jnp.ones(self.num_embeddings)}

    def signals(self, latents: Latents) -> Float[Array, "b rows columns d"]:
        """Returns the signals of latents, at least float32: one for each patch."""
        return to_patches(at_least_float32(latents), as_pair(self.patch_size))

    def encode(self, atoms: Atoms, latents: Latents) -> SparseCode:
        """Returns the `SparseCode` of latents, with leading axes `(b, h / p, w / q)`.

        No gradient passes through it: with least-squares coefficients the gradient with respect
        to the atoms is the same (envelope theorem), and the backward pass needs no solve.
        """
        return self.choose(lax.stop_gradient(self.signals(latents)), lax.stop_gradient(atoms))

    def choose(self, signals: Signals, atoms: Atoms) -> SparseCode:
        """Returns the `SparseCode` of signals."""
        raise NotImplementedError

    def decode(self, atoms: Atoms, code: SparseCode) -> Latents:
        """Returns the latents that a code stands for."""
        return from_patches(decode(code, atoms), as_pair(self.patch_size))

    def pass_gradient(self, latents: Latents, approximation: Latents) -> Latents:
        """Returns the approximation, with a gradient with respect to the latents."""
        return straight_through(latents, approximation)

    def loss(
        self, latents: Latents, approximation: Latents, code: SparseCode, atoms: Atoms
    ) -> Scalar:
        """Returns the part of the training loss that the bottleneck adds."""
        return jnp.zeros((), latents.dtype)

    def bits_per_signal(self, coefficient_bits: float) -> float:
        """Returns the bits of a signal's fixed-length code, coefficients at this precision."""
        raise NotImplementedError

    @property
    def num_codes(self) -> int:
        """Codes that a signal can have: the vocabulary of `to_indices`."""
        raise NotImplementedError

    def to_indices(self, code: SparseCode) -> Int[Array, "b h w"]:
        """Returns the number of each signal's code, in [0, num_codes)."""
        raise NotImplementedError

    def from_indices(self, indices: Int[Array, "b h w"]) -> SparseCode:
        """Returns the `SparseCode` of indices; the inverse of `to_indices`."""
        raise NotImplementedError

    @property
    def num_entries(self) -> int:
        """Entries whose use is counted: the atoms."""
        return self.num_embeddings

    def entries(self, code: SparseCode) -> SparseCode:
        """Returns the code over the entries, to count their use."""
        return code

    def share_in_use(self, dictionary: Any, code: SparseCode) -> Scalar:
        """Returns the share of entries in use: here, by this code."""
        return jnp.mean(usage(self.entries(code), self.num_entries) > 0)

    def init_dictionary(self, dictionary: Any, latents: Latents, *, key: Any) -> Any:
        """Returns the dictionary collection with atoms that are taken from latents."""
        return dictionary

    def adapt(
        self, dictionary: Any, latents: Latents, code: SparseCode, *, step: Any, key: Any
    ) -> Any:
        """Returns the dictionary collection after a training step.

        Args:
          dictionary: the module's `dictionary` collection.
          latents: `(b, h, w, embedding_dim)`, what was coded.
          code: its `SparseCode`.
          step: int scalar, the number of the completed step, from 1.
          key: PRNG key of this step.
        """
        return self.adapt_and_mark(dictionary, latents, code, step=step, key=key)[0]

    def adapt_and_mark(
        self, dictionary: Any, latents: Latents, code: SparseCode, *, step: Any, key: Any
    ) -> tuple[Any, Bool[Array, " m"]]:
        """Returns the collection of `adapt`, and which atoms were replaced."""
        return dictionary, jnp.zeros(self.num_embeddings, bool)


class DictionaryBottleneck(Bottleneck):
    """A bottleneck whose dictionary learns.

    A subclass has `choose`, `learning`, `random_atoms`, `initial_atoms` and `replacements`.

    Attributes:
      num_embeddings: m, number of atoms.
      embedding_dim: channels of the latents.
      commitment_cost: weight of the loss that moves the latents towards their approximation.
      usage_decay: decay per step of the average use of each atom, in [0, 1).
      min_usage: an atom used less than this fraction of the mean is replaced, in [0, 1).
      replace_every_steps: steps between replacements; 0: never.
    """

    num_embeddings: int = setting(512, COUNT)
    embedding_dim: int = setting(64, COUNT)
    commitment_cost: float = setting(0.25, WEIGHT)
    usage_decay: float = setting(0.99, SHARE)
    min_usage: float = setting(0.05, SHARE)
    replace_every_steps: int = setting(100, COUNT_OR_NONE)

    is_learned: ClassVar[bool] = True

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

    def memory(self, atoms: Atoms) -> dict[str, Any]:
        memory, statistics = super().memory(atoms), self.learning.statistics(atoms)
        return memory if statistics is None else memory | {"statistics": statistics}

    def loss(
        self, latents: Latents, approximation: Latents, code: SparseCode, atoms: Atoms
    ) -> Scalar:
        """Returns commitment_cost x MSE(latents, sg(approximation)) + the loss of the atoms."""
        commitment = mean_square(latents - lax.stop_gradient(approximation))
        return self.commitment_cost * commitment + self.learning.loss(latents, approximation)

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
        signals = self.signals(latents)
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
