"""What the bottlenecks have in common: the forward pass."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from laser_jax.models.bottlenecks.output import (
    Atoms,
    BottleneckOutput,
    Latents,
    Scalar,
    Signals,
    as_pair,
    check_latents,
    from_patches,
    straight_through,
    to_patches,
)
from laser_jax.models.precision import at_least_float32
from laser_jax.ranges import PATCH, check_settings, setting
from laser_jax.sparse import SparseCode, decode, usage
from laser_jax.tokens import Layout


class Bottleneck(nn.Module, kw_only=True):
    """Codes latents in a dictionary and returns their approximation.

    The collection `dictionary` holds the `atoms` `(m, d)`, their recent `usage` `(m,)`, and the
    `statistics` of a learning rule with memory. Applying the module only reads it.

    In this class the dictionary never changes; `DictionaryBottleneck` adds learning. A new
    bottleneck overrides `choose`, `random_atoms`, `bits_per_signal` and what else differs. Other
    code uses the attributes below and does not test the class.

    Attributes:
      is_learned: whether the atoms come from data.
      has_coefficients: whether the entries of a code have coefficients that differ from 1.
      has_real_coefficients: whether coefficients are real numbers, so tokens need a step.
      has_indices: whether one integer is the code of a signal (`to_indices`, `from_indices`).
      learns_by_gradient: whether the optimizer moves the atoms.
      learning_rate_scale: factor of the optimizer's learning rate for the atoms.
      patch_size: p, or (p, q): latents of one signal, without overlap. A signal, and an atom, has
        embedding_dim x p x q values.
    """

    patch_size: int | tuple[int, int] = setting(1, PATCH)

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
    def signal_width(self) -> int:
        """d, the width of a signal and of an atom."""
        p, q = as_pair(self.patch_size)
        return self.embedding_dim * p * q

    @property
    def has_indices(self) -> bool:
        return False

    @property
    def has_real_coefficients(self) -> bool:
        return False

    @property
    def learns_by_gradient(self) -> bool:
        return False

    @property
    def learning_rate_scale(self) -> float:
        return 1.0

    @nn.compact
    def __call__(self, latents: Latents, step: Any = None) -> BottleneckOutput:
        """Codes latents `(b, h, w, embedding_dim)`.

        Args:
          latents: what to code.
          step: int scalar, completed training steps, for what changes in training; None: as after
            training.
        """
        check_latents(latents, self.embedding_dim, as_pair(self.patch_size))
        atoms = self.variable("dictionary", "atoms", self.random_atoms).value
        if self.is_initializing():
            for name, value in self.memory(atoms).items():
                self.variable("dictionary", name, lambda value=value: value)
        latents = at_least_float32(latents)
        code = self.encode(atoms, latents, step)
        approximation = self.decode(atoms, code)
        loss = self.loss(latents, approximation, code, atoms, step)
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

    def target(self, latents: Latents) -> Latents:
        """Returns the latents in the form in which the code approximates them."""
        return from_patches(self.signals(latents), as_pair(self.patch_size))

    def encode(self, atoms: Atoms, latents: Latents, step: Any = None) -> SparseCode:
        """Returns the `SparseCode` of latents, with leading axes `(b, h / p, w / q)`.

        No gradient passes through it: with least-squares coefficients the gradient with respect
        to the atoms is the same (envelope theorem), and the backward pass needs no solve.
        """
        signals, atoms = lax.stop_gradient((self.signals(latents), atoms))
        return self.choose(signals, atoms, step)

    def choose(self, signals: Signals, atoms: Atoms, step: Any = None) -> SparseCode:
        """Returns the `SparseCode` of signals; `step` as in a call of the module."""
        raise NotImplementedError

    def decode(self, atoms: Atoms, code: SparseCode) -> Latents:
        """Returns the latents that a code stands for."""
        return from_patches(decode(code, atoms), as_pair(self.patch_size))

    def pass_gradient(self, latents: Latents, approximation: Latents) -> Latents:
        """Returns the approximation, with a gradient with respect to the latents."""
        return straight_through(self.target(latents), approximation)

    def loss(
        self,
        latents: Latents,
        approximation: Latents,
        code: SparseCode,
        atoms: Atoms,
        step: Any = None,
    ) -> Scalar:
        """Returns the part of the training loss that the bottleneck adds."""
        return jnp.zeros((), latents.dtype)

    def bits_per_signal(self, coefficient_bits: float) -> float:
        """Returns the bits of a signal's fixed-length code, coefficients at this precision."""
        raise NotImplementedError

    def token_layout(self, step: float | None = None) -> Layout:
        """Returns the `laser_jax.tokens.Layout` of the codes.

        Args:
          step: the coefficient of a level of 1, if `has_real_coefficients`.
        """
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

    def further_metrics(self, dictionary: Any) -> dict[str, Scalar]:
        """Returns further metrics of the use of a dictionary collection, by name."""
        return {}

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
