"""digits: the 1,797 handwritten digits that ship inside scikit-learn, enlarged, with their classes.

A data set that needs no internet and trains in minutes. The digits are 8x8 in 17 grays; 13 people
wrote them. The splits are by image and do not hold out writers.
"""

import functools

import numpy as np
from PIL import Image

from laser_jax.data.source import DataUnavailable, ImageSource
from laser_jax.ranges import as_size

NUM_CLASSES = 10
SIZES = {"train": 1297, "validation": 200, "test": 300}  # in the order of a fixed shuffle


def open_digits(*, split, image_size, channels=3):
    """Returns the images of one split, white on black, enlarged by Pillow's bicubic.

    Args, Returns: as `laser_jax.data.open_source`.

    Raises:
      ValueError: if `image_size` is below 8.
      DataUnavailable: if scikit-learn is not installed.
    """
    if min(as_size(image_size)) < 8:
        raise ValueError(f"digits are at least 8 pixels, got image_size={image_size}.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataUnavailable(
            "digits ship inside scikit-learn: pip install scikit-learn"
        ) from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    end = np.cumsum(list(SIZES.values()))[list(SIZES).index(split)]
    rows = order[end - SIZES[split] : end]
    return ImageSource(
        name="digits",
        split=split,
        description=f"digits {split}: {len(rows)} of 1,797 of scikit-learn's digits; bicubic from "
        f"8x8 to {'x'.join(map(str, as_size(image_size)[::-1]))}",
        records=rows,
        load=functools.partial(_load, images, image_size=image_size, channels=channels),
        remember=True,
        label_of=labels.__getitem__,
        num_classes=NUM_CLASSES,
        class_names=tuple(map(str, range(NUM_CLASSES))),
    )


def _load(images, row, *, image_size, channels):
    gray = np.rint(images[row].reshape(8, 8) * (255 / 16)).astype(np.uint8)
    enlarged = Image.fromarray(gray).resize(as_size(image_size)[::-1], Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(enlarged)[..., None], channels, -1)
