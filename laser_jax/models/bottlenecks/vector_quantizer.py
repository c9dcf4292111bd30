"""Vector quantisation, in one stage (VQ-VAE) or several (residual VQ)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from laser_jax.models.bottlenecks.coding import RATE_DISTORTION, RateStages, Stages
from laser_jax.models.bottlenecks.dictionary import DictionaryBottleneck
from laser_jax.models.bottlenecks.learning import Gradient, LearningRule, MovingMeans, stages_of
from laser_jax.models.bottlenecks.output import Atoms, Latents, Signals
from laser_jax.ranges import COUNT, SHARE, Choice, Flag, setting
from laser_jax.sparse import SparseCode, unit_norm
from laser_jax.sparse.codebook import check_stages, replace_codes, stage_kmeans
from laser_jax.tokens import Layout


class VectorQuantizer(DictionaryBottleneck):
    """Each patch of latents becomes its nearest atom, or a sum of atoms (residual VQ).

    Attributes:
      patch_size, num_embeddings, embedding_dim, commitment_cost, usage_decay, min_usage,
        replace_every_steps, gradient_estimator, bit_price, price_warmup_steps: as in
        `DictionaryBottleneck`; m counts the atoms of all stages.
      num_stages: stages of residual VQ, each with m / num_stages atoms; 1 is plain VQ.
      stage_coder: "nearest": every signal uses all stages; "rate_distortion": as many of the
        first ones, or none, as save more error than their bits cost.
      distance: "euclidean", or "cosine": signals and atoms are scaled to unit norm, for one stage
        only.
      use_ema: whether atoms are moving averages of their latents; False: they learn by gradient.
      decay: decay per step of those averages, in [0, 1).

    A codebook is factorised by a small `embedding_dim`: the convolution before the bottleneck then
    projects the encoder's channels to it, and the one after it projects back. ViT-VQGAN has this
    and the cosine distance.

    References:
      van den Oord et al., Neural discrete representation learning, 2017.
      Zeghidour et al., SoundStream, 2021 (residual stages).
      Yu et al., Vector-quantized image modeling with improved VQGAN, 2022 (ViT-VQGAN).
    """

    num_stages: int = setting(1, COUNT)
    stage_coder: str = setting("nearest", Choice(("nearest", RATE_DISTORTION)))
    distance: str = setting("euclidean", Choice(("euclidean", "cosine")))
    use_ema: bool = setting(True, Flag())
    decay: float = setting(0.99, SHARE)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stages(self.num_stages, self.num_embeddings, "num_embeddings")
        if self.distance == "cosine" and self.num_stages > 1:
            raise ValueError(
                "distance 'cosine' codes a direction, which leaves no remainder to further stages: "
                f"num_stages must be 1, got {self.num_stages}."
            )

    @property
    def learning(self) -> LearningRule:
        """How the atoms learn."""
        return MovingMeans(self.decay) if self.use_ema else Gradient()

    @property
    def coder(self) -> str:
        return self.stage_coder

    def coding_at(self, bit_price: Any) -> Stages | RateStages:
        if self.by_rate:
            return RateStages(self.num_stages, bit_price)
        return Stages(self.num_stages)

    @property
    def has_indices(self) -> bool:
        return self.num_stages == 1 and not self.by_rate

    @property
    def num_codes(self) -> int:
        """Codes that a signal can have: m for one stage."""
        size, k = self.num_embeddings // self.num_stages, self.num_stages
        return sum(size**n for n in range(0 if self.by_rate else k, k + 1))

    def signals(self, latents: Latents) -> Float[Array, "b rows columns d"]:
        """Returns the patches of latents, of unit norm if the distance is the cosine."""
        return self.constrain(super().signals(latents))

    def constrain(self, atoms: Atoms) -> Atoms:
        return unit_norm(atoms) if self.distance == "cosine" else atoms

    def to_indices(self, code: SparseCode) -> Int[Array, "b h w"]:
        """Returns the atom of each signal; for one stage only."""
        return code.indices[..., 0]

    def from_indices(self, indices: Int[Array, "b h w"]) -> SparseCode:
        return SparseCode(indices[..., None], jnp.ones((*indices.shape, 1)))

    def token_layout(self, step: float | None = None) -> Layout:
        return Layout.of_stages(
            num_atoms=self.num_embeddings, stages=self.num_stages, full=not self.by_rate
        )

    def random_atoms(self) -> Atoms:
        bound = 1 / self.num_embeddings  # small, as in the original code
        shape = (self.num_embeddings, self.signal_width)
        atoms = jax.random.uniform(self.make_rng("params"), shape, minval=-bound, maxval=bound)
        return self.constrain(atoms)

    def initial_atoms(self, signals: Signals, *, key: Any) -> Atoms:
        """Returns the k-means centroids of the signals, stage by stage."""
        signals = signals.reshape(-1, signals.shape[-1])
        atoms = stage_kmeans(signals, self.num_embeddings, stages=self.num_stages, key=key)
        return self.constrain(atoms)

    def replacements(self, dictionary, signals, code, *, key):
        """Replaces atoms that are rarely used by signals with a large error."""
        atoms, dead = dictionary["atoms"], dictionary["usage"] < self.min_usage
        targets, stage_code = stages_of(signals, atoms, code)
        return replace_codes(targets, atoms, stage_code, dead, key=key), dead
