"""The image loss of a run: a weighted sum of terms. Terms of weight 0 are not computed."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.losses.multiresolution import mr_dct_loss, mr_gradient_loss
from laser_jax.losses.pixel import l1, mse
from laser_jax.pretrained import lpips_distance
from laser_jax.pretrained.lpips import PRECISIONS, TRUNKS
from laser_jax.ranges import LEVELS, WEIGHT, Choice, check_settings, setting


@dataclasses.dataclass(frozen=True)
class ImageLoss:
    """The loss of reconstructions of images in [-1, 1].

        loss, terms = ImageLoss(mse_weight=1.0, mr_dct_weight=0.1)(images, reconstruction)

    Attributes:
      mse_weight, l1_weight: weights of the pixel losses; their sum is `recon_loss`.
      perceptual_weight: weight of LPIPS; above 0 it needs `load_lpips(perceptual_net)`.
      perceptual_net: network of LPIPS, "alex" or "vgg".
      perceptual_precision: precision of the products in LPIPS, "highest" or "default"; see
        `lpips_distance`.
      mr_dct_weight, mr_dct_levels: weight of `mr_dct_loss`, and levels of its pyramid.
      mr_grad_weight, mr_grad_levels: the same of `mr_gradient_loss`.

    Raises:
      ValueError: if a value is out of its range, or all weights are 0.
    """

    mse_weight: float = setting(1.0, WEIGHT)
    l1_weight: float = setting(0.0, WEIGHT)
    perceptual_weight: float = setting(0.0, WEIGHT)
    perceptual_net: str = setting("vgg", Choice(tuple(TRUNKS)))
    perceptual_precision: str = setting("highest", Choice(tuple(PRECISIONS)))
    mr_dct_weight: float = setting(0.0, WEIGHT)
    mr_dct_levels: int = setting(3, LEVELS)
    mr_grad_weight: float = setting(0.0, WEIGHT)
    mr_grad_levels: int = setting(3, LEVELS)

    def __post_init__(self) -> None:
        check_settings(self)
        weights = {k: v for k, v in dataclasses.asdict(self).items() if k.endswith("_weight")}
        if not any(weights.values()):
            raise ValueError(f"one of {', '.join(weights)} must be above 0.")

    def __call__(
        self,
        images: Float[Array, "b H W C"],
        reconstruction: Float[Array, "b H W C"],
        lpips_params: Any = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Returns the loss and its terms.

        Args:
          images, reconstruction: `(b, H, W, C)` in [-1, 1].
          lpips_params: from `load_lpips`; needed if `perceptual_weight` is above 0.

        Returns:
          The loss, a scalar, and its terms, a dict of scalars: `recon_loss` with its weights, and
          those of `perceptual_loss`, `mr_dct_loss` and `mr_grad_loss` that have a weight, without
          it.

        Raises:
          ValueError: if the shapes differ or do not suit a term, or `lpips_params` is missing.
        """
        recon_loss = jnp.zeros(())
        terms: dict[str, tuple[float, Array]] = {}
        if self.mse_weight:
            recon_loss += self.mse_weight * mse(images, reconstruction)
        if self.l1_weight:
            recon_loss += self.l1_weight * l1(images, reconstruction)
        if self.perceptual_weight:
            if lpips_params is None:
                raise ValueError(
                    f"perceptual_weight {self.perceptual_weight} needs lpips_params, as from "
                    f"load_lpips({self.perceptual_net!r})."
                )
            distance = lpips_distance(
                lpips_params, images, reconstruction,
                net=self.perceptual_net, precision=self.perceptual_precision,
            )  # fmt: skip
            terms["perceptual_loss"] = self.perceptual_weight, jnp.mean(distance)
        if self.mr_dct_weight:
            distance = mr_dct_loss(images, reconstruction, levels=self.mr_dct_levels)
            terms["mr_dct_loss"] = self.mr_dct_weight, distance
        if self.mr_grad_weight:
            distance = mr_gradient_loss(images, reconstruction, levels=self.mr_grad_levels)
            terms["mr_grad_loss"] = self.mr_grad_weight, distance
        loss = recon_loss + sum(weight * term for weight, term in terms.values())
        return loss, {"recon_loss": recon_loss, **{name: term for name, (_, term) in terms.items()}}
