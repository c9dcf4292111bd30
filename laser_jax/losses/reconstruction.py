"""Pixel losses."""

import jax.numpy as jnp


def mse(images, reconstruction):
    """Returns the mean squared error of `(b, H, W, C)` images."""
    return jnp.mean(jnp.square(images - reconstruction))


def l1(images, reconstruction):
    """Returns the mean absolute error of `(b, H, W, C)` images."""
    return jnp.mean(jnp.abs(images - reconstruction))


def reconstruction_loss(images, reconstruction, *, mse_weight=1.0, l1_weight=0.0):
    """Returns the weighted pixel loss; a term of weight 0 is not computed.

    Args:
      images: `(b, H, W, C)` in [-1, 1].
      reconstruction: the same shape.
      mse_weight, l1_weight: nonnegative Python floats.
    """
    loss = jnp.zeros(())
    if mse_weight:
        loss += mse_weight * mse(images, reconstruction)
    if l1_weight:
        loss += l1_weight * l1(images, reconstruction)
    return loss
