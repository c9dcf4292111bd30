"""Pixel losses."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from laser_jax.checks import check_pair


def mse(
    images: Float[ArrayLike, "*shape"], reconstruction: Float[ArrayLike, "*shape"]
) -> Float[Array, ""]:
    """Returns the mean squared error of images `(b, H, W, C)`."""
    images, reconstruction = check_pair(images=images, reconstruction=reconstruction)
    return jnp.mean(jnp.square(images - reconstruction))


def l1(
    images: Float[ArrayLike, "*shape"], reconstruction: Float[ArrayLike, "*shape"]
) -> Float[Array, ""]:
    """Returns the mean absolute error of images `(b, H, W, C)`."""
    images, reconstruction = check_pair(images=images, reconstruction=reconstruction)
    return jnp.mean(jnp.abs(images - reconstruction))
