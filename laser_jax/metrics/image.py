"""Image quality: PSNR and SSIM of images in [0, 1]."""

import dm_pix
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from laser_jax.checks import is_real
from laser_jax.images import Images, as_unit


def psnr(a: Images, b: Images) -> Float[Array, " b"]:
    """Returns the peak signal-to-noise ratio of each pair of images, in dB.

    Args:
      a, b: `(b, H, W, C)`, uint8 or float in [0, 1].

    Returns:
      `(b,)`; 10 log10(1 / MSE), at most 100, so that means over equal images stay finite.

    Raises:
      ValueError: if the shapes differ, the images have no pixel, or their values have another type
        or range (inside jit the range is not checked).
    """
    a, b = _check_images(a, b)
    return squared_error_to_psnr(jnp.mean(jnp.square(a - b), axis=(1, 2, 3)))


def squared_error_to_psnr(mse: ArrayLike) -> Float[Array, "..."]:
    """Returns the PSNR in dB of a mean squared error of [0, 1] values, at most 100."""
    mse = jnp.asarray(mse)
    if not is_real(mse.dtype):
        raise ValueError(f"mse must be a real number, got {mse.dtype}.")
    mse = mse.astype(jnp.promote_types(mse.dtype, jnp.float32))  # float16 has no 1e-10
    return -10 * jnp.log10(jnp.maximum(mse, 1e-10))


def ssim(a: Images, b: Images) -> Float[Array, " b"]:
    """Returns the structural similarity (SSIM) of each pair of images.

    The window is Gaussian, 11 pixels wide, with sigma 1.5. The result is the mean over channels
    and over the pixels whose window lies inside the image.

    Args:
      a, b: `(b, H, W, C)`, uint8 or float in [0, 1], H and W at least 11.

    Returns:
      `(b,)` in [-1, 1].

    Raises:
      ValueError: as `psnr`, or if the images are smaller than the window.

    References:
      Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error
      visibility to structural similarity, 2004.
    """
    a, b = _check_images(a, b)
    if min(a.shape[1:3]) < 11:
        raise ValueError(f"SSIM needs images of at least 11x11 pixels, got {a.shape[1:3]}.")
    return dm_pix.ssim(a, b) if len(a) else jnp.zeros(0, a.dtype)


def _check_images(a: Images, b: Images) -> tuple[Array, Array]:
    """Returns two batches `(b, H, W, C)` of the same shape as floats; b may be 0."""
    a, b = as_unit(a=a, b=b)
    if a.shape != b.shape or a.ndim != 4 or 0 in a.shape[1:]:
        raise ValueError(
            f"images must have one shape (b, H, W, C) and at least one pixel, got {a.shape} and "
            f"{b.shape}."
        )
    return a, b
