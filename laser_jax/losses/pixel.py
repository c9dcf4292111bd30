"""Pixel losses."""

import jax.numpy as jnp

from laser_jax.checks import check_pair


def mse(images, reconstruction):
    """Returns the mean squared error of `(b, H, W, C)` images."""
    images, reconstruction = check_pair(images=images, reconstruction=reconstruction)
    return jnp.mean(jnp.square(images - reconstruction))


def l1(images, reconstruction):
    """Returns the mean absolute error of `(b, H, W, C)` images."""
    images, reconstruction = check_pair(images=images, reconstruction=reconstruction)
    return jnp.mean(jnp.abs(images - reconstruction))
