"""A trained autoencoder as a codec: images to tokens and files, and back.

The size of a file depends on tables, the `ContextModel` of the tokens of training images. They
belong to one checkpoint and are stored in the workdir: `tokens-STEP.npz`.
"""

import logging
import pathlib
import shlex

import jax
import numpy as np

from laser_jax.checks import check_not_empty
from laser_jax.evaluation.split import evenly_spaced
from laser_jax.files import whole_file
from laser_jax.images import check_picture, extended
from laser_jax.metrics import squared_error_to_psnr
from laser_jax.models import inference
from laser_jax.models.inference import code_atoms
from laser_jax.sparse import SparseCode, dequantize_coefficients
from laser_jax.tokens import (
    ContextModel,
    Run,
    code_of,
    fingerprint_of,
    fit_context_model,
    one_size,
    pack_tokens,
    tokens_of,
    unpack_tokens,
    write_container,
)
from laser_jax.tokens.files import check_pictures
from laser_jax.tokens.tables import NewerTables

log = logging.getLogger("laser_jax")

MOST_SIGNALS = 2**18  # of training images that tables are fitted on
LARGEST_LOSS = 0.03  # dB of PSNR that rounding real coefficients may cost on training images


class TokenCodec:
    """An `Autoencoder` with its variables and the tables of its tokens.

    Attributes:
      model: the `Autoencoder`.
      variables: its variables for evaluation.
      tables: the `ContextModel`; its `layout` says what the tokens are.
    """

    def __init__(self, model, variables, tables):
        self.model, self.variables, self.tables = model, variables, tables
        self._fingerprint = None

    @property
    def fingerprint(self):
        """8 bytes of the weights and the dictionary."""
        if self._fingerprint is None:
            leaves = jax.tree.leaves_with_path(jax.device_get(self.variables))
            parts = (part for path, x in leaves for part in (str(path).encode(), np.asarray(x)))
            self._fingerprint = fingerprint_of(*parts)
        return self._fingerprint

    def to_tokens(self, images):
        """Returns the `Tokens` `(b, h, w)` of images `(b, H, W, C)`."""
        check_not_empty(images=images)
        code = jax.device_get(inference.encode(self.model, self.variables, images))
        return tokens_of(code, self.tables.layout)

    def to_images(self, tokens):
        """Returns the images, float in [0, 1], of tokens."""
        layout = self.tables.layout
        check_not_empty(tokens=tokens.counts)
        code = dequantize_coefficients(code_of(tokens, layout), np.asarray(layout.steps))
        return np.asarray(inference.decode(self.model, self.variables, code))

    def compress(self, images):
        """Returns a file's bytes for each image; see `TrainedAutoencoder.compress`."""
        files = []
        for image in images:
            image = check_picture(image, self.model.in_channels)
            check_pictures([Run(1, *image.shape[:2])], self.tables.layout, self.model.signal_shape)
            tokens = self.to_tokens(extended(image, self.model.signal_shape)[None])
            files.append(self._packed([(tokens, image.shape[:2])]))
        return files

    def decompress(self, files):
        """Returns the uint8 images of files; see `TrainedAutoencoder.decompress`."""
        images = []
        for data in files:
            groups = unpack_tokens(
                data, self.tables, unit=self.model.signal_shape, fingerprint=self.fingerprint
            )
            for tokens, (height, width) in one_size(groups):
                image = self.to_images(tokens)[0, :height, :width]
                images.append(np.round(255 * image).astype(np.uint8))
        return images

    def _packed(self, groups):
        return pack_tokens(
            groups, self.tables, unit=self.model.signal_shape, fingerprint=self.fingerprint
        )

    def psnr_pooled(self, images, *, batch_size):
        """Returns the PSNR in dB of the pooled squared error of uint8 images coded as tokens."""
        total = 0.0
        for start in range(0, len(images), batch_size):
            indices = np.arange(start, min(start + batch_size, len(images)))
            batch = _stacked(images, indices, batch_size)
            error = self.to_images(self.to_tokens(batch)) - batch / np.float32(255)
            total += float(np.sum(np.square(error[: len(indices)], dtype=np.float64)))
        return float(squared_error_to_psnr(total / images.size))

    def split_size(self, source, *, batch_size, most_signals=None):
        """Returns the bytes of a split, or of a part of it, in one container, and its pixels.

        Args:
          source: the images.
          batch_size: images coded at a time.
          most_signals: signals of the code after which images are left out; None: none are.
        """
        number, bits = _most_images(self.model, source, most_signals), 0.0
        for code in _codes(self.model, self.variables, source, number, batch_size):
            bits += float(np.sum(self.tables.bits(tokens_of(code, self.tables.layout))))
        height, width = source[0].shape[:2]
        return self.container_size(bits, height, width), number * height * width

    def container_size(self, bits, height, width):
        """Returns the bytes of a container of images of a size, whose tokens have these bits."""
        head = write_container([Run(1, height, width)], b"", self.fingerprint)
        number_bytes = 3  # of the number of images, beyond the one byte of 1
        return len(head) + number_bytes + int(np.ceil(bits / 8))


def fit_codec(model, variables, source, *, images, batch_size, **fitting):
    """Returns the `TokenCodec` with tables of training images.

    Args:
      model: the `Autoencoder`.
      variables: its variables for evaluation.
      source: the training images.
      images: the most of them that are used, evenly spaced; at most 2^18 signals' worth.
      batch_size: images coded at a time.
      **fitting: options of `fit_context_model`.
    """
    variables = jax.device_get(variables)  # so that each process can compute alone
    number = min(images, _most_images(model, source, MOST_SIGNALS))
    codes = _codes(model, variables, source, number, batch_size)
    code = SparseCode(*(np.concatenate(x) for x in zip(*codes, strict=True)))
    step = None
    if model.bottleneck.has_real_coefficients:
        shown = evenly_spaced(source, min(number, batch_size))
        step = _choose_step(model, variables, _stacked(source, shown, batch_size))
    layout = model.bottleneck.token_layout(step)
    dictionary = np.asarray(code_atoms(model, variables))
    tables = fit_context_model(tokens_of(code, layout), layout, dictionary=dictionary, **fitting)
    return TokenCodec(model, variables, tables)


def _choose_step(model, variables, images):
    """The largest step, of a ladder, whose rounding costs at most `LARGEST_LOSS` dB of PSNR."""
    code = jax.device_get(inference.encode(model, variables, images))
    original = images.astype(np.float64) / 255
    used = code.coefficients[code.coefficients != 0]
    step = float(np.sqrt(np.mean(np.square(used, dtype=np.float64)))) if used.size else 1.0

    def quality(coefficients):
        found = inference.decode(model, variables, SparseCode(code.indices, coefficients))
        return float(squared_error_to_psnr(np.mean((np.asarray(found) - original) ** 2)))

    best = quality(code.coefficients)
    for _ in range(30):
        rounded = np.float32(step) * np.rint(code.coefficients / np.float32(step))
        if quality(rounded) >= best - LARGEST_LOSS:
            break
        step /= 2**0.5
    return step


def read_tables(workdir, step):
    """Returns the tables of a checkpoint, or None if the workdir has none of this step.

    Raises:
      ValueError: if the file is damaged or of a newer version.
    """
    path = _tables_path(workdir, step)
    if not path.exists():
        return None
    try:
        return ContextModel.from_bytes(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error} {_remedy(error, workdir)}") from error


def _remedy(error, workdir):
    if isinstance(error, NewerTables):
        return "Update laser_jax."
    return (
        "Restore it: files that it wrote can be read with it alone. Or delete it; the next "
        f"evaluation fits new tables: {_evaluation(workdir)}"
    )


def missing_tables(workdir, step):
    """Returns the text of an error: a workdir has no tables of this step."""
    return (
        f"{workdir} has no tables of tokens for step {step}; an evaluation of this checkpoint "
        f"makes them: {_evaluation(workdir)}"
    )


def write_tables(workdir, step, tables):
    """Stores the tables of a checkpoint in the workdir.

    Raises:
      OSError: if they cannot be written.
    """
    path = _tables_path(workdir, step)
    with whole_file(path) as partial:
        partial.write_bytes(tables.to_bytes())
    log.info("written: %s", path)


def _evaluation(workdir):
    """The command that evaluates a run."""
    return f"python main.py --workdir={shlex.quote(str(workdir))} --mode=evaluate"


def _tables_path(workdir, step):
    return pathlib.Path(workdir) / f"tokens-{step}.npz"


def _most_images(model, source, signals):
    """How many images of a source have at most so many signals; None: all images."""
    if signals is None:
        return len(source)
    return max(1, min(len(source), signals * model.signal_pixels // source[0][..., 0].size))


def _codes(model, variables, source, number, batch_size):
    """Yields the codes of images at even distances, batch after batch."""
    indices = evenly_spaced(source, number)
    for start in range(0, number, batch_size):
        part = indices[start : start + batch_size]
        code = inference.encode(model, variables, _stacked(source, part, batch_size))
        yield SparseCode(*(x[: len(part)] for x in jax.device_get(code)))


def _stacked(source, indices, size):
    """Images, the last repeated up to a batch: one shape is one compilation."""
    padded = np.pad(indices, (0, size - len(indices)), mode="edge")
    return np.stack([source[int(i)] for i in padded])
