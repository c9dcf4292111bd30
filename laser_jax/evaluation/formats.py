"""Images as JPEG and WebP files, to compare rates with.

Small images are stored as one mosaic, so that a file's header counts once.
"""

import bisect
import io
import math

import numpy as np
from PIL import Image

from laser_jax.metrics import squared_error_to_psnr

QUALITIES = (1, 3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 94)
# Format -> its options besides the quality. JPEG may store colour at half the resolution.
FORMATS = {
    "JPEG": ({"optimize": True, "subsampling": 0}, {"optimize": True, "subsampling": 2}),
    "WebP": ({"method": 6},),
}


def stored(image, format, **options):
    """Returns the bytes of an image as a file, a number, and the image read back.

    Args:
      image: `(H, W, C)` uint8, 1 or 3 channels.
      format: a name of Pillow's.
      **options: of `PIL.Image.Image.save`.
    """
    file, gray = io.BytesIO(), image.shape[-1] == 1
    Image.fromarray(image[..., 0] if gray else image).save(file, format, **options)
    back = np.asarray(Image.open(file).convert("L" if gray else "RGB"))
    return len(file.getvalue()), back.reshape(image.shape)


def mosaic(images):
    """Returns images `(n, H, W, C)` uint8 as tiles of one image, row by row.

    It has about as many rows as columns. Tiles after the last image are gray.
    """
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    tiles = np.full((rows * columns, height, width, channels), 128, np.uint8)
    tiles[:n] = images
    tiles = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return tiles.reshape(rows * height, columns * width, channels)


def images_of(tiles, shape):
    """Returns the images of a `mosaic`, of shape `(n, H, W, C)`."""
    n, height, width, channels = shape
    tiles = tiles.reshape(-1, height, tiles.shape[1] // width, width, channels).swapaxes(1, 2)
    return tiles.reshape(-1, height, width, channels)[:n]


def rate_and_psnr(images, format, **options):
    """Returns bits a pixel and PSNR of the pooled squared error, dB, of images as one mosaic."""
    size, back = stored(mosaic(images), format, **options)
    error = images_of(back, images.shape).astype(np.float32) - images
    psnr = squared_error_to_psnr(np.mean(np.square(error / 255), dtype=np.float64))
    return 8 * size / images[..., 0].size, float(psnr)


def rate_curve(images, format):
    """Returns the (bits a pixel, PSNR) of images under all settings of one of `FORMATS`.

    Sorted by rate; a setting is left out if another one has its PSNR at a smaller rate.
    """
    return best_points(
        rate_and_psnr(images, format, quality=quality, **options)
        for options in FORMATS[format]
        for quality in QUALITIES
    )


def best_points(points):
    """Returns (rate, PSNR) pairs by rate, without those whose PSNR a smaller rate has."""
    kept: list[tuple[float, float]] = []
    for point in sorted(points):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept


def nearest_rate(images, format, bits_per_pixel):
    """Returns the rate nearest to `bits_per_pixel` that one of `FORMATS` reaches, and its PSNR.

    Between two qualities the PSNR is interpolated. Few qualities are tried.
    """
    found = []
    for options in FORMATS[format]:
        points = _Points(images, format, options)
        after = bisect.bisect(points, (bits_per_pixel, math.inf))
        around = [points[i] for i in (after - 1, after) if 0 <= i < len(points)]
        rate = min(max(bits_per_pixel, around[0][0]), around[-1][0])
        found.append((rate, psnr_at(around, rate)))
    return min(found, key=lambda point: (abs(point[0] - bits_per_pixel), -point[1]))


class _Points:
    """The points of a setting as a sequence, each measured when it is asked for."""

    def __init__(self, images, format, options):
        self._arguments, self._options, self._known = (images, format), options, {}

    def __len__(self):
        return len(QUALITIES)

    def __getitem__(self, place):
        if place not in self._known:
            self._known[place] = rate_and_psnr(
                *self._arguments, quality=QUALITIES[place], **self._options
            )
        return self._known[place]


def psnr_at(points, rate):
    """Returns the PSNR of (rate, PSNR) pairs at a rate, linear in the rate's logarithm.

    nan beyond their ends.
    """
    rates, psnrs = np.array(sorted(points)).T
    return float(np.interp(np.log(rate), np.log(rates), psnrs, left=np.nan, right=np.nan))
