"""Losses over a pyramid of images, each level half the size of the one before.

They look at what pixel losses weigh least: fine structure and edges, small and large.
Both are linear in the images, so the pyramid is that of the difference.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from laser_jax.checks import check_pair


def mr_dct_loss(images, reconstruction, *, levels=3):
    """Returns the multi-resolution distance of 2-D DCT coefficients.

    Mean over levels of mean |w(u, v) DCT(difference)(u, v)|, the DCT orthonormal over the whole
    image, w(u, v) = 1 + u / H + v / W: the highest frequencies count three times the mean. An
    absolute value, because squared the transform would change nothing (Parseval).

    Args:
      images, reconstruction: `(b, H, W, C)` in [-1, 1].
      levels: images in the pyramid, the first at full size.

    Raises:
      ValueError: if the shapes differ, or the last level would have a side below 2.
    """

    def distance(difference):
        height, width = difference.shape[1:3]
        rows, columns = _dct_matrix(height), _dct_matrix(width)
        coefficients = jnp.einsum(
            "uh,bhwc,vw->buvc", rows, difference, columns, precision=lax.Precision.HIGHEST
        )
        u, v = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
        weights = (1 + u + v).astype(np.float32)
        return jnp.mean(jnp.abs(weights[None, :, :, None] * coefficients))

    return _mean_over_pyramid(distance, images, reconstruction, levels)


def mr_gradient_loss(images, reconstruction, *, levels=3):
    """Returns the multi-resolution distance of image gradients.

    Mean over levels of the mean absolute difference of the gradients, which are differences of
    neighbouring pixels along rows and along columns.

    Args, Raises: as for `mr_dct_loss`.
    """

    def distance(difference):
        edges = (jnp.diff(difference, axis=axis) for axis in (1, 2))
        return sum(jnp.mean(jnp.abs(edge)) for edge in edges) / 2

    return _mean_over_pyramid(distance, images, reconstruction, levels)


def _mean_over_pyramid(distance, images, reconstruction, levels):
    images, reconstruction = check_pair(images=images, reconstruction=reconstruction, ndim=4)
    if levels < 1 or min(images.shape[1:3]) < 2**levels:
        raise ValueError(
            f"levels must be at least 1, and 2^levels at most the images' smaller side: got "
            f"{levels} levels for {images.shape[1]}x{images.shape[2]}."
        )
    difference, total = images - reconstruction, 0.0
    for level in range(levels):
        if level:
            difference = _halve(difference)
        total += distance(difference)
    return total / levels


def _halve(images):
    """Averages of 2x2 pixels; an odd last row or column is left out."""
    b, height, width, channels = images.shape
    height, width = height // 2, width // 2
    images = images[:, : 2 * height, : 2 * width]
    return images.reshape(b, height, 2, width, 2, channels).mean(axis=(2, 4))


def _dct_matrix(size):
    """The orthonormal DCT-II, `(size, size)`: row u is the cosine of frequency u."""
    u, x = np.arange(size)[:, None], np.arange(size)[None, :]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (x + 0.5) * u / size)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)
