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
from laser_jax.data.source import ImageSource
from laser_jax.paths import resolve_path

log = logging.getLogger("laser_jax")

# How images are found and divided. A stored run keeps its rule.
#   1: files of four suffixes, in hidden folders too, links to folders ignored; the split is a
#      hash of the name's bytes. Of commit c548257 and before.
#   2: `scan`; the split is the one that a folder is named for, or a hash of the name in NFC.
SPLIT_RULES = (1, 2)
SPLIT_RULE = SPLIT_RULES[-1]

_BY_HASH = "hash of name"
_DECODER = 2  # raise it when `load_square` accepts other files than before
_MOST_LINES = 100  # in the log, about the files of a split


def open_folder(path, *, split, image_size, channels=3, split_rule=SPLIT_RULE):
    """Returns the images of one split of a folder, subfolders included.

    Folders named `train`, `val`, `validation`, `valid` and `test`, in any case and at any
    depth, are the splits, unless `train` is the only one of them. A file outside of them belongs
    to train (90%), validation (5%) or test (5%) by a hash of its name relative to `path`:
    adding files moves none.

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
      ValueError: if `path` is no directory or leaves the split without images.
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
    version = f"rule {split_rule}, decoder {_DECODER}, Pillow {PIL.__version__}"
    faults = find_faults(root, found.files, mine, check, version)
    _warn(f"skipping {problem}" for problem in found.problems)
    _warn(f"skipping unreadable image {root / name}: {fault}" for name, fault in faults.items())
    readable = _Paths(root, [name for name in mine if name not in faults])

    counts = (
        f"{len(readable)} of {len(found.files)} files by {how}, "
        f"{len(faults)} unreadable left out{found.left_out()}"
    )
    if not readable:
        remedy = "" if how == _BY_HASH else f" To have some, name a folder {split!r}."
        raise ValueError(f"too few images for {split} in folder {root}: {counts}.{remedy}")
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
    )


def split_of(name):
    """Returns the split of a file by the hash of its name, relative to the folder."""
    return _hash_split(normal_name(name))


def _hash_split(name):
    digest = hashlib.sha256(os.fsencode(name)).digest()
    percent = int.from_bytes(digest[:8], "big") % 100
    return "train" if percent < 90 else "validation" if percent < 95 else "test"


def _split_all(names, split_rule):
    """Returns name -> split, and how they were divided."""
    if split_rule == 1:
        return {name: _hash_split(name) for name in names}, _BY_HASH
    named = {name: folder_split(name) for name in names}
    # A `train` alone does not define held-out splits: it may be a class.
    if not {"validation", "test"} & set(named.values()):
        return {name: split_of(name) for name in names}, _BY_HASH
    how = "folder" if all(named.values()) else "folder, or hash of name outside of split folders"
    return {name: split or split_of(name) for name, split in named.items()}, how


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
