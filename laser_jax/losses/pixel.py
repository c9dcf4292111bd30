"""Pixel losses."""

import jax.numpy as jnp


def mse(images, reconstruction):
    """Returns the mean squared error of `(b, H, W, C)` images."""
    return jnp.mean(jnp.square(images - reconstruction))


def l1(images, reconstruction):
    """Returns the mean absolute error of `(b, H, W, C)` images."""
    return jnp.mean(jnp.abs(images - reconstruction))
