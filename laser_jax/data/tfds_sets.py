"""Data sets of tensorflow-datasets, prepared as array_record and read at random.

Reading needs no TensorFlow; TFDS itself imports it to download and unpack public sets. A name
that is not in `TFDS_SETS` is a builder of TFDS with a feature of images.
"""

import contextlib
import dataclasses
import fcntl
import functools
import io
import logging
import operator
import os
import sys

from laser_jax.data.images import DESCRIBED, describe_crop, load_image, load_square
from laser_jax.data.source import DataUnavailable, EmptySplit, ImageSource
from laser_jax.ranges import as_size

log = logging.getLogger("laser_jax")


@dataclasses.dataclass(frozen=True)
class TfdsSet:
    """How a data set is divided into our splits, and where its files come from.

    Attributes:
      builder: name of the TFDS builder.
      splits: our split -> TFDS's slice.
      size: the one side in pixels it has, None if its images are cropped and resized.
      files: what TFDS downloads, by the names it looks for in `downloads/manual`.
      source: where a person finds those files.
      num_classes: labels of the records; 0: they have none.
      image, label: names of the two features.
    """

    builder: str
    splits: dict[str, str]
    size: int | None = None
    files: tuple[str, ...] = ()
    source: str = ""
    num_classes: int = 0
    image: str = "image"
    label: str = "label"


TFDS_SETS = {
    "photo_patches": TfdsSet(
        builder="photo_patches",
        splits={"train": "train", "validation": "validation", "test": "test"},
        size=32,
    ),
    "cifar10": TfdsSet(
        builder="cifar10",
        splits={"train": "train[:-5000]", "validation": "train[-5000:]", "test": "test"},
        size=32,
        files=("cifar-10-binary.tar.gz",),
        source="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        num_classes=10,
    ),
    # Stored as 178 x 218 pixels: above 178 the centre square is enlarged.
    "celeb_a": TfdsSet(
        builder="celeb_a",
        splits={"train": "train", "validation": "validation", "test": "test"},
        files=(
            "img_align_celeba.zip",
            "list_eval_partition.txt",
            "list_attr_celeba.txt",
            "list_landmarks_align_celeba.txt",
            "identity_CelebA.txt",
        ),
        source="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ),
    # The variant with a shorter side of 320 pixels: a quarter of the download and a
    # faster decode, still reduced, never enlarged, at the usual 256.
    "imagenette": TfdsSet(
        builder="imagenette/320px-v2",
        splits={"train": "train[:-500]", "validation": "train[-500:]", "test": "validation"},
        files=("imagenette2-320.tgz",),
        source="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz",
        num_classes=10,
    ),
    # Its own test images have no public labels, so `validation` is the test split, as in papers.
    "imagenet2012": TfdsSet(
        builder="imagenet2012",
        splits={"train": "train[:-10000]", "validation": "train[-10000:]", "test": "validation"},
        num_classes=1000,
    ),
}


def open_tfds(name, *, split, image_size, channels=3, data_dir=None):
    """Returns a split of an image set of TFDS, prepared first if it was not.

    Args, Returns, Raises: as `laser_jax.data.open_source`.
    """
    spec = _spec(name)
    if spec.size is not None and as_size(image_size) != as_size(spec.size):
        raise ValueError(f"{name} has images of {spec.size} pixels only, got {image_size=}.")
    import tensorflow_datasets as tfds

    builder = _prepared_builder(name, data_dir)
    spec = spec if spec.splits else _described_by(builder.info, spec)
    if split not in spec.splits:
        raise EmptySplit(
            f"{name} of TFDS has no split {split!r} and none to cut it from, only "
            f"{', '.join(builder.info.splits)}; it can be evaluated on {', '.join(spec.splits)}."
        )
    # Only the image, still encoded: Pillow decodes it below.
    decoders = {spec.image: tfds.decode.SkipDecoding()}
    records = builder.as_data_source(spec.splits[split], decoders=decoders)
    return ImageSource(
        name=name,
        split=split,
        description=_describe(name, spec, split, image_size) + DESCRIBED[channels],
        records=records,
        load=functools.partial(
            _load_record, feature=spec.image, image_size=image_size, channels=channels
        ),
        load_whole=functools.partial(_load_whole, feature=spec.image, channels=channels),
        remember=spec.size is not None,  # 32 pixels: 21 MB of photo_patches, 140 MB of CIFAR-10
        label_of=operator.itemgetter(spec.label) if spec.num_classes else None,
        num_classes=spec.num_classes,
        class_names=tuple(builder.info.features[spec.label].names) if spec.num_classes else (),
    )


def _spec(name):
    """Returns the `TfdsSet` of a name; one without splits if only TFDS knows the set."""
    base, colon, version = name.partition(":")
    if base not in TFDS_SETS:
        return TfdsSet(builder=name, splits={})
    spec = TFDS_SETS[base]
    return dataclasses.replace(spec, builder=f"{spec.builder}:{version}") if colon else spec


def _described_by(info, spec):
    """Returns a `TfdsSet` with the features and the splits that TFDS describes.

    Of several features of images it is the one named `image`; others may be masks. Splits that
    the set lacks are cut from `train`: a twentieth of it each. With `train` and `validation` alone,
    that is the test split, and our validation is cut from `train`.
    """
    import tensorflow_datasets as tfds

    images = [key for key, x in info.features.items() if isinstance(x, tfds.features.Image)]
    if "image" in images:
        images = ["image"]
    splits = _splits(info.splits)
    if len(images) != 1 or not splits:
        raise ValueError(
            f"{spec.builder} of TFDS cannot be read as images: it needs one feature of images, or "
            "one of them named 'image', and a split 'train', 'validation' or 'test', got the "
            f"features of images {images} of {sorted(info.features)} and the splits "
            f"{sorted(info.splits)}."
        )
    labels = [key for key, x in info.features.items() if isinstance(x, tfds.features.ClassLabel)]
    label = "label" if "label" in labels or not labels else labels[0]
    return dataclasses.replace(
        spec, splits=splits, image=images[0], label=label,
        num_classes=info.features[label].num_classes if labels else 0,
    )  # fmt: skip


def _splits(own):
    """Returns our split -> TFDS's slice, for the splits that a set has."""
    if "train" not in own:  # nothing to train on; what is held out can be evaluated
        found = {split: split for split in ("validation", "test") if split in own}
        return found and {"test": "validation", **found}
    if "validation" in own and "test" in own:
        return {split: split for split in ("train", "validation", "test")}
    if "validation" not in own and "test" not in own:
        return {"train": "train[:90%]", "validation": "train[90%:95%]", "test": "train[95%:]"}
    test = "test" if "test" in own else "validation"
    return {"train": "train[:95%]", "validation": "train[95%:]", "test": test}


def _load_record(record, feature, image_size, channels):
    return load_square(io.BytesIO(record[feature]), image_size, channels)


def _load_whole(record, feature, channels):
    return load_image(io.BytesIO(record[feature]), channels)


def _describe(name, spec, split, image_size):
    if name == "photo_patches":
        from laser_jax.data.photo_patches import PHOTOGRAPHS

        photographs = ", ".join(PHOTOGRAPHS[split])
        return f"{name} {split}: {photographs}; 32x32 windows area-resized from 32/64/128"
    if spec.size is None:
        crop = describe_crop(image_size)
    else:
        crop = f"{spec.size}x{spec.size} as they are"
    return f"{name} {split}: {spec.splits[split]} of TFDS {spec.builder}; {crop}"


def _prepared_builder(name, data_dir):
    """Returns the TFDS builder of a set whose files are all there."""
    builder = _builder(name, data_dir)
    if not builder.data_path.exists():
        _prepare(name, builder)
        builder = _builder(name, data_dir)
    # TFDS prepares in a temporary directory and renames it at the end, so its result is
    # complete; a manual copy may not be.
    missing = [
        file
        for split in builder.info.splits.values()
        for file in split.filepaths
        if not file.exists()
    ]
    if missing or not builder.info.splits:
        raise DataUnavailable(
            f"data set {name!r} in {builder.data_path} is not whole ({len(missing)} files missing"
            f"{f', {missing[0].name} among them' if missing else ''}): delete that directory and "
            "prepare it again."
        )
    if builder.info.file_format.value != "array_record":
        raise DataUnavailable(
            f"data set {name!r} in {builder.data_path} is stored as "
            f"{builder.info.file_format.value}, which cannot be read at random: choose another "
            "data_dir, or delete that directory and prepare it again."
        )
    return builder


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    if name == "photo_patches":
        from laser_jax.data.photo_patches import PhotoPatches

        return PhotoPatches(data_dir=data_dir)
    try:
        return tfds.builder(_spec(name).builder, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"unknown data set {name!r}; choose from {', '.join(TFDS_SETS)}, digits, folder:PATH, "
            "or an image set of TFDS by its name, as in oxford_flowers102 or cifar100:3.0.2."
        ) from error


def _prepare(name, builder):
    """Writes a set into the builder's directory, once among processes that ask together."""
    import tensorflow_datasets as tfds

    root = os.path.expanduser(builder.data_dir_root)
    try:
        os.makedirs(root, exist_ok=True)
        with _locked(os.path.join(root, f".{name.replace('/', '.')}.lock")), _quiet():
            if builder.data_path.exists():  # another process was first
                return
            log.info("preparing data set %s in %s, once.", name, builder.data_path)
            _check_source_answers(name, builder)
            builder.download_and_prepare(
                file_format="array_record",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    except DataUnavailable:
        raise
    except Exception as error:  # of any kind: requests, zipfile, promise, the file system
        raise DataUnavailable(_advice(name, builder, error)) from error


def _check_source_answers(name, builder):
    """Raises within seconds where there is no internet; TFDS would retry for minutes."""
    spec = _spec(name)
    by_hand = _manual_dir(builder)
    if all(os.path.exists(os.path.join(by_hand, file)) for file in spec.files):
        return  # there, or unknown
    import requests

    urls = [url for url, info in builder.url_infos.items() if info.filename in spec.files]
    requests.head(urls[0], timeout=20)


def _manual_dir(builder):
    return os.path.join(builder.data_dir_root, "downloads", "manual")


def _advice(name, builder, error):
    spec = _spec(name)
    lines = [
        f"data set {name!r} is not in {builder.data_path} and could not be prepared there.",
        f"Cause: {type(error).__name__}: {error}",
    ]
    if name != "photo_patches":
        lines.append("With internet: python main.py --config=... --mode=prepare")
    if spec.files:
        lines.append(
            f"By hand: put {', '.join(spec.files)} (from {spec.source}), unpacked no further and "
            f"under these names, into {_manual_dir(builder)}, then the same command."
        )
    if name == "celeb_a":
        lines.append("(CelebA lies on Google Drive, which often refuses for a day: quota.)")
    return "\n".join(lines)


@contextlib.contextmanager
def _locked(path):
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, or the process dies
        yield


@contextlib.contextmanager
def _quiet():
    """Hides TFDS's prints, and its progress bars in log files."""
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(sys.stderr is not None and sys.stderr.isatty())
    with contextlib.redirect_stdout(io.StringIO()):
        yield
