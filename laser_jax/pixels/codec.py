"""Pictures to files and back with the model that ships with the package."""

import numpy as np

from laser_jax.checks import check_integer
from laser_jax.images import check_images, extended
from laser_jax.pixels.model import QUALITIES, shipped_model
from laser_jax.pixels.patches import decode_patches, encode_patches
from laser_jax.pixels.thumbnail import (
    decode_thumbnail,
    differences,
    encode_thumbnail,
    means_of,
    shrink,
)
from laser_jax.pixels.units import PATCH
from laser_jax.tokens import RangeDecoder, RangeEncoder, Run, read_container, write_container
from laser_jax.tokens.container import check_runs, fingerprint_in


def compress(images, quality=75, *, model=None):
    """Returns a file's bytes for each image.

    Args:
      images: a list of `(H, W, 3)` or gray `(H, W, 1)` arrays of any size, uint8 or float in
        [0, 1].
      quality: 1 to 100. On chelsea, the validation photograph, 34 takes 0.26, 67 takes 0.71 and
        100 takes 2.22 bits a pixel.
      model: a `PixelModel`; None: the one that ships with the package.

    Returns:
      list of `bytes`.

    Raises:
      ValueError: if an image or the quality is not valid, or an image larger than a file may hold.
    """
    check_quality(quality)
    return [_compress_one(image, int(quality), model or shipped_model()) for image in images]


def decompress(files, *, model=None):
    """Returns the uint8 images, `(H, W, 3)` or `(H, W, 1)`, of files of `compress`.

    All arithmetic is in integers: the pictures are the same on every machine.

    Args:
      files: a list of `bytes`.
      model: the `PixelModel` that wrote them; None: the one that ships with the package.

    Raises:
      ValueError: if a file is damaged, truncated, newer, no such file, or another model's.
    """
    return [_decompress_one(data, model or shipped_model()) for data in files]


def is_pixel_file(data):
    """Returns whether a file's bytes were written by `compress`, as far as its header says."""
    return fingerprint_in(data) == shipped_model().fingerprint


def check_quality(quality):
    """Raises ValueError unless the quality is an integer from 1 to 100."""
    check_integer("quality", quality)
    if not 1 <= quality <= QUALITIES:
        raise ValueError(f"quality must be from 1 to {QUALITIES}, got {quality}.")


def _compress_one(image, quality, model):
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or image.size == 0:
        raise ValueError(
            f"an image must have shape (H, W, 3) or (H, W, 1) and not be empty, got {image.shape}."
        )
    check_images(images=image[None])
    height, width, channels = image.shape
    check_runs([Run(1, height, width)])
    pixels = image if image.dtype == np.uint8 else 255 * image.astype(np.float64)
    pixels = np.broadcast_to(pixels, (height, width, 3))
    pixels = extended(pixels, (PATCH, PATCH))
    setting = model.setting(quality)
    thumbnail = shrink(pixels, setting.thumbnail_step)
    encoder = RangeEncoder()
    encoder.encode(quality - 1, 1, QUALITIES)
    encoder.encode(int(channels == 1), 1, 2)
    encode_thumbnail(encoder, thumbnail, model.thumbnail_counts)
    tokens = encode_patches(pixels, means_of(thumbnail, setting.thumbnail_step), setting)
    side = setting.side(differences(thumbnail))
    setting.band.context.encode(encoder, tokens, side=side)
    # The range coder leaves zeros at the end out; a decoder wants as many bytes as there must be.
    payload = encoder.finish().ljust(_least_bytes(height, width), b"\0")
    return write_container([Run(1, height, width)], payload, model.fingerprint)


def _decompress_one(data, model):
    runs, payload = read_container(data, model.fingerprint)
    if len(runs) != 1 or runs[0].pictures != 1:
        raise ValueError("the file is damaged: the pixel codec writes one picture a file.")
    _, height, width = runs[0]
    least = _least_bytes(height, width)
    if len(payload) < least:
        raise ValueError(
            f"the file is damaged: {height}x{width} pixels take at least {least} bytes of payload, "
            f"got {len(payload)}."
        )
    shape = -(-height // PATCH), -(-width // PATCH)
    decoder = RangeDecoder(payload)
    setting, gray = model.setting(1 + _uniform(decoder, QUALITIES)), _uniform(decoder, 2)
    thumbnail = decode_thumbnail(decoder, shape, model.thumbnail_counts)
    side = setting.side(differences(thumbnail))
    tokens = setting.band.context.decode(decoder, (1, *shape), side=side)
    if not decoder.exhausted():
        raise ValueError("the file is damaged: its payload has more than its picture needs.")
    means = means_of(thumbnail, setting.thumbnail_step)
    image = decode_patches(tokens, means, setting)[:height, :width]
    if gray:
        return ((image.sum(-1, keepdims=True, dtype=np.int64) + 1) // 3).astype(np.uint8)
    return image


def _least_bytes(height, width):
    """The least bytes of a picture's payload; so a small file cannot take long to decode.

    A patch's mean colour takes at least 3 / 48 bit; see `thumbnail`.
    """
    return -(-height // PATCH) * -(-width // PATCH) // 128


def _uniform(decoder, total):
    """A number in [0, total), all of which are equally likely."""
    number = decoder.target(total)
    decoder.consume(number, 1)
    return number
