"""The sparse bottleneck: a few atoms of a learned dictionary for each patch of latents."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.checks import check_sparsity
from laser_jax.models.bottlenecks.coding import PURSUITS, RATE_DISTORTION, Pursuit, RatePursuit
from laser_jax.models.bottlenecks.dictionary import DictionaryBottleneck
from laser_jax.models.bottlenecks.learning import (
    Gradient,
    KsvdSweeps,
    LearningRule,
    OnlineMoments,
    ResidualSteps,
)
from laser_jax.models.bottlenecks.output import Atoms, Signals
from laser_jax.ranges import (
    COUNT,
    RATE,
    SHARE,
    WEIGHT,
    Choice,
    Flag,
    Optional,
    Real,
    setting,
)
from laser_jax.sparse import (
    init_from_signals,
    replace_atoms,
    unit_norm,
)
from laser_jax.sparse.ksvd import METHODS
from laser_jax.sparse.penalties import coefficient_l1, coefficient_rate, coherence_penalty
from laser_jax.sparse.support import optimal_coefficients
from laser_jax.tokens import Layout

SPARSE_CODERS = (*PURSUITS, RATE_DISTORTION)
DICTIONARY_UPDATES = ("gradient", "online", "ksvd")


class DictionaryLearning(DictionaryBottleneck):
    """Each patch of latents becomes at most `sparsity_level` atoms of one dictionary.

    `dictionary_update="gradient"` is the DL-VAE; "ksvd" the K-SVD-VAE, or LASER.

    Attributes:
      patch_size, num_embeddings, embedding_dim, commitment_cost, usage_decay, min_usage,
        replace_every_steps, gradient_estimator, bit_price, price_warmup_steps: as in
        `DictionaryBottleneck`.
      sparsity_level: k, atoms per signal, in [1, m].
      sparse_coder: algorithm that finds codes, one of `SPARSE_CODERS`. "rate_distortion" uses
        as many atoms with integer coefficients as save more error than their bits cost.
      tolerance: squared residual of a signal at which its code ends; None: never.
      coefficient_step: step of the integer coefficients, above 0 ("rate_distortion").
      dictionary_update: how the atoms learn, one of `DICTIONARY_UPDATES`.
      dictionary_weight: weight of the loss of the atoms, and factor of the optimizer's learning
        rate for them ("gradient").
      coefficient_l1_weight: weight of the L1 norm of a signal's coefficients. It moves the
        latents only.
      rate_weight: weight of the differentiable rate of a signal's coefficients c, the sum of
        log2(1 + |c| / coefficient_step) ("rate_distortion"). It moves the latents only.
      coherence_weight: weight of the mean squared cosine between atoms ("gradient").
      dict_learning_rate: step size ("online" without memory).
      ksvd_iterations: sweeps per update, at least 1 ("ksvd").
      ksvd_method: "exact", "approximate" or "parallel" ("ksvd").
      dictionary_decay: decay per update of the moments of the past, in [0, 1) ("ksvd",
        "online"). 0 fits only the current batch: "ksvd" as in the paper, "online" by plain steps.
      update_every_steps: steps between updates ("ksvd", "online").
      normalize_atoms: whether atoms are scaled to unit norm after each step.
      max_coherence: |cosine| with an atom that is used more, above which an atom is a duplicate
        and is replaced.

    References:
      Aharon, Elad and Bruckstein, K-SVD, 2006. Mairal et al., Online dictionary
      learning for sparse coding, 2009.
    """

    sparsity_level: int = setting(8, COUNT)
    sparse_coder: str = setting("omp", Choice(SPARSE_CODERS))
    tolerance: float | None = setting(None, Optional(Real(0)))
    coefficient_step: float = setting(0.25, RATE)
    dictionary_update: str = setting("ksvd", Choice(DICTIONARY_UPDATES))
    dictionary_weight: float = setting(1.0, WEIGHT)
    coefficient_l1_weight: float = setting(0.0, WEIGHT)
    rate_weight: float = setting(0.0, WEIGHT)
    coherence_weight: float = setting(0.0, WEIGHT)
    dict_learning_rate: float = setting(0.5, RATE)
    ksvd_iterations: int = setting(1, COUNT)
    ksvd_method: str = setting("exact", Choice(METHODS))
    dictionary_decay: float = setting(0.9, SHARE)
    update_every_steps: int = setting(4, COUNT)
    normalize_atoms: bool = setting(True, Flag())
    max_coherence: float = setting(0.99, Real(above=0, most=1))

    has_coefficients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sparsity(self.sparsity_level, self.num_embeddings, "num_embeddings")
        if self.rate_weight:
            self._check_by_rate(f"rate_weight {self.rate_weight}")
        if self.coherence_weight and not self.learns_by_gradient:
            raise ValueError(
                f"coherence_weight {self.coherence_weight} needs a dictionary that learns by "
                f"gradient, got dictionary_update={self.dictionary_update!r}; use 'gradient'."
            )

    @property
    def coder(self) -> str:
        return self.sparse_coder

    def coding_at(self, bit_price: Any) -> Pursuit | RatePursuit:
        if self.by_rate:
            return RatePursuit(self.sparsity_level, self.coefficient_step, bit_price)
        return Pursuit(PURSUITS[self.sparse_coder], self.sparsity_level, self.tolerance)

    @property
    def learning(self) -> LearningRule:
        """How the atoms learn."""
        decay, every = self.dictionary_decay, self.update_every_steps
        if self.dictionary_update == "gradient":
            return Gradient(self.dictionary_weight)
        if self.dictionary_update == "ksvd":
            return KsvdSweeps(self.ksvd_method, self.ksvd_iterations, decay, every)
        if decay:
            return OnlineMoments(decay, every)
        return ResidualSteps(self.dict_learning_rate, every)

    def loss(self, latents, approximation, code, atoms, step=None):
        """Returns the loss of `DictionaryBottleneck`, and the terms that have a weight.

        They are the L1 norm and the rate of a signal's coefficients, whose gradient with respect to
        the latents is that of least squares over the support, and the mean squared cosine between
        atoms.
        """
        loss = super().loss(latents, approximation, code, atoms, step)
        if self.coefficient_l1_weight or self.rate_weight:
            coefficients = optimal_coefficients(
                self.signals(latents), lax.stop_gradient(atoms), lax.stop_gradient(code)
            )
        if self.coefficient_l1_weight:
            loss += self.coefficient_l1_weight * coefficient_l1(coefficients)
        if self.rate_weight:
            loss += self.rate_weight * coefficient_rate(coefficients, self.coefficient_step)
        if self.coherence_weight:
            loss += self.coherence_weight * coherence_penalty(atoms)
        return loss

    @property
    def has_real_coefficients(self) -> bool:
        return not self.by_rate

    def token_layout(self, step: float | None = None) -> Layout:
        step = step if self.has_real_coefficients else self.coefficient_step
        options = {"num_atoms": self.num_embeddings, "sparsity": self.sparsity_level}
        return Layout.of_set(**options, step=step)  # type: ignore[arg-type]

    def random_atoms(self) -> Atoms:
        shape = (self.num_embeddings, self.signal_width)
        return unit_norm(jax.random.normal(self.make_rng("params"), shape))

    def initial_atoms(self, signals: Signals, *, key: Any) -> Atoms:
        return init_from_signals(signals, self.num_embeddings, key=key)

    def constrain(self, atoms: Atoms) -> Atoms:
        return unit_norm(atoms) if self.normalize_atoms else atoms

    def replacements(self, dictionary, signals, code, *, key):
        """Replaces atoms that are rarely used, or duplicates of an atom that is used more."""
        atoms = replace_atoms(
            signals,
            dictionary["atoms"],
            code,
            max_coherence=self.max_coherence,
            key=key,
            counts=dictionary["usage"],
            min_count=self.min_usage,
        )
        return atoms, jnp.any(atoms != dictionary["atoms"], axis=-1)
