"""Image ranges: uint8 or float in [0, 1] outside, [-1, 1] inside the network and the losses."""

import jax.numpy as jnp

from laser_jax.sparse.checks import check_floating


def to_network(images):
    """Returns uint8 images, or floats in [0, 1], as float32 in [-1, 1]."""
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}.")
    scale = 255 if images.dtype == jnp.uint8 else 1
    return images.astype(jnp.float32) * (2 / scale) - 1


def to_unit(images):
    """Returns network images as floats in [0, 1], clipped."""
    check_floating(images=images)
    return jnp.clip((images + 1) / 2, 0, 1)
