"""Images by name: sources read at random, and batches made from them.

    source = open_source("photo_patches", split="train", image_size=32)
    for images in train_batches(source, batch_size=64, seed=0):
        ...  # uint8 (64, 32, 32, 3), endless

Images stay uint8 here; a model scales them inside jit.
"""

import logging

from laser_jax.data.batches import augment, eval_batches, shuffled_batches, train_batches
from laser_jax.data.digits import open_digits
from laser_jax.data.folder import SPLIT_RULE, open_folder
from laser_jax.data.images import CHANNELS
from laser_jax.data.source import SPLITS, DataUnavailable, EmptySplit, ImageSource
from laser_jax.data.tfds_sets import TFDS_SETS, open_tfds
from laser_jax.paths import resolve_data_dir
from laser_jax.ranges import as_size

__all__ = [
    "DATASETS",
    "SPLITS",
    "DataUnavailable",
    "EmptySplit",
    "ImageSource",
    "augment",
    "eval_batches",
    "num_classes",
    "open_source",
    "open_split",
    "prepare",
    "shuffled_batches",
    "train_batches",
]

log = logging.getLogger("laser_jax")

_FOLDER = "folder:"
DATASETS = (*TFDS_SETS, "digits", f"{_FOLDER}PATH")


def open_source(name, *, split, image_size, channels=3, data_dir=None, split_rule=SPLIT_RULE):
    """Returns the images of one split of a data set, which is prepared first if necessary.

    Args:
      name: one of `DATASETS`, or any image set of TFDS, such as `oxford_flowers102`; either with a
        version of TFDS, as in `imagenet2012:5.1.0`. `folder:PATH` reads the images under PATH.
      split: `train`, `validation` or `test`.
      image_size: side of the square images returned, in pixels, or (height, width).
        `photo_patches` and `cifar10` have 32 only.
      channels: 3 for RGB, 1 for gray (the luma of ITU-R 601).
      data_dir: directory of prepared sets; None is TFDS's own default
        (`~/tensorflow_datasets`, or `$TFDS_DATA_DIR`). Not used by folders.
      split_rule: version of the rule that divides a folder; see `laser_jax.data.folder`.

    Returns:
      An `ImageSource` of uint8 `(height, width, channels)` images.

    Raises:
      ValueError: if the name, the split, the size or the number of channels is not
        available.
      EmptySplit: a ValueError: if the set has no images of the split.
      DataUnavailable: if the set is not prepared and cannot be prepared.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}.")
    if min(as_size(image_size)) < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}.")
    if channels not in CHANNELS:
        raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels}.")
    shape = {"image_size": image_size, "channels": channels}
    if name.startswith(_FOLDER):
        return open_folder(name.removeprefix(_FOLDER), split=split, split_rule=split_rule, **shape)
    if name == "digits":
        return open_digits(split=split, **shape)
    return open_tfds(name, split=split, data_dir=resolve_data_dir(data_dir), **shape)


def num_classes(data):
    """Returns the number of classes of the data set of a config's `data`, 0 if it has none."""
    name = data.name.partition(":")[0]  # without a version of TFDS
    if name in TFDS_SETS:  # known without its files
        return TFDS_SETS[name].num_classes
    return open_split(data, "train").num_classes


def open_split(data, split):
    """Returns a split of the data set that a config's `data` describes; see `open_source`."""
    return open_source(
        data.name,
        split=split,
        image_size=data.image_size,
        channels=data.channels,
        data_dir=data.data_dir,
        split_rule=data.split_rule,
    )


def prepare(name, *, image_size, data_dir=None, split_rule=SPLIT_RULE):
    """Downloads and prepares a data set, and checks that its splits open; it may lack `test`.

    A set that is already prepared is only opened. In a folder every image is
    decoded once and the unreadable ones are named in the log.

    Args, Raises: as `open_source`.
    """
    for split in SPLITS:
        try:
            open_source(
                name, split=split, image_size=image_size, data_dir=data_dir, split_rule=split_rule
            )
        except EmptySplit as error:
            if split != "test":  # which training does not read
                raise
            log.warning("%s", error)
