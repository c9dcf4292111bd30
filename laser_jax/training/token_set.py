"""The tokens that a prior learns, made once from the pictures of a split.

tokens/train.array_record, tokens/validation.array_record   a record a picture: its symbols, and
                                                            its class in front
tokens/about.json                                           what they were made of
"""

import dataclasses
import logging
import shutil
from collections.abc import Sequence

import numpy as np

from laser_jax.files import read_json, whole_directory, write_json
from laser_jax.priors import Vocabulary
from laser_jax.tokens import fingerprint_of

log = logging.getLogger("laser_jax")

DIRECTORY = "tokens"
_ABOUT = "about.json"


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSet(Sequence):
    """The tokens of a split, in memory: they are small. A picture is `(symbols, label)`, int32.

    Attributes:
      symbols: `(num, n, s)` integers of `laser_jax.priors.Vocabulary`.
      labels: `(num,)` int32; 0 without classes.
      description: one line for reports.
    """

    symbols: np.ndarray
    labels: np.ndarray
    description: str

    def __len__(self):
        return len(self.symbols)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}.")
        return self.symbols[index].astype(np.int32), self.labels[index]


def read_about(workdir):
    """Returns what the tokens in a workdir were made of, None if it has none."""
    path = workdir / DIRECTORY / _ABOUT
    return read_json(path) if path.exists() else None


def write_tokens(workdir, sources, encode, about, *, batch_size, copies, augmented):
    """Encodes the pictures of splits and stores their tokens in a workdir.

    Args:
      workdir: directory of the prior's run.
      sources: split -> `ImageSource`.
      encode: a function from images `(batch_size, H, W, C)` to their symbols.
      about: description stored with the tokens.
      batch_size: pictures encoded at a time.
      copies: times that each training picture is encoded: as it is, then augmented.
      augmented: a function from a list of images, and integers that say which batch they are, to
        the list of augmented images.

    Raises:
      ValueError: if `tokens/` there holds anything but exported tokens, which are replaced.
    """
    final = workdir / DIRECTORY
    if final.exists() and "record" not in (read_about(workdir) or {}):
        raise ValueError(
            f"{final} holds something else than exported tokens and is not replaced; move it away, "
            "or choose another directory."
        )
    with whole_directory(final) as partial:
        for split, source in sources.items():
            times = copies if split == "train" else 1
            log.info("encoding %d x %d pictures of %s, once", times, len(source), split)
            batches = _batches(source, batch_size, times, augmented)
            _write_split(partial / f"{split}.array_record", source, batches, encode)
        write_json(partial / _ABOUT, about)
        shutil.rmtree(final, ignore_errors=True)


def export_tokens(directory, codec, sources, *, batch_size):
    """Writes the tokens of splits, and a description of their numbers, for other programs.

    Args:
      directory: where `tokens/` goes.
      codec: the `TokenCodec` of an autoencoder.
      sources: split -> `ImageSource`.
      batch_size: pictures encoded at a time.
    """
    vocabulary, unit = Vocabulary(codec.tables.layout), codec.model.signal_shape
    source = next(iter(sources.values()))
    about = {
        "fingerprint": fingerprint_of(codec.fingerprint, codec.tables.fingerprint).hex(),
        "record": "int32: the class, then the symbols of each position, row after row",
        "grid": [side // each for side, each in zip(source[0].shape, unit, strict=False)],
        "symbols": vocabulary.places,
        "groups": [group._asdict() for group in vocabulary.groups],
        "num_classes": source.num_classes,
        "class_names": list(source.class_names),
        "splits": {split: source.description for split, source in sources.items()},
    }
    write_tokens(
        directory, sources, lambda images: vocabulary.symbols(codec.to_tokens(images)), about,
        batch_size=batch_size, copies=1, augmented=None,
    )  # fmt: skip


def _batches(source, batch_size, copies, augmented):
    """Yields the rows of each batch and its images, filled up with the last one."""
    for copy in range(copies):
        for start in range(0, len(source), batch_size):
            rows = range(start, min(start + batch_size, len(source)))
            images = [source[i] for i in rows]
            if copy:
                images = augmented(images, (copy, start))
            yield rows, np.stack(images + images[-1:] * (batch_size - len(rows)))


def _write_split(path, source, batches, encode):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:64")
    try:
        for rows, images in batches:
            for i, symbols in zip(rows, encode(images), strict=False):
                label = source.label(i) if source.num_classes else 0
                writer.write(np.int32([label, *symbols.ravel()]).tobytes())
    finally:
        writer.close()


def read_tokens(workdir, split, vocabulary, description):
    """Returns the `TokenSet` of a split in a workdir."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(workdir / DIRECTORY / f"{split}.array_record"))
    try:
        records = np.stack([np.frombuffer(x, np.int32) for x in reader.read_all()])
    finally:
        reader.close()
    symbols = vocabulary.trimmed(records[:, 1:].reshape(len(records), -1, vocabulary.places))
    small = np.int16 if np.abs(symbols).max(initial=0) < 2**15 else np.int32
    return TokenSet(symbols.astype(small), records[:, 0].copy(), description)
