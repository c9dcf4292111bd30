"""The pixel codec's files beside JPEG, JPEG 2000, WebP and AVIF, headers counted.

    python -m experiments.pixel_files --workdir=runs/full/pixel_files [--model=FILE ...]

Whole photographs. A point is one setting for all of them: all their bytes, their pooled squared
error. Of each format's settings those stay that no cheaper one equals. Several models are seeds:
there are their mean and standard deviation.
"""

import argparse
import functools
import pathlib

import numpy as np

from experiments import results
from experiments.rate_curves import curve_figure, mean_at, values_at
from laser_jax import pixels
from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph
from laser_jax.evaluation.formats import best_points, stored
from laser_jax.figures import style
from laser_jax.metrics import squared_error_to_psnr

RATES = (0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0)
QUALITIES = (10, 20, 34, 45, 57, 67, 75, 85, 97, 100)
OURS = "pixel codec"
# More qualities and options than `laser_jax.evaluation.formats` has for every evaluation.
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
LOOKS = {
    OURS: {"color": style.RED, "linestyle": "-"},
    "JPEG": {"color": style.BLACK, "linestyle": "-."},
    "JPEG 2000": {"color": style.GREEN, "linestyle": "--"},
    "WebP": {"color": style.BLACK, "linestyle": ":"},
    "AVIF": {"color": style.BLUE, "linestyle": "--"},
}


def pixel_file(image, quality, model):
    """Returns the bytes of an image under the pixel codec, a number, and the image read back."""
    (data,) = pixels.compress([image], quality, model=model)
    return len(data), pixels.decompress([data], model=model)[0]


def point(images, code):
    """Returns rate and quality of images under `code`: image -> number of bytes, image."""
    sizes, found = zip(*map(code, images), strict=True)
    squared = sum(np.sum((np.float64(a) - b) ** 2) for a, b in zip(images, found, strict=True))
    psnr = squared_error_to_psnr(squared / 255**2 / sum(image.size for image in images))
    return {"bpp": 8 * sum(sizes) / sum(x[..., 0].size for x in images), "psnr": float(psnr)}


def format_curve(out, split, images, settings):
    """Returns the points of a format that no cheaper one equals; see `Results.point`."""
    points = []
    for setting in settings:
        compute = functools.partial(point, images, functools.partial(stored, **setting))
        points.append(out.point("files", {**setting, "split": split}, compute))
    pairs = best_points((each["bpp"], each["psnr"]) for each in points)
    return [{"bpp": bpp, "psnr": psnr} for bpp, psnr in pairs]


def model_curve(out, split, images, model, qualities):
    """Returns the points of the pixel codec with one model; see `Results.point`."""
    points = []
    for quality in qualities:
        settings = {"model": model.fingerprint.hex(), "quality": quality, "split": split}
        code = functools.partial(pixel_file, quality=quality, model=model)
        points.append(out.point("pixels", settings, functools.partial(point, images, code)))
    return points


def more_bits(curve, other, rate):
    """By how much another curve's bits exceed a curve's at the PSNR it has at a rate, in %.

    The mean over its seeds; the second curve has one seed.
    """
    bits, psnrs = np.array([(p["bpp"], p["psnr"]) for p in other[0]]).T
    needed = np.interp(values_at(curve, rate), psnrs, np.log(bits), left=np.nan, right=np.nan)
    return 100 * float(np.mean(np.exp(needed) / rate - 1))


def verdict(curves):
    """Returns sentences, computed, on the mean PSNR of the pixel codec beside each format's."""
    lines = []
    for name in FORMATS:
        gains = {r: mean_at(curves[OURS], r)[0] - mean_at(curves[name], r)[0] for r in RATES}
        each = ", ".join(f"{x:+.2f} at {r}" for r, x in gains.items() if np.isfinite(x))
        lines.append(f"- dB above {name}, at bits a pixel: {each}.")
    return "\n".join(lines)


def report(out, curves):
    """Lays out the verdict, the curves and the table."""
    out.text(verdict(curves))
    out.figure(
        "pixel_files",
        curve_figure(
            curves, value="psnr", ylabel="PSNR, dB",
            title="Whole photographs as files, headers counted", looks=LOOKS,
        ),
        caption=f"The pixel codec's files beside other formats; models: {len(curves[OURS])}.",
    )  # fmt: skip
    rows = [
        [name, *(results.spread(values_at(curve, r)) for r in RATES)]
        for name, curve in curves.items()
    ]
    rows += [
        [f"{name}: more bits at equal PSNR",
         *(results.spread([more_bits(curves[OURS], curves[name], r)], "{:+.0f}%") for r in RATES)]
        for name in FORMATS
    ]  # fmt: skip
    out.table(
        "pixel_files", ["bits a pixel", *map(str, RATES)], rows,
        caption="PSNR in dB at given rates, between points linear in the rate's logarithm; mean ± "
        "standard deviation where there are several models.",
    )  # fmt: skip


def main(argv=None):
    """Measures all points and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", default="runs/full/pixel_files")
    parser.add_argument("--split", default="test", choices=tuple(PHOTOGRAPHS))
    parser.add_argument("--model", nargs="*", default=[], type=pathlib.Path)
    parser.add_argument("--qualities", nargs="*", default=QUALITIES, type=int)
    options = parser.parse_args(argv)
    results.log_plainly()
    out = results.Results(options.workdir, "The pixel codec beside other formats")
    split, images = options.split, [read_photograph(x) for x in PHOTOGRAPHS[options.split]]
    models = [pixels.read_model(path) for path in options.model] or [pixels.shipped_model()]
    curves = {OURS: [model_curve(out, split, images, model, options.qualities) for model in models]}
    curves |= {
        name: [format_curve(out, split, images, settings)] for name, settings in FORMATS.items()
    }
    report(out, curves)
    out.write(results.provenance("full"))


if __name__ == "__main__":
    main()
