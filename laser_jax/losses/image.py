"""The image loss of a run: a weighted sum of terms, those of weight 0 left out."""

import dataclasses

import jax.numpy as jnp

from laser_jax.losses.multiresolution import mr_dct_loss, mr_gradient_loss
from laser_jax.losses.pixel import l1, mse
from laser_jax.pretrained import lpips_distance
from laser_jax.pretrained.lpips import PRECISIONS, TRUNKS
from laser_jax.ranges import LEVELS, WEIGHT, Choice, check_settings, setting


@dataclasses.dataclass(frozen=True)
class ImageLoss:
    """The loss of reconstructions, images in [-1, 1].

        loss, terms = ImageLoss(mse_weight=1.0, mr_dct_weight=0.1)(images, reconstruction)

    Attributes:
      mse_weight, l1_weight: weights of the pixel losses; together `recon_loss`.
      perceptual_weight: weight of LPIPS, which then needs `load_lpips(perceptual_net)`.
      perceptual_net: "alex" or "vgg".
      perceptual_precision: "highest" or "default", of the products in LPIPS; see
        `lpips_distance`.
      mr_dct_weight, mr_dct_levels: `mr_dct_loss` and the images in its pyramid.
      mr_grad_weight, mr_grad_levels: `mr_gradient_loss` and the same.
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

    def __call__(self, images, reconstruction, lpips_params=None):
        """Returns the loss and its terms.

        Args:
          images, reconstruction: `(b, H, W, C)` in [-1, 1].
          lpips_params: from `load_lpips`; needed if `perceptual_weight` is above 0.

        Returns:
          A scalar, and a dict of scalars: `recon_loss` with its weights, the others
          (`perceptual_loss`, `mr_dct_loss`, `mr_grad_loss`) without, where they have one.
        """
        recon_loss, terms = jnp.zeros(()), {}
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
