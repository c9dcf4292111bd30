"""Overlapping patches of images, and images from such patches by averaging."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from laser_jax.checks import check_floats
from laser_jax.sparse.entry import entry


@entry(static=("patch_size", "stride"), like="images")
def extract_patches(
    images: Float[Array, "*batch H W C"], *, patch_size: int, stride: int = 1
) -> Float[Array, "*batch n width"]:
    """Returns the overlapping patches of images as rows, ready to be signals.

    Patches start at every multiple of the stride in rows and in columns. Where the last one would
    leave a border uncovered, one more patch ends at the border.

    Args:
      images: `(..., H, W, C)`, floats; a gray image has C = 1.
      patch_size: side p of a patch in pixels, at most H and W.
      stride: pixels between neighbouring patches, from 1 to the patch size.

    Returns:
      `(..., n, p p C)`: the patches row by row, each as its pixels row by row, channels last.

    Raises:
      ValueError: if the images have fewer than 3 axes or a value is out of range.
    """
    (images,) = check_floats(images=images)
    if images.ndim < 3:
        raise ValueError(
            f"images must have shape (..., H, W, C), got {images.shape}; add a channel axis to a "
            "gray image with image[..., None]."
        )
    rows, columns = _places(images.shape[-3:], patch_size, stride)
    patches = jnp.take(jnp.take(images, rows, axis=-3), columns, axis=-2)  # (..., y, p, x, p, C)
    n, width = len(rows) * len(columns), patch_size**2 * images.shape[-1]
    return jnp.swapaxes(patches, -4, -3).reshape(*images.shape[:-3], n, width)


@entry(static=("image_shape", "patch_size", "stride"), like="patches")
def average_patches(
    patches: Float[Array, "*batch n width"],
    image_shape: tuple[int, int, int],
    *,
    patch_size: int,
    stride: int = 1,
    weights: Real[Array, "*weighted"] | None = None,
) -> Float[Array, "*batch H W C"]:
    """Returns images, each pixel the weighted mean of its values in all patches.

    The inverse of `extract_patches`: `average_patches(extract_patches(images))` are the images.
    Among all images, this one is nearest to the patches in weighted squared error.

    Args:
      patches: `(..., n, p p C)`, in the order of `extract_patches`.
      image_shape: (H, W, C) of an image.
      patch_size, stride: as for `extract_patches`.
      weights: at least 0; `(..., n)`, one a patch, or `(..., n, p p C)`, one a value. A value of
        weight 0 is not read. All 1 by default.

    Returns:
      `(..., H, W, C)`; 0 where all weights are 0.

    Raises:
      ValueError: if shapes do not match or a value is out of range.
    """
    (patches,) = check_floats(patches=patches)
    if len(image_shape) != 3:
        raise ValueError(f"image_shape must be (H, W, C), got {image_shape}.")
    rows, columns = _places(image_shape, patch_size, stride)
    n, width = len(rows) * len(columns), patch_size**2 * image_shape[2]
    if patches.shape[-2:] != (n, width):
        raise ValueError(
            f"an image {image_shape} with patch_size {patch_size}, stride {stride} has patches of "
            f"shape (..., {n}, {width}), got {patches.shape}."
        )
    if weights is None:
        counts = [np.bincount(places.ravel()) for places in (rows, columns)]
        image = _add_up(patches, rows, columns)
        total = jnp.asarray(np.multiply.outer(*counts)[..., None], image.dtype)
        return image / jnp.broadcast_to(total, image.shape)
    weights = _weights(weights, patches)
    weighted = jnp.where(weights == 0, 0, weights * jnp.where(weights == 0, 0, patches))
    total = _add_up(weights, rows, columns)
    return _add_up(weighted, rows, columns) / jnp.where(total == 0, 1, total)


def _weights(weights, patches):
    """The weights in the shape and type of the patches."""
    weights = jnp.asarray(weights)
    if weights.shape == patches.shape[:-1]:
        weights = weights[..., None]
    if weights.shape[:-1] != patches.shape[:-1] or weights.shape[-1] not in (1, patches.shape[-1]):
        raise ValueError(
            f"weights must have shape {patches.shape[:-1]} or {patches.shape}, got {weights.shape}."
        )
    return jnp.broadcast_to(weights.astype(patches.dtype), patches.shape)


def _add_up(patches, rows, columns):
    """The sum of all patches, each at its place, `(..., H, W, C)`."""
    (y, p), x, leading = rows.shape, len(columns), patches.shape[:-2]
    height, width = rows.max() + 1, columns.max() + 1
    pixels = patches.reshape(*leading, y, x, p, p, patches.shape[-1] // p**2)
    # The axis to add along comes first: each index then adds one contiguous row.
    by_column = jnp.moveaxis(pixels, (-4, -2), (0, 1)).reshape(
        x * p, *leading, y, p, pixels.shape[-1]
    )
    strips = jnp.zeros((width, *by_column.shape[1:]), patches.dtype)
    strips = strips.at[columns.ravel()].add(by_column)
    by_row = jnp.moveaxis(strips, (-3, -2), (0, 1)).reshape(
        y * p, width, *leading, pixels.shape[-1]
    )
    image = jnp.zeros((height, *by_row.shape[1:]), patches.dtype).at[rows.ravel()].add(by_row)
    return jnp.moveaxis(image, (0, 1), (-3, -2))


def _places(image_shape, patch_size, stride):
    """The pixels of each patch, in rows `(y, p)` and in columns `(x, p)`."""
    if not 1 <= patch_size <= min(image_shape[:2]):
        raise ValueError(
            f"patch_size must be from 1 to the sides of the image {tuple(image_shape)}, got "
            f"{patch_size}."
        )
    if not 1 <= stride <= patch_size:
        raise ValueError(
            f"stride must be from 1 to patch_size {patch_size}, got {stride}; a larger one leaves "
            "pixels out."
        )
    found = []
    for length in image_shape[:2]:
        last = length - patch_size
        starts = np.minimum(stride * np.arange(1 + math.ceil(last / stride)), last)
        found.append(starts[:, None] + np.arange(patch_size))
    return found
