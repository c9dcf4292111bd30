"""Losses: arrays `(b, H, W, C)` in [-1, 1] in, scalars out."""

from laser_jax.losses.reconstruction import l1, mse, reconstruction_loss

__all__ = ["l1", "mse", "reconstruction_loss"]
