"""Vector quantisation, in one stage (VQ-VAE) or several (residual VQ)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from laser_jax.models.bottlenecks.base import DictionaryBottleneck
from laser_jax.models.bottlenecks.learning import Gradient, LearningRule, MovingMeans, stages_of
from laser_jax.models.bottlenecks.output import Atoms, Signals
from laser_jax.ranges import COUNT, SHARE, Flag, setting
from laser_jax.sparse import SparseCode, residual_nearest_atoms
from laser_jax.sparse.bits import vq_bits
from laser_jax.sparse.codebook import check_stages, replace_codes, stage_kmeans


class VectorQuantizer(DictionaryBottleneck):
    """Each latent becomes its nearest atom, or the sum of `num_stages` atoms (residual VQ).

    Attributes:
      num_embeddings, embedding_dim, commitment_cost, usage_decay, min_usage,
        replace_every_steps: as in `DictionaryBottleneck`; m counts the atoms of all stages.
      num_stages: stages of residual VQ, each with m / num_stages atoms; 1 is plain VQ.
      use_ema: whether atoms are moving averages of their latents; False: they learn by gradient.
      decay: decay per step of those averages, in [0, 1).

    References:
      van den Oord et al., Neural discrete representation learning, 2017.
      Zeghidour et al., SoundStream, 2021 (residual stages).
    """

    num_stages: int = setting(1, COUNT)
    use_ema: bool = setting(True, Flag())
    decay: float = setting(0.99, SHARE)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.num_stages, self.num_embeddings, "num_embeddings")

    @property
    def learning(self) -> LearningRule:
        """How the atoms learn."""
        return MovingMeans(self.decay) if self.use_ema else Gradient()

    @property
    def has_indices(self) -> bool:
        return self.num_stages == 1

    @property
    def num_codes(self) -> int:
        """Codes that a signal can have: m for one stage."""
        return (self.num_embeddings // self.num_stages) ** self.num_stages

    def choose(self, signals: Signals, atoms: Atoms) -> SparseCode:
        return residual_nearest_atoms(signals, atoms, stages=self.num_stages)

    def to_indices(self, code: SparseCode) -> Int[Array, "b h w"]:
        """Returns the atom of each signal; for one stage only."""
        return code.indices[..., 0]

    def from_indices(self, indices: Int[Array, "b h w"]) -> SparseCode:
        return SparseCode(indices[..., None], jnp.ones((*indices.shape, 1)))

    def bits_per_signal(self, coefficient_bits: float) -> float:
        """Returns the bits of a signal's code; it has no coefficients."""
        return vq_bits(self.num_embeddings, stages=self.num_stages)

    def random_atoms(self) -> Atoms:
        bound = 1 / self.num_embeddings  # small, as in the original code
        shape = (self.num_embeddings, self.signal_width)
        return jax.random.uniform(self.make_rng("params"), shape, minval=-bound, maxval=bound)

    def initial_atoms(self, signals: Signals, *, key: Any) -> Atoms:
        """Returns the k-means centroids of the signals, stage by stage."""
        signals = signals.reshape(-1, signals.shape[-1])
        return stage_kmeans(signals, self.num_embeddings, stages=self.num_stages, key=key)

    def replacements(self, dictionary, signals, code, *, key):
        """Replaces atoms that are rarely used by signals with a large error."""
        atoms, dead = dictionary["atoms"], dictionary["usage"] < self.min_usage
        targets, stage_code = stages_of(signals, atoms, code)
        return replace_codes(targets, atoms, stage_code, dead, key=key), dead
