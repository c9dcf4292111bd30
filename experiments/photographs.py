"""The images of the experiments: the photographs inside Python packages, or a data set."""

import numpy as np

from laser_jax.data import open_source
from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph
from laser_jax.models.bottlenecks.output import from_patches, to_patches


def photographs(split):
    """Returns the photographs of a split whole, name -> float32 `(H, W, 3)` in [0, 1]."""
    return {name: as_float(read_photograph(name)) for name in PHOTOGRAPHS[split]}


def pictures(name, split):
    """Returns a list of images `(H, W, 3)` in [0, 1]: the photographs of a split whole, or of a
    data set 200 images of 128x128 to learn from and 24 to test."""
    if name == "photographs":
        return list(photographs(split).values())
    count = 200 if split == "train" else 24
    return list(square_images(name, split=split, count=count, side=128))


def source_settings(name):
    """Returns the settings of a point that name its images; none for the photographs."""
    return {} if name == "photographs" else {"images": name}


def square_images(name, *, split, count, side, seed=0):
    """Returns `count` images, float32 `(count, side, side, 3)` in [0, 1].

    Args:
      name: "photographs" (crops at random places of the split's photographs, each as often),
        or a data set of `laser_jax.data` (its first images).
      split: train, validation or test.
      count: how many.
      side: pixels.
      seed: of the places.
    """
    if name != "photographs":
        source = open_source(name, split=split, image_size=side)
        if len(source) < count:
            raise ValueError(f"{name} {split} has {len(source)} images, {count} are wanted.")
        return as_float(np.stack([source[i] for i in range(count)]))
    rng, whole = np.random.default_rng(seed), list(photographs(split).values())
    crops = []
    for i in range(count):
        image = whole[i % len(whole)]
        top, left = (rng.integers(length - side + 1) for length in image.shape[:2])
        crops.append(image[top : top + side, left : left + side])
    return np.stack(crops)


def random_patches(images, patch_size, count, *, seed):
    """Returns `(count, p p C)` patches at random places of images `(H, W, C)`, in equal shares."""
    rng, found = np.random.default_rng(seed), []
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size, patch_size), (0, 1))
        rows, columns = (rng.integers(n, size=-(-count // len(images))) for n in windows.shape[:2])
        found.append(windows[rows, columns].transpose(0, 2, 3, 1))
    patches = rng.permutation(np.concatenate(found))[:count]
    return np.ascontiguousarray(patches.reshape(count, -1), np.float32)


def grid_patches(image, patch_size):
    """Returns the patches `(h, w, p p C)` of an image's grid; what the grid misses is cut off."""
    height, width = (length - length % patch_size for length in image.shape[:2])
    return np.asarray(to_patches(image[None, :height, :width], (patch_size, patch_size)))[0]


def from_grid(patches, patch_size):
    """The inverse of `grid_patches`: the image `(h p, w p, C)`."""
    return np.asarray(from_patches(patches[None], (patch_size, patch_size)))[0]


def middle(image, side):
    """Returns the square in the middle of an image `(H, W, ...)`, or what there is of it."""
    top, left = (max(0, length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def as_bytes(image):
    """Returns an image as uint8, cut to [0, 1]."""
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def as_float(image):
    """Returns a uint8 image as float32 in [0, 1]."""
    return np.float32(image) / 255
