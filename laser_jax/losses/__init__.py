"""Losses: arrays `(b, H, W, C)` in [-1, 1] in, scalars out."""

from laser_jax.losses.adversarial import discriminator_hinge_loss, generator_hinge_loss
from laser_jax.losses.image import ImageLoss
from laser_jax.losses.multiresolution import mr_dct_loss, mr_gradient_loss
from laser_jax.losses.pixel import l1, mse
from laser_jax.sparse.penalties import coefficient_l1, coefficient_rate, coherence_penalty

__all__ = [
    "ImageLoss",
    "coefficient_l1",
    "coefficient_rate",
    "coherence_penalty",
    "discriminator_hinge_loss",
    "generator_hinge_loss",
    "l1",
    "mr_dct_loss",
    "mr_gradient_loss",
    "mse",
]
