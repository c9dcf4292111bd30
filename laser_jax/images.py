"""Image ranges: uint8 or float in [0, 1] outside, [-1, 1] inside the network and the losses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, UInt8

from laser_jax.checks import check_floating, check_floats

# Images at every public entry: uint8, or floating point in [0, 1].
Images = UInt8[ArrayLike, "b H W C"] | Float[ArrayLike, "b H W C"]


def check_images(**images: Any) -> None:
    """Checks that images are uint8, or floats in [0, 1]. Inside jit it cannot check the values.

    Raises:
      ValueError: if an array has another type, or a value that is out of range or NaN.
    """
    for name, x in images.items():
        x = x if isinstance(x, jax.Array) else np.asarray(x)
        if x.dtype == jnp.uint8:
            continue
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be uint8 or floating point, got {x.dtype}.")
        if isinstance(x, jax.core.Tracer) or x.size == 0:
            continue
        low, high = float(x.min()), float(x.max())
        if not (0 <= low and high <= 1):
            raise ValueError(
                f"{name} must be uint8 or float in [0, 1], got {x.dtype} in [{low}, {high}]."
            )


def check_picture(image: Any, channels: int) -> np.ndarray:
    """Returns one image `(H, W, channels)`, uint8 or in [0, 1], as an array.

    Raises:
      ValueError: if it has another shape or is empty, or as `check_images`.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != channels or image.size == 0:
        raise ValueError(
            f"an image must have shape (H, W, {channels}) and not be empty, got {image.shape}."
        )
    check_images(images=image[None])
    return image


def as_unit(**images: Any) -> list[Array]:
    """Returns images, uint8 or in [0, 1], as floats in [0, 1] of one type, at least float32.

    Raises:
      ValueError: as `check_images`.
    """
    check_images(**images)
    arrays = {name: jnp.asarray(x) for name, x in images.items()}
    for name, x in arrays.items():
        if x.dtype == jnp.uint8:
            arrays[name] = x.astype(jnp.float32) / 255
    return check_floats(**arrays)


def to_network(images: ArrayLike) -> Float[Array, "*shape"]:
    """Returns uint8 images, or floats in [0, 1], as float32 in [-1, 1]."""
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be uint8 or floating point, got {images.dtype}.")
    scale = 255 if images.dtype == jnp.uint8 else 1
    return images.astype(jnp.float32) * (2 / scale) - 1


def to_bytes(images: Float[ArrayLike, "*shape"]) -> UInt8[Array, "*shape"]:
    """Returns network images as uint8, rounded as in an image file."""
    return jnp.round(255 * to_unit(images)).astype(jnp.uint8)


def to_unit(images: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Returns network images as floats in [0, 1], clipped."""
    check_floating(images=images)
    return jnp.clip((images + 1) / 2, 0, 1)


def extended(image: np.ndarray, multiple: tuple[int, int]) -> np.ndarray:
    """Returns an image `(H, W, C)` with its sides extended by reflection to multiples."""
    padding = [(0, -n % each) for n, each in zip(image.shape[:2], multiple, strict=True)]
    return np.pad(image, (*padding, (0, 0)), mode="symmetric")
