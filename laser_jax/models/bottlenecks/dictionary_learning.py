"""The sparse bottleneck: a few atoms of a learned dictionary for each patch of latents."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.checks import check_choice, check_sparsity
from laser_jax.models.bottlenecks.output import (
    AtomUse,
    BottleneckOutput,
    as_pair,
    check_latents,
    from_patches,
    mean_square,
    relative_usage,
    replace_when_due,
    restart_atoms,
    straight_through,
    to_patches,
)
from laser_jax.models.precision import at_least_float32
from laser_jax.sparse import (
    decode,
    dequantize_coefficients,
    gradient_pursuit,
    init_from_signals,
    iterative_hard_thresholding,
    ksvd_statistics,
    ksvd_sweep,
    ksvd_update,
    matching_pursuit,
    omp,
    online_statistics,
    online_update,
    rate_distortion_pursuit,
    replace_atoms,
    residual_update,
    top_k,
    uniform_rate_model,
    unit_norm,
    usage,
)
from laser_jax.sparse.bits import sparse_bits
from laser_jax.sparse.ksvd import METHODS
from laser_jax.sparse.penalties import coefficient_l1, coherence_penalty
from laser_jax.sparse.support import optimal_coefficients

SPARSE_CODERS = {
    "omp": omp,
    "ols": functools.partial(omp, selection="ols"),
    "matching_pursuit": matching_pursuit,
    "gradient_pursuit": gradient_pursuit,
    "iterative_hard_thresholding": iterative_hard_thresholding,
    "top_k": top_k,
}
# Not one of them: its atoms a signal follow from what a bit must save.
RATE_DISTORTION = "rate_distortion"
MAX_LEVEL = 31  # largest integer coefficient of that coder
DICTIONARY_UPDATES = ("gradient", "online", "ksvd")


class DictionaryLearning(AtomUse, nn.Module):
    """Each patch of latents becomes at most `sparsity_level` atoms of one dictionary.

    `dictionary_update="gradient"` is the DL-VAE; "ksvd" the K-SVD-VAE, or LASER.

    Attributes:
      num_embeddings: m, atoms.
      embedding_dim: channels of the latents; an atom is this times the patch's area wide.
      sparsity_level: k, atoms a patch, in [1, m].
      patch_size: p, or (p, q): latents of one signal, non-overlapping.
      commitment_cost: weight of the loss that pulls the encoder to its approximation.
      sparse_coder: how the code is found; a key of `SPARSE_CODERS`, or "rate_distortion":
        as many atoms of integer coefficients, up to `sparsity_level`, as are worth their bits.
      tolerance: squared residual a patch at which its code is long enough; None: never.
      bit_price: squared error a patch that a bit must save ("rate_distortion").
      coefficient_step: of its coefficients, > 0 ("rate_distortion").
      dictionary_update: how the atoms learn; one of `DICTIONARY_UPDATES`.
      dictionary_weight: weight of the dictionary's loss ("gradient"); the optimizer
        multiplies the atoms' learning rate by it, as Adam ignores a factor on a gradient.
      coefficient_l1_weight: weight of the coefficients' L1 norm, which pulls the encoder to
        latents that need little of each atom.
      coherence_weight: weight of the mean squared cosine between atoms ("gradient" only).
      dict_learning_rate: step of the "online" update without memory.
      ksvd_iterations: sweeps an update ("ksvd"), at least 1.
      ksvd_method: "exact", "approximate" or "parallel" ("ksvd").
      dictionary_decay: share of the past moments kept an update ("ksvd", "online"), in
        [0, 1); 0 fits the batch alone ("ksvd" as in the paper, "online" by plain steps).
      update_every_steps: steps between two updates ("ksvd", "online").
      normalize_atoms: whether atoms are scaled to norm 1 after each step.
      usage_decay, min_usage, max_coherence, replace_every_steps: an atom whose decayed use
        is below `min_usage` of the mean use, or whose |cosine| with a more used one is above
        `max_coherence`, is replaced, looked at every so many steps (0: never).

    References:
      Aharon, Elad and Bruckstein, K-SVD, 2006. Mairal et al., Online dictionary
      learning for sparse coding, 2009.
    """

    num_embeddings: int = 512
    embedding_dim: int = 64
    sparsity_level: int = 8
    patch_size: int | tuple[int, int] = 1
    commitment_cost: float = 0.25
    sparse_coder: str = "omp"
    tolerance: float | None = None
    bit_price: float = 0.01
    coefficient_step: float = 0.25
    dictionary_update: str = "ksvd"
    dictionary_weight: float = 1.0
    coefficient_l1_weight: float = 0.0
    coherence_weight: float = 0.0
    dict_learning_rate: float = 0.5
    ksvd_iterations: int = 1
    ksvd_method: str = "exact"
    dictionary_decay: float = 0.9
    update_every_steps: int = 1
    normalize_atoms: bool = True
    usage_decay: float = 0.99
    min_usage: float = 0.05
    max_coherence: float = 0.99
    replace_every_steps: int = 100

    def __post_init__(self):
        super().__post_init__()
        check_sparsity(self.sparsity_level, self.num_embeddings, "num_embeddings")
        check_choice("sparse_coder", self.sparse_coder, (*SPARSE_CODERS, RATE_DISTORTION))
        check_choice("dictionary_update", self.dictionary_update, DICTIONARY_UPDATES)
        check_choice("ksvd_method", self.ksvd_method, METHODS)
        as_pair(self.patch_size)
        if not (self.bit_price >= 0 and self.coefficient_step > 0):
            raise ValueError(
                "bit_price must be at least 0 and coefficient_step above 0, "
                f"got {self.bit_price} and {self.coefficient_step}."
            )
        if self.ksvd_iterations < 1:
            raise ValueError(
                f"ksvd_iterations must be at least 1, got {self.ksvd_iterations}; "
                "for a dictionary without K-SVD set dictionary_update='gradient'."
            )
        for name in ("coefficient_l1_weight", "coherence_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        if self.coherence_weight and not self.learns_by_gradient:
            raise ValueError(
                f"coherence_weight {self.coherence_weight} acts through the dictionary's gradient, "
                f"which dictionary_update={self.dictionary_update!r} has not; use 'gradient'."
            )

    @property
    def learns_by_gradient(self):
        """Whether the optimizer moves the atoms."""
        return self.dictionary_update == "gradient"

    @property
    def learning_rate_scale(self):
        """Factor of the atoms' learning rate: Adam ignores a factor of the loss."""
        return self.dictionary_weight

    @property
    def signal_width(self):
        """d, the width of a signal and of an atom."""
        p, q = as_pair(self.patch_size)
        return self.embedding_dim * p * q

    @nn.compact
    def __call__(self, latents):
        """Codes `(b, h, w, embedding_dim)` latents; returns a `BottleneckOutput`."""
        check_latents(latents, self.embedding_dim, as_pair(self.patch_size))
        atoms = self.variable("dictionary", "atoms", self._random_atoms).value
        self.variable("dictionary", "usage", jnp.ones, self.num_embeddings)
        if self._has_memory:
            self.variable("dictionary", "statistics", lambda: self._statistics(atoms))
        latents = at_least_float32(latents)
        code = self.encode(atoms, latents)
        approximation = self.decode(atoms, code)
        loss = self.loss(latents, approximation, code, atoms)
        return BottleneckOutput(straight_through(latents, approximation), loss, code)

    def loss(self, latents, approximation, code, atoms):
        """Returns commitment_cost x MSE(latents, sg(approximation)), and what has a weight of:

        dictionary_weight x MSE(approximation, sg(latents)) in gradient mode,
        coefficient_l1_weight x the L1 norm of a signal's coefficients, whose gradient goes to the
        latents as least squares over the support would have it,
        coherence_weight x the mean squared cosine between atoms.
        """
        loss = self.commitment_cost * mean_square(latents - lax.stop_gradient(approximation))
        if self.learns_by_gradient:
            dictionary_loss = mean_square(approximation - lax.stop_gradient(latents))
            loss += self.dictionary_weight * dictionary_loss
        if self.coefficient_l1_weight:
            coefficients = optimal_coefficients(
                self._signals(latents), lax.stop_gradient(atoms), lax.stop_gradient(code)
            )
            loss += self.coefficient_l1_weight * coefficient_l1(coefficients)
        if self.coherence_weight:
            loss += self.coherence_weight * coherence_penalty(atoms)
        return loss

    def encode(self, atoms, latents):
        """Returns the `SparseCode` of latents `(b, h, w, c)` under atoms `(m, d)`.

        Detached: at the least-squares optimum the dictionary's gradient is the same
        (envelope theorem), and no solve stands in the backward pass.
        """
        if self.sparse_coder == RATE_DISTORTION:
            levels = self.encode_levels(atoms, latents)
            return dequantize_coefficients(levels, self.coefficient_step)
        return SPARSE_CODERS[self.sparse_coder](
            lax.stop_gradient(self._signals(latents)),
            lax.stop_gradient(atoms),
            sparsity=self.sparsity_level,
            tolerance=self.tolerance,
        )

    def encode_levels(self, atoms, latents, model=None):
        """Returns the integer `SparseCode` of latents, each atom at least worth its bits.

        Args:
          atoms: `(m, d)`.
          latents: `(b, h, w, c)`.
          model: `RateModel`; None is what training takes, all symbols alike.
        """
        if model is None:
            model = uniform_rate_model(
                self.num_embeddings, sparsity=self.sparsity_level, max_level=MAX_LEVEL
            )
        return rate_distortion_pursuit(
            self._signals(latents), atoms, model, sparsity=self.sparsity_level,
            step=self.coefficient_step, bit_price=self.bit_price,
        )  # fmt: skip

    def decode(self, atoms, code):
        """Returns the latents `(b, h, w, c)` that a code stands for."""
        return from_patches(decode(code, atoms), as_pair(self.patch_size))

    def bits_per_signal(self, coefficient_bits):
        """Returns the bits of a patch's fixed-length code, its coefficients at this precision.

        The coder "rate_distortion" has integers for coefficients: the bits that tell all its
        codes apart, an upper bound. What they need follows from `laser_jax.sparse.code_bits`.
        """
        if self.sparse_coder == RATE_DISTORTION:
            m, sizes = self.num_embeddings, range(self.sparsity_level + 1)
            return math.log2(sum(math.comb(m, n) * (2 * MAX_LEVEL) ** n for n in sizes))
        return sparse_bits(
            self.num_embeddings, sparsity=self.sparsity_level, coefficient_bits=coefficient_bits
        )

    def init_dictionary(self, dictionary, latents, *, key):
        """Returns the dictionary collection with atoms taken from the latents' signals."""
        atoms = init_from_signals(self._signals(latents), self.num_embeddings, key=key)
        return self._start(dictionary, atoms)

    def adapt(self, dictionary, latents, code, *, step, key):
        """Returns the dictionary collection after a training step.

        Args:
          dictionary: the module's `dictionary` collection.
          latents: `(b, h, w, c)`, what was coded.
          code: the `SparseCode` it was given.
          step: int scalar, the step just made, from 1.
          key: PRNG key of this step.
        """
        return self.adapt_and_mark(dictionary, latents, code, step=step, key=key)[0]

    def adapt_and_mark(self, dictionary, latents, code, *, step, key):
        """Returns what `adapt` does, and which atoms were replaced, bool `(m,)`."""
        signals = self._signals(latents)
        counts = usage(code, self.num_embeddings)
        new = dict(dictionary)
        if not self.learns_by_gradient:
            new = lax.cond(
                step % self.update_every_steps == 0,
                lambda old: self._update(old, signals, code),
                lambda old: old,
                new,
            )
        if self.normalize_atoms:
            new["atoms"] = unit_norm(new["atoms"])
        mean = (1 - self.usage_decay) * relative_usage(counts)
        new["usage"] = self.usage_decay * dictionary["usage"] + mean
        return replace_when_due(self, step, new, lambda old: self._replace(old, signals, code, key))

    def _update(self, dictionary, signals, code):
        atoms, statistics = dictionary["atoms"], dictionary.get("statistics")
        if self.dictionary_update == "ksvd":
            memory, method = statistics, self.ksvd_method
            for _ in range(self.ksvd_iterations):
                if memory is None:
                    atoms, code = ksvd_sweep(signals, atoms, code, method=method)
                    continue
                # Each sweep starts from the same past, or the batch would count twice.
                statistics, atoms, code = ksvd_update(
                    memory, signals, atoms, code, method=method, decay=self.dictionary_decay
                )
        elif self._has_memory:
            statistics, atoms = online_update(
                statistics, signals, atoms, code, decay=self.dictionary_decay
            )
        else:
            atoms = residual_update(signals, atoms, code, learning_rate=self.dict_learning_rate)
        new = {**dictionary, "atoms": atoms}
        return new | {"statistics": statistics} if self._has_memory else new

    def _replace(self, dictionary, signals, code, key):
        atoms = replace_atoms(
            signals,
            dictionary["atoms"],
            code,
            max_coherence=self.max_coherence,
            key=key,
            counts=dictionary["usage"],
            min_count=self.min_usage,
        )
        replaced = jnp.any(atoms != dictionary["atoms"], axis=-1)
        # What the old atom remembered goes with it.
        return restart_atoms(replaced, dictionary, self._start(dictionary, atoms)), replaced

    @property
    def _has_memory(self):
        return not self.learns_by_gradient and self.dictionary_decay > 0

    def _signals(self, latents):
        return to_patches(at_least_float32(latents), as_pair(self.patch_size))

    def _start(self, dictionary, atoms):
        """The collection of a dictionary that has just begun."""
        new = {**dictionary, "atoms": atoms, "usage": jnp.ones(self.num_embeddings)}
        return new | {"statistics": self._statistics(atoms)} if self._has_memory else new

    def _statistics(self, atoms):
        if self.dictionary_update == "ksvd":
            return ksvd_statistics(atoms, method=self.ksvd_method)
        return online_statistics(atoms)

    def _random_atoms(self):
        # Only until init_dictionary sees latents.
        shape = (self.num_embeddings, self.signal_width)
        return unit_norm(jax.random.normal(self.make_rng("params"), shape))
