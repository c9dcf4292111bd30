"""Decodes, crops and resizes images for a model."""

import io
import pathlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from laser_jax.data.png import transparent_pixels, without_metadata
from laser_jax.ranges import as_size

# Listed, because a file name does not tell the format.
FORMATS = ("JPEG", "PNG", "WEBP")
# Channels of the result -> what the description of a data set adds.
DESCRIBED = {3: "", 1: "; gray (luma of ITU-R 601)"}
CHANNELS = tuple(DESCRIBED)

_LOG_RATIO = np.log(4 / 3)  # of the sides of a random crop, either way

_ORIENTATION = 0x0112  # the EXIF tag; its values -> what shows the image upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def describe_crop(image_size):
    """Returns what `load_square` does, for the description of a data set."""
    height, width = as_size(image_size)
    square = "square" if height == width else f"{width}:{height}"
    return f"centre {square}, bicubic to {width}x{height}"


def load_square(file, image_size, channels=3, *, reduced=False):
    """Decodes an image, crops its centre to a square, or to another shape, and resizes it.

    The resize is Pillow's bicubic, whose support grows with the reduction (antialiased); an
    image of the wanted size is returned as it is, a smaller one enlarged.

    Args:
      file, channels: as for `load_image`.
      image_size: side of the result in pixels, or (height, width).
      reduced: decodes a JPEG at an eighth of its size: faster, and enough to find damage.

    Returns:
      uint8 `(height, width, channels)` array.

    Raises:
      Exception: as `load_image`.
    """
    image = _open(file, channels, reduced)
    (width, height), (rows, columns) = image.size, as_size(image_size)
    across, down = min(width, height * columns // rows), min(height, width * rows // columns)
    left, top = (width - across) // 2, (height - down) // 2
    box = (left, top, left + max(across, 1), top + max(down, 1))
    image = image.resize((columns, rows), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image).reshape(rows, columns, channels)


def random_crop(image, rng, image_size, least_area):
    """Returns a random part of an image, resized: crop and size as in Inception's training.

    The part has `least_area` to all of the image's area, and a side ratio of 3/4 to 4/3 times
    that of the result. If ten draws do not fit into the image, it is the centre.

    Args:
      image: uint8 `(H, W, C)`.
      rng: a NumPy generator.
      image_size: side of the result in pixels, or (height, width).
      least_area: share of the area in (0, 1].

    Returns:
      uint8 `(height, width, C)` array.

    References:
      Szegedy et al., Going deeper with convolutions, 2014.
    """
    (height, width, channels), (rows, columns) = image.shape, as_size(image_size)
    for _ in range(10):
        area = height * width * rng.uniform(least_area, 1)
        ratio = columns / rows * np.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO))
        across, down = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < across <= width and 0 < down <= height:
            left, top = rng.integers(width - across + 1), rng.integers(height - down + 1)
            break
    else:
        across = max(1, min(width, height * columns // rows))
        down = max(1, min(height, width * rows // columns))
        left, top = (width - across) // 2, (height - down) // 2
    box = (int(left), int(top), int(left) + across, int(top) + down)
    whole = Image.fromarray(image.squeeze(-1) if channels == 1 else image)
    part = whole.resize((columns, rows), Image.Resampling.BICUBIC, box=box)
    return np.asarray(part).reshape(rows, columns, channels)


def load_image(file, channels=3):
    """Decodes an image in its own size.

    EXIF orientation is applied, transparency composited over white; palettes, gray and CMYK
    become RGB, or all become gray; colour profiles are ignored. Of an animation the first frame
    is taken.

    Args:
      file: path or binary file of a JPEG, PNG or WebP image.
      channels: 3 for RGB; 1 for gray, the luma of ITU-R 601.

    Returns:
      uint8 `(H, W, channels)` array.

    Raises:
      Exception: of many kinds, as Pillow's decoders raise them, for a file that is
        broken, truncated, none of the formats or a decompression bomb.
    """
    image = _open(file, channels)
    return np.asarray(image).reshape(image.height, image.width, channels)


def _open(file, channels, reduced=False):
    data = file.read() if hasattr(file, "read") else pathlib.Path(file).read_bytes()
    try:
        image = _decode(data, reduced)
    except Exception:
        pixels = without_metadata(data)
        if pixels is None:
            raise
        image = _decode(pixels, reduced)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert("L" if channels == 1 else "RGB")


def _decode(data, reduced):
    """Returns an upright image of at most 8 bits a sample, without transparency."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if reduced:
                image.draft(image.mode, (1, 1))
            image.load()
            upright = _UPRIGHT.get(_orientation(image))
            image = _opaque(image, data)
    except UnidentifiedImageError:  # its text names a buffer
        raise ValueError("it is no JPEG, PNG or WebP image, or its header is damaged.") from None
    return image if upright is None else image.transpose(upright)


def _orientation(image):
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # invalid EXIF data raises errors of many kinds
        return None


def _opaque(image, data):
    """Returns an image with white in its transparent places, 16-bit gray reduced to 8."""
    clear = None
    if "transparency" in image.info and image.mode in ("1", "L", "I", "I;16", "RGB"):
        clear = transparent_pixels(image, data)
        del image.info["transparency"]
    if image.mode.startswith("I"):  # 16 bits of gray: Pillow's convert would clip them at 255.
        gray = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((gray * 255 + 32767) // 65535).astype(np.uint8))
    if clear is not None:
        image = image.convert("L" if image.mode == "1" else image.mode)
        image.paste("white", mask=Image.fromarray(clear))
    elif image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image
