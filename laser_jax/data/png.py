"""The parts of PNG files that Pillow does not read."""

import io
import zlib

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def without_metadata(data):
    """Returns a PNG file reduced to its pixels and orientation; None for another kind of file.

    Pillow rejects a whole file for more than 1 MB of compressed text or colour profile, and
    for damage in chunks that no pixel depends on.
    """
    if not data.startswith(_SIGNATURE):
        return None
    parts, start = [_SIGNATURE], len(_SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4], "big")
        kind, chunk = data[start + 4 : start + 8], data[start:end]
        critical = not kind[0] & 0x20  # a capital letter
        valid = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if critical or (valid and kind in (b"tRNS", b"eXIf")):
            parts.append(chunk)
        start = end
    return b"".join(parts)


def transparent_pixels(image, data):
    """Returns where a gray or RGB PNG has its one transparent colour, bool `(h, w)`.

    The file gives that colour at its own depth, 1 to 16 bits a sample. Pillow compares it
    with samples that it has scaled to 8 bits (2- and 4-bit gray) or cut to 8 (16-bit RGB).

    Args:
      image: opened from `data`, of mode 1, L, I;16 or RGB, with `info["transparency"]`.
      data: the file's bytes.
    """
    bits = data[24]
    key, samples = np.asarray(image.info["transparency"]), np.asarray(image)
    if image.mode == "1":
        return samples * 255 == key  # Pillow gives 0 or 255 here
    key = key & 2**bits - 1
    if bits < 8:
        key = key * (255 // (2**bits - 1))
    if image.mode == "RGB":
        if bits == 16:
            samples = samples * np.uint16(256) + _low_bytes(data)
        return (samples == key).all(-1)
    return samples == key


def _low_bytes(data):
    """Returns the lower halves of a PNG's 16-bit RGB samples: Pillow reads the upper ones."""
    with Image.open(io.BytesIO(data)) as image:
        # Read as if the lower byte were the upper one.
        image.tile = [(*tile[:3], "RGB;16L") for tile in image.tile]
        return np.asarray(image)
