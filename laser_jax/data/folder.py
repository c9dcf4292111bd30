"""folder:PATH, the images under a directory as a data set."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import PIL
from PIL import Image, ImageOps

from laser_jax.data.images import DESCRIBED, FORMATS, describe_crop, load_image, load_square
from laser_jax.data.index import find_faults
from laser_jax.data.scan import Scan, folder_split, is_split_folder, normal_name, scan
from laser_jax.data.source import EmptySplit, ImageSource
from laser_jax.paths import resolve_path

log = logging.getLogger("laser_jax")

# How images are found and divided. A stored run keeps its rule.
#   1: files of four suffixes, in hidden folders too, links to folders ignored; the split is a
#      hash of the name's bytes. Of commit c548257 and before.
#   2: `scan`; the split is the one that a folder is named for, or a hash of the name in NFC.
#   3: as 2; of 20 files or more the hash leaves no split empty.
SPLIT_RULES = (1, 2, 3)
SPLIT_RULE = SPLIT_RULES[-1]

_BY_HASH = "hash of name"
_DECODER = 2  # raise it when `load_square` accepts other files than before
_HELD_OUT = ("validation", "test")
_SHARE = 20  # a held-out split is one file in so many
_MOST_LINES = 100  # in the log, about the files of a split


def open_folder(path, *, split, image_size, channels=3, split_rule=SPLIT_RULE):
    """Returns the images of one split of a folder, subfolders included.

    Folders named `train`, `val`, `validation`, `valid` and `test`, in any case and at any
    depth, are the splits, unless `train` is the only one of them. A file outside of them belongs
    to train (90%), validation (5%) or test (5%) by a hash of its name relative to `path`:
    adding files moves none. If the hash leaves validation or test empty and there are at least 20
    files, 5% of them are taken from train; adding files to so small a folder may change which.

    If every file is in a folder that is not a split, and there are two or more of them, the
    topmost one on its path is the file's class: `PATH/train/cat/1.jpg` and `PATH/cat/1.jpg` are of
    class `cat`. Classes are numbered in the order of their names.

    Images are decoded when they are read. Files that cannot be decoded are found once, named in
    the log and left out; `laser_jax.data.index` remembers them.

    Args:
      path: directory of JPEG, PNG and WebP files.
      split: `train`, `validation` or `test`.
      image_size: side in pixels, or (height, width); smaller images are enlarged to it.
      channels: 3 for RGB, 1 for gray.
      split_rule: one of `SPLIT_RULES`.

    Returns:
      An `ImageSource` in the order of the sorted names.

    Raises:
      ValueError: if `path` is no directory.
      EmptySplit: if it has no image of the split.
    """
    root = resolve_path(path, "folder:")
    if not root.is_dir():
        raise ValueError(
            f"folder {root} is not a directory. If the images were moved, set their new place "
            "with --config.data.name=folder:PATH."
        )
    if split_rule not in SPLIT_RULES:
        raise ValueError(f"split_rule must be one of {SPLIT_RULES}, got {split_rule}.")
    found = scan(root) if split_rule > 1 else _scan_by_rule_1(root)
    splits, how = _split_all(found.files, split_rule)
    mine = [name for name, its_split in splits.items() if its_split == split]

    check = functools.partial(_check if split_rule > 1 else _check_by_rule_1, root)
    # Rule 3 takes the files of rule 2: what is known of them stays.
    version = f"rule {min(split_rule, 2)}, decoder {_DECODER}, Pillow {PIL.__version__}"
    faults = find_faults(root, found.files, mine, check, version)
    _warn(f"skipping {problem}" for problem in found.problems)
    _warn(f"skipping unreadable image {root / name}: {fault}" for name, fault in faults.items())
    readable = _Paths(root, [name for name in mine if name not in faults])

    counts = (
        f"{len(readable)} of {len(found.files)} files by {how}, "
        f"{len(faults)} unreadable left out{found.left_out()}"
    )
    if not readable:
        remedy = f"To have some, name a folder {split!r}"
        if split == "test":
            remedy += ", or evaluate another split with --config.eval.split=validation"
        raise EmptySplit(f"too few images for {split} in folder {root}: {counts}. {remedy}.")
    log.info("folder %s %s: %s", root, split, counts)
    how_loaded = f"{describe_crop(image_size)}{DESCRIBED[channels]}"
    classes = _Classes.of(root, splits, by_folder=how != _BY_HASH)
    return ImageSource(
        name=f"folder:{path}",
        split=split,
        description=f"folder:{path} {split}: {counts}; {how_loaded}",
        records=readable,
        load=functools.partial(_load, image_size=image_size, channels=channels),
        load_whole=functools.partial(_load_whole, channels=channels),
        label_of=classes,
        num_classes=len(classes.numbers) if classes else 0,
        class_names=tuple(classes.numbers) if classes else (),
    )


def split_of(name):
    """Returns the split of a file by the hash of its name, relative to the folder."""
    return _hash_split(normal_name(name))


def _hash_split(name):
    percent = int.from_bytes(_digest(name)[:8], "big") % 100
    return "train" if percent < 90 else "validation" if percent < 95 else "test"


def _digest(name):
    return hashlib.sha256(os.fsencode(name)).digest()


def _split_all(names, split_rule):
    """Returns name -> split, and how they were divided."""
    if split_rule == 1:
        return {name: _hash_split(name) for name in names}, _BY_HASH
    named = {name: folder_split(name) for name in names}
    # A `train` alone does not define held-out splits: it may be a class.
    if not set(_HELD_OUT) & set(named.values()):
        splits = {name: split_of(name) for name in names}
        filled = splits if split_rule == 2 else _filled(splits)
        return filled, _BY_HASH if filled == splits else f"{_BY_HASH}, empty splits filled"
    how = "folder" if all(named.values()) else "folder, or hash of name outside of split folders"
    return {name: split or split_of(name) for name, split in named.items()}, how


def _filled(splits):
    """Returns name -> split with images of `train` in the held-out splits that have none."""
    empty = [split for split in _HELD_OUT if split not in splits.values()]
    number = len(splits) // _SHARE
    if not empty or not number:
        return splits
    train = [name for name, split in splits.items() if split == "train"]
    last = sorted(train, key=lambda name: _digest(normal_name(name)))[-number * len(empty) :]
    return splits | {name: empty[i % len(empty)] for i, name in enumerate(last)}


@dataclasses.dataclass(frozen=True)
class _Classes:
    """The classes of a folder: the topmost folder of each file that is not a split."""

    root: Path
    numbers: dict[str, int]
    by_folder: bool  # whether folders are splits

    @classmethod
    def of(cls, root, names, by_folder):
        """Returns the classes of all files; None if some have none, or all have the same."""
        classes = cls(root, {}, by_folder)
        found = {classes.folder(name) for name in names}
        if None in found or len(found) < 2:
            return None
        classes.numbers.update({folder: number for number, folder in enumerate(sorted(found))})
        return classes

    def folder(self, name):
        folders = name.split("/")[:-1]
        return next((f for f in folders if not (self.by_folder and is_split_folder(f))), None)

    def __call__(self, path):
        return self.numbers[self.folder(path.relative_to(self.root).as_posix())]


def _check(root, name):
    load_square(root / name, 1, reduced=True)


def _scan_by_rule_1(root):
    suffixes = (".jpg", ".jpeg", ".png", ".webp")
    files = sorted(f for f in root.rglob("*") if f.suffix.lower() in suffixes and f.is_file())
    stats = ((file.relative_to(root).as_posix(), file.stat()) for file in files)
    return Scan({name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats})


def _check_by_rule_1(root, name):
    """Raises for files that rule 1 could not read, though they can be read now."""
    with Image.open(root / name, formats=FORMATS) as image:
        ImageOps.exif_transpose(image).load()


def _warn(lines):
    lines = list(lines)
    for line in itertools.islice(lines, _MOST_LINES):
        log.warning("%s", line)
    if len(lines) > _MOST_LINES:
        log.warning("... and %d more", len(lines) - _MOST_LINES)


@dataclasses.dataclass(frozen=True)
class _Paths(Sequence):
    """Paths made from names on access: a million of them take a gigabyte."""

    root: Path
    names: list[str]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        return self.root / self.names[index]


def _load(file, image_size, channels):
    with _readable(file):
        return load_square(file, image_size, channels)


def _load_whole(file, channels):
    with _readable(file):
        return load_image(file, channels)


@contextlib.contextmanager
def _readable(file):
    try:
        yield
    except Exception as error:
        raise OSError(f"image {file} was readable at the start and is not now: {error}") from error
