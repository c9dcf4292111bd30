"""From an encoded image to the square array that a model takes."""

import numpy as np
from PIL import Image, ImageOps

# Named, because what a file is called says nothing of what is in it.
_FORMATS = ("JPEG", "PNG", "WEBP")

# Channels of the result -> what the description of a data set adds.
DESCRIBED = {3: "", 1: "; gray (luma of ITU-R 601)"}
CHANNELS = tuple(DESCRIBED)


def load_square(file, image_size, channels=3):
    """Decodes an image, crops its centre to a square and resizes it.

    The resize is Pillow's bicubic, whose support grows with the reduction
    (antialiased); an image of the wanted size is returned as it is, a smaller one
    enlarged. EXIF orientation is applied, transparency composited over white; palettes,
    gray and CMYK become RGB, or all become gray; colour profiles are ignored. Of an
    animation the first frame is taken.

    Args:
      file: path or binary file of a JPEG, PNG or WebP image.
      image_size: side of the result in pixels.
      channels: 3 for RGB; 1 for gray, the luma of ITU-R 601.

    Returns:
      uint8 `(image_size, image_size, channels)` array.

    Raises:
      Exception: of many kinds, as Pillow's decoders raise them, for a file that is
        broken, truncated, none of the formats or a decompression bomb.
    """
    with Image.open(file, formats=_FORMATS) as image:
        image = _to_rgb(ImageOps.exif_transpose(image))
    if channels == 1:  # of RGB with equal channels exactly their value
        image = image.convert("L")
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    image = image.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image).reshape(image_size, image_size, channels)


def _to_rgb(image):
    if image.mode.startswith("I"):  # 16 bits of gray: Pillow's convert would clip them at 255.
        gray = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((gray * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
