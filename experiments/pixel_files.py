"""The pixel codec's files beside JPEG, JPEG 2000, WebP and AVIF, headers counted.

    python -m experiments.pixel_files [--split=validation] [--model=FILE ...]

Prints PSNR at equal bits a pixel on whole photographs, and how many more bits each format takes
for the same PSNR. A point is one setting for all photographs: all their bytes, their pooled
squared error. Of each format's settings those stay that no cheaper one equals. Several models are
seeds: the table has their mean and standard deviation.
"""

import argparse
import io
import pathlib

import numpy as np
from PIL import Image

from laser_jax import pixels
from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph

RATES = (0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0)
QUALITIES = (10, 20, 34, 45, 57, 67, 75, 85, 97, 100)
FORMATS = {
    "JPEG": [
        {"format": "JPEG", "optimize": True, "subsampling": s, "quality": q}
        for s in (0, 2) for q in (5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 93)
    ],
    "JPEG 2000": [
        {"format": "JPEG2000", "irreversible": True, "no_jp2": True, "quality_layers": [24 / rate]}
        for rate in (0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3, 1.6, 2.0, 2.5)
    ],
    "WebP": [
        {"format": "WEBP", "method": 6, "quality": q}
        for q in (1, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 84, 88, 91, 94, 97)
    ],
    "AVIF": [
        {"format": "AVIF", "speed": 4, "subsampling": s, "quality": q}
        for s in ("4:2:0", "4:4:4") for q in (15, 25, 35, 42, 50, 57, 64, 71, 78, 85, 90)
    ],
}  # fmt: skip


def format_file(image, setting):
    """Returns the bytes of an image as a file of a format, and the image read back."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, **setting)
    return file.getvalue(), np.asarray(Image.open(file).convert("RGB"))


def pixel_file(image, quality, model):
    """Returns the bytes of an image under the pixel codec, and the image read back."""
    (data,) = pixels.compress([image], quality, model=model)
    return data, pixels.decompress([data], model=model)[0]


def point(images, code):
    """Returns bits a pixel and PSNR in dB of images under `code`: image -> bytes, image."""
    found = [code(image) for image in images]
    area = sum(image[..., 0].size for image in images)
    squared = sum(
        np.sum((np.float64(a) - back) ** 2) for a, (_, back) in zip(images, found, strict=True)
    )
    bits = 8 * sum(len(data) for data, _ in found)
    return bits / area, 10 * np.log10(255**2 * 3 * area / squared)


def curve(points):
    """Returns the points, by rate, that no cheaper one equals, `(n, 2)`."""
    kept = []
    for bpp, psnr in sorted(points):
        if not kept or psnr > kept[-1][1]:
            kept.append((bpp, psnr))
    return np.array(kept)


def psnr_at(points, rates):
    """PSNR at rates, NaN beyond the curve."""
    return np.interp(rates, *points.T, left=np.nan, right=np.nan)


def more_bits(points, other, rates):
    """By how much the second curve's bits exceed the first's at the first's PSNR at rates, in %."""
    psnr = psnr_at(points, rates)
    needed = np.interp(psnr, other[:, 1], np.log(other[:, 0]), left=np.nan, right=np.nan)
    return 100 * (np.exp(needed) / rates - 1)


def main(argv=None):
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="test", choices=tuple(PHOTOGRAPHS))
    parser.add_argument("--model", nargs="*", default=[None], type=pathlib.Path)
    parser.add_argument("--qualities", nargs="*", default=QUALITIES, type=int)
    options = parser.parse_args(argv)
    images = [read_photograph(name) for name in PHOTOGRAPHS[options.split]]
    curves = {
        name: curve([point(images, lambda x, s=s: format_file(x, s)) for s in settings])
        for name, settings in FORMATS.items()
    }
    models = [pixels.read_model(path) if path else pixels.shipped_model() for path in options.model]
    own = []
    for number, model in enumerate(models):
        points = []
        for quality in options.qualities:
            points.append(point(images, lambda x, q=quality, m=model: pixel_file(x, q, m)))
            print(f"model {number}, quality {quality}: %.3f bits a pixel, %.2f dB" % points[-1])
        own.append(curve(points))
    print_tables(curves, own)


def print_tables(curves, own):
    """Prints PSNR at equal rates, and bits at equal PSNR; `own` has a curve for each model."""
    print("\n| bits a pixel | " + " | ".join(map(str, RATES)) + " |")
    print("| --- |" + " --- |" * len(RATES))
    each = np.array([psnr_at(points, RATES) for points in own])
    cells = [f"{m:.2f} ± {s:.2f}" for m, s in zip(each.mean(0), each.std(0), strict=True)]
    print_row("pixel codec", cells if len(own) > 1 else [f"{x:.2f}" for x in each[0]])
    for name, points in curves.items():
        print_row(name, [f"{x:.2f}" for x in psnr_at(points, RATES)])
    for name, points in curves.items():
        more = np.mean([more_bits(mine, points, np.array(RATES)) for mine in own], 0)
        print_row(f"{name}: more bits at equal PSNR", [f"{x:+.0f}%" for x in more])


def print_row(name, cells):
    """Prints a row of a table; a number that is not known is left out."""
    print(f"| {name} | " + " | ".join("" if "nan" in x else x for x in cells) + " |")


if __name__ == "__main__":
    main()
