"""Losses over a pyramid of images, each level half the size of the level before.

They weigh fine structure and edges at several scales more than pixel losses do. The transforms are
linear, so the pyramid is that of the difference of the images.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from laser_jax.checks import check_pair


def mr_dct_loss(
    images: Float[ArrayLike, "b H W C"],
    reconstruction: Float[ArrayLike, "b H W C"],
    *,
    levels: int = 3,
) -> Float[Array, ""]:
    """Returns the multi-resolution distance of 2-D DCT coefficients.

    This is the mean over levels of mean |w(u, v) DCT(difference)(u, v)|. The DCT is orthonormal
    over the whole image. The weights w(u, v) = 1 + u / H + v / W count the highest frequencies
    three times as much as the lowest. Without weights a squared error would equal that of the
    pixels (Parseval), so the loss takes absolute values.

    Args:
      images, reconstruction: `(b, H, W, C)` in [-1, 1].
      levels: number of images in the pyramid, the first at full size.

    Raises:
      ValueError: if the shapes differ, or the last level would have a side below 2.
    """

    def distance(difference: Array) -> Array:
        height, width = difference.shape[1:3]
        rows, columns = _dct_matrix(height), _dct_matrix(width)
        coefficients = jnp.einsum(
            "uh,bhwc,vw->buvc", rows, difference, columns, precision=lax.Precision.HIGHEST
        )
        u, v = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
        weights = (1 + u + v).astype(np.float32)
        return jnp.mean(jnp.abs(weights[None, :, :, None] * coefficients))

    return _mean_over_pyramid(distance, images, reconstruction, levels)


def mr_gradient_loss(
    images: Float[ArrayLike, "b H W C"],
    reconstruction: Float[ArrayLike, "b H W C"],
    *,
    levels: int = 3,
) -> Float[Array, ""]:
    """Returns the multi-resolution distance of image gradients.

    This is the mean over levels of the mean absolute difference of the gradients, which are
    differences of neighbouring pixels along rows and along columns.

    Args, Raises: as for `mr_dct_loss`.
    """

    def distance(difference: Array) -> Array:
        rows, columns = (jnp.mean(jnp.abs(jnp.diff(difference, axis=axis))) for axis in (1, 2))
        return (rows + columns) / 2

    return _mean_over_pyramid(distance, images, reconstruction, levels)


def _mean_over_pyramid(
    distance: Callable[[Array], Array], images: ArrayLike, reconstruction: ArrayLike, levels: int
) -> Array:
    images, reconstruction = check_pair(images=images, reconstruction=reconstruction, ndim=4)
    if levels < 1 or min(images.shape[1:3]) < 2**levels:
        raise ValueError(
            f"levels must be at least 1, and 2^levels at most the images' smaller side: got "
            f"{levels} levels for {images.shape[1]}x{images.shape[2]}."
        )
    pyramid = [images - reconstruction]
    for _ in range(levels - 1):
        pyramid.append(_halve(pyramid[-1]))
    return jnp.mean(jnp.stack([distance(difference) for difference in pyramid]))


def _halve(images):
    """Averages 2x2 pixels, without an odd last row or column."""
    b, height, width, channels = images.shape
    height, width = height // 2, width // 2
    images = images[:, : 2 * height, : 2 * width]
    return images.reshape(b, height, 2, width, 2, channels).mean(axis=(2, 4))


def _dct_matrix(size):
    """Returns the orthonormal DCT-II `(size, size)`: row u is the cosine of frequency u."""
    u, x = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (x + 0.5) * u / size)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)
