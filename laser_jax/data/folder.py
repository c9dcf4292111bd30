"""folder:PATH, a data set made of the images under a directory."""

import concurrent.futures
import functools
import hashlib
import logging
import os
from pathlib import Path

from laser_jax.data.images import DESCRIBED, load_square
from laser_jax.data.source import ImageSource

log = logging.getLogger("laser_jax")

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")


def open_folder(path, *, split, image_size, channels=3):
    """Returns the images of one split of a folder, subfolders included.

    A file belongs to train (90%), validation (5%) or test (5%) by a hash of its
    name relative to the folder: adding files moves none. Every file of the split is
    decoded once here; those that cannot be are named in the log and left out.

    Args:
      path: directory of JPEG, PNG and WebP files.
      split: `train`, `validation` or `test`.
      image_size: side in pixels; smaller images are enlarged to it.
      channels: 3 for RGB, 1 for gray.

    Returns:
      An `ImageSource` in the order of the sorted names.

    Raises:
      ValueError: if `path` is no directory or leaves the split without images.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"folder {root} is not a directory.")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in EXTENSIONS and f.is_file())
    mine = [file for file in files if split_of(file.relative_to(root).as_posix()) == split]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = list(pool.map(functools.partial(_fault, image_size=image_size), mine))
    readable = [file for file, fault in zip(mine, faults, strict=True) if fault is None]
    for file, fault in zip(mine, faults, strict=True):
        if fault is not None:
            log.warning("skipping unreadable image %s: %r", file, fault)

    counts = (
        f"{len(readable)} of {len(files)} files by hash of name, "
        f"{len(mine) - len(readable)} unreadable left out"
    )
    if not readable:
        raise ValueError(f"too few images for {split} in folder {root}: {counts}.")
    log.info("folder %s %s: %s", root, split, counts)
    return ImageSource(
        name=f"folder:{path}",
        split=split,
        description=(
            f"folder:{path} {split}: {counts}; centre square, bicubic to {image_size}x{image_size}"
            f"{DESCRIBED[channels]}"
        ),
        records=readable,
        load=functools.partial(_load, image_size=image_size, channels=channels),
    )


def split_of(name):
    """Returns the split of a file, by its name relative to the folder."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    return "train" if percent < 90 else "validation" if percent < 95 else "test"


def _fault(file, image_size):
    """Returns what is wrong with an image, or None."""
    try:
        load_square(file, image_size)
    except Exception as error:  # Pillow's decoders raise many kinds for broken files
        return error
    return None


def _load(file, image_size, channels):
    try:
        return load_square(file, image_size, channels)
    except Exception as error:
        raise OSError(f"image {file} was readable at the start and is not now: {error}") from error
