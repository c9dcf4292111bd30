"""Vector quantisation, in one stage (VQ-VAE) or several (residual VQ)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.models.bottlenecks.output import (
    AtomUse,
    BottleneckOutput,
    check_latents,
    mean_square,
    relative_usage,
    replace_when_due,
    restart_atoms,
    straight_through,
)
from laser_jax.models.precision import at_least_float32
from laser_jax.sparse import (
    EmaStatistics,
    SparseCode,
    decode,
    ema_update,
    residual_nearest_atoms,
    usage,
)
from laser_jax.sparse.bits import vq_bits
from laser_jax.sparse.codebook import replace_codes, stage_kmeans, stage_targets


class VectorQuantizer(AtomUse, nn.Module):
    """Each latent becomes its nearest atom, or the sum of `num_stages` atoms (residual VQ).

    Attributes:
      num_embeddings: m, atoms over all stages.
      embedding_dim: d, channels of the latents.
      commitment_cost: weight of the loss that pulls the encoder to its atoms.
      num_stages: stages of residual VQ, each with m / num_stages atoms; 1 is plain VQ.
      use_ema: atoms follow the decayed mean of their latents; else the codebook loss.
      decay: share of the past the mean keeps a step, in [0, 1).
      usage_decay, min_usage, replace_every_steps: an atom whose decayed use is below
        `min_usage` of the mean use is replaced, looked at every so many steps (0: never).

    References:
      van den Oord et al., Neural discrete representation learning, 2017.
      Zeghidour et al., SoundStream, 2021 (residual stages).
    """

    num_embeddings: int = 512
    embedding_dim: int = 64
    commitment_cost: float = 0.25
    num_stages: int = 1
    use_ema: bool = True
    decay: float = 0.99
    usage_decay: float = 0.99
    min_usage: float = 0.05
    replace_every_steps: int = 100

    @property
    def learns_by_gradient(self):
        """Whether the optimizer moves the atoms."""
        return not self.use_ema

    @property
    def patch_size(self):
        return (1, 1)

    @property
    def num_codes(self):
        """Codes of a position, m for one stage."""
        return (self.num_embeddings // self.num_stages) ** self.num_stages

    @nn.compact
    def __call__(self, latents):
        """Codes `(b, h, w, embedding_dim)` latents; returns a `BottleneckOutput`."""
        check_latents(latents, self.embedding_dim)
        atoms = self.variable("dictionary", "atoms", self._random_atoms).value
        self.variable("dictionary", "usage", jnp.ones, self.num_embeddings)
        if self.use_ema:
            self.variable("dictionary", "statistics", lambda: self._statistics(atoms))
        latents = at_least_float32(latents)
        code = self.encode(atoms, latents)
        approximation = decode(code, atoms)
        loss = self.loss(latents, approximation, code, atoms)
        return BottleneckOutput(straight_through(latents, approximation), loss, code)

    def loss(self, latents, approximation, code, atoms):
        """Returns commitment_cost x MSE(latents, sg(q)), and without EMA + MSE(q, sg(latents))."""
        del code, atoms  # what the sparse bottleneck's loss looks at
        loss = self.commitment_cost * mean_square(latents - lax.stop_gradient(approximation))
        if self.learns_by_gradient:
            loss += mean_square(approximation - lax.stop_gradient(latents))
        return loss

    def encode(self, atoms, latents):
        """Returns the `SparseCode` of latents `(b, h, w, c)` under atoms `(m, c)`."""
        return residual_nearest_atoms(
            lax.stop_gradient(latents), lax.stop_gradient(atoms), stages=self.num_stages
        )

    def decode(self, atoms, code):
        """Returns the latents `(b, h, w, c)` that a code stands for."""
        return decode(code, atoms)

    def to_indices(self, code):
        """Returns the atom `(b, h, w)` of each position; of one stage only."""
        return code.indices[..., 0]

    def from_indices(self, indices):
        """Returns the `SparseCode` of atoms `(b, h, w)`; the inverse of `to_indices`."""
        return SparseCode(indices[..., None], jnp.ones((*indices.shape, 1)))

    def bits_per_signal(self, coefficient_bits):
        """Returns the bits of a latent's code; there are no coefficients."""
        del coefficient_bits
        return vq_bits(self.num_embeddings, stages=self.num_stages)

    def init_dictionary(self, dictionary, latents, *, key):
        """Returns the dictionary collection with k-means of the latents, stage by stage."""
        targets = at_least_float32(latents).reshape(-1, self.embedding_dim)
        atoms = stage_kmeans(targets, self.num_embeddings, stages=self.num_stages, key=key)
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
        targets, stage_code = self._stages(dictionary["atoms"], latents, code)
        new = dict(dictionary)
        if self.use_ema:
            new["statistics"], new["atoms"] = ema_update(
                dictionary["statistics"], targets, stage_code, decay=self.decay
            )
        counts = relative_usage(usage(code, self.num_embeddings))
        new["usage"] = self.usage_decay * dictionary["usage"] + (1 - self.usage_decay) * counts
        return replace_when_due(self, step, new, lambda new: self._replace(new, latents, code, key))

    def _replace(self, dictionary, latents, code, key):
        atoms, dead = dictionary["atoms"], dictionary["usage"] < self.min_usage
        targets, stage_code = self._stages(atoms, latents, code)
        fresh = replace_codes(targets, atoms, stage_code, dead, key=key)
        return restart_atoms(dead, dictionary, self._start(dictionary, fresh)), dead

    def _stages(self, atoms, latents, code):
        """Each stage's targets `(b, h, w, k, c)` and the atom it chose, as a code of one atom."""
        targets = stage_targets(at_least_float32(latents), atoms, code)
        return targets, SparseCode(*(x[..., None] for x in code))

    def _start(self, dictionary, atoms):
        """The collection of a codebook that has just begun."""
        new = {**dictionary, "atoms": atoms, "usage": jnp.ones(self.num_embeddings)}
        if self.use_ema:
            new["statistics"] = self._statistics(atoms)
        return new

    def _statistics(self, atoms):
        return EmaStatistics(jnp.ones(self.num_embeddings), atoms)

    def _random_atoms(self):
        # Only until init_dictionary sees latents; small, as in the original code.
        bound = 1 / self.num_embeddings
        shape = (self.num_embeddings, self.embedding_dim)
        return jax.random.uniform(self.make_rng("params"), shape, minval=-bound, maxval=bound)
