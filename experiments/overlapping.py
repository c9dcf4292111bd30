"""All patches of a gray image, the mean of what they say of a pixel, a dictionary of patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.photographs import middle, photographs, random_patches, square_images
from laser_jax.sparse import fit_dictionary

PATCH = 8

GRAY = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601's luma


def overlapping_patches(image, patch_size):
    """Returns the patches `(H - p + 1, W - p + 1, p p)` at every place of an image `(H, W)`."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size))
    return windows.reshape(*windows.shape[:2], -1)


def average(patches, image, *, weight, votes=1):
    """Returns the image `(H, W)` that is nearest to all patches, and `weight` times to `image`.

    The closed form of Elad and Aharon 2006, equation 12.

    Args:
      patches: `(H - p + 1, W - p + 1, p p)`.
      image: `(H, W)`.
      weight: of the image beside a patch, a number or `(H, W)`.
      votes: of each patch, a number or `(H - p + 1, W - p + 1)`.
    """
    h, w = patches.shape[:2]
    p = image.shape[0] - h + 1
    total, count = np.float64(image) * weight, np.zeros(image.shape) + weight
    for i, j in np.ndindex(p, p):
        total[i : i + h, j : j + w] += votes * patches[..., i * p + j]
        count[i : i + h, j : j + w] += votes
    return np.float32(total / count)


def gray_images(source, split, side):
    """Returns name -> gray image `(side, side)` in [0, 1]: the middles of whole photographs, or
    images of a data set; of the test photographs also scikit-image's camera."""
    if source != "photographs":
        images = square_images(source, split=split, count=3, side=side)
        return {f"{source} {i}": image @ GRAY for i, image in enumerate(images)}
    whole = {name: image @ GRAY for name, image in photographs(split).items()}
    if split == "test":
        import skimage.data

        whole["camera"] = np.float32(skimage.data.camera()) / 255
    return {name: middle(image, side) for name, image in whole.items()}


def training_patches(source, patch_size, count, *, seed):
    """Returns `(count, p p)` patches of the gray training images, their means taken away."""
    images = [image[..., None] for image in gray_images(source, "train", 512).values()]
    patches = random_patches(images, patch_size, count, seed=seed)
    return patches - patches.mean(-1, keepdims=True)


@functools.cache
def training_dictionary(source, size, sparsity):
    """Returns a K-SVD dictionary of whole training patches, as wide as `PATCH`.

    Args:
      source: of the images.
      size: has frequencies (their square is the number of atoms), patches and iterations.
      sparsity: atoms a patch while it learns.
    """
    patches = training_patches(source, PATCH, size.patches, seed=0)
    return fit_dictionary(
        jnp.asarray(patches), num_atoms=size.frequencies**2, sparsity=sparsity,
        method="approximate", iterations=size.iterations, key=jax.random.key(0),
    ).dictionary  # fmt: skip
