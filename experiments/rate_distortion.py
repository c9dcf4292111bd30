"""Quality against bits: VQ, residual VQ, FSQ and sparse codes, beside JPEG and WebP.

    python -m experiments.rate_distortion --workdir=runs/full/rate_distortion

On pixel patches of photographs; `experiments.latent_codecs` has trained autoencoders. A rate is
what a decoder needs beside the codec itself: the cross-entropy of the test pictures' symbols
under tables of the training pictures' symbols, without a context model. Learned dictionaries are
part of the codec, as JPEG's tables are. JPEG and WebP files count whole, their headers included.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
from absl import app

from experiments import results
from experiments.photographs import source_settings
from experiments.picture_codecs import file_point, held_out, learned, measure
from experiments.rate_curves import (
    ATOMS,
    BOTH_ATOMS,
    BOTH_STAGES,
    FIXED_ATOMS,
    FIXED_STAGES,
    SHOWN_RATE,
    STAGES,
    VQ,
    by_rate,
    curve_figure,
    mean_at,
    picture_figure,
    point_table,
    rate_table,
    verdict,
)
from laser_jax.evaluation.formats import FORMATS, QUALITIES


class Size(NamedTuple):
    """How large a run is.

    Attributes:
      signals: training patches.
      num_atoms: of a sparse dictionary.
      stage_atoms: of each stage of residual VQ.
      stages: the most stages.
      sparsity: the most atoms of a code by rate.
      iterations: of each learning.
      bit_prices: squared error that a bit must save, one for each point of a sparse curve.
      stage_prices: the same of residual VQ, whose stages save less a bit.
      fixed: (atoms, step) of the fixed sparse codes.
      vq: (patch size, atoms) of plain VQ.
      seeds: of every curve.
      tries: the prices at which single ideas are taken away or added, one seed.
      crop: side of the test pictures' middle that is coded; 0: all of them.
    """

    signals: int
    num_atoms: int
    stage_atoms: int
    stages: int
    sparsity: int
    iterations: int
    bit_prices: tuple
    stage_prices: tuple
    fixed: tuple
    vq: tuple
    seeds: int
    tries: tuple
    crop: int


SIZES = {
    "small": Size(
        signals=6000, num_atoms=512, stage_atoms=256, stages=12, sparsity=24, iterations=4,
        bit_prices=(0.012, 0.003, 0.0008), stage_prices=(0.012, 0.003, 0.0008),
        fixed=((1, 0.35), (4, 0.2)), vq=((8, 256), (4, 256), (2, 64)),
        seeds=1, tries=(0.003,), crop=256,
    ),
    "full": Size(
        signals=30_000, num_atoms=2048, stage_atoms=1024, stages=16, sparsity=64, iterations=6,
        bit_prices=(0.02, 0.008, 0.003, 0.0012, 0.0005, 0.0002),
        stage_prices=(0.05, 0.02, 0.008, 0.003, 0.0012, 0.0005, 0.0002, 0.00006, 0.00002),
        fixed=((1, 0.35), (2, 0.28), (4, 0.2), (8, 0.14)),
        vq=((8, 256), (8, 4096), (4, 512), (4, 4096), (2, 256)),
        seeds=3, tries=(0.008, 0.0012), crop=0,
    ),
}  # fmt: skip


# The points. A curve is a list of points for each seed; a point a dict with bpp, psnr, lpips.


def by_rate_kinds(size):
    """Returns the settings of sparse codes and of residual VQ by rate, but for the price."""
    sparse = {"kind": "learn_sparse", "num_atoms": size.num_atoms, "sparsity": size.sparsity}
    stages = {
        "kind": "learn_stages", "num_atoms": size.stage_atoms * size.stages, "stages": size.stages,
    }  # fmt: skip
    return sparse, stages


def pixel_curves(out, size):
    """Returns name -> curve of the codecs on pixel patches."""
    sparse, stages = by_rate_kinds(size)
    settings = {
        VQ: [
            {"kind": "learn_fixed_stages", "num_atoms": m, "stages": 1, "patch": p}
            for p, m in size.vq
        ],
        FIXED_STAGES: [
            {"kind": "learn_fixed_stages", "num_atoms": size.stage_atoms * s, "stages": s}
            for s in (1, 2, 4, 8, 16)
            if s <= size.stages
        ],
        FIXED_ATOMS: [
            {"kind": "learn_fixed_sparse", "num_atoms": size.num_atoms, "sparsity": k, "step": step}
            for k, step in size.fixed
        ],
        STAGES: [{**stages, "bit_price": price} for price in size.stage_prices],
        ATOMS: [{**sparse, "bit_price": price} for price in size.bit_prices],
    }
    for plain, both in ((ATOMS, BOTH_ATOMS), (STAGES, BOTH_STAGES)):
        settings[both] = [{**point, "thumbnail": True} for point in settings[plain]]
    return {
        name: [
            [pixel_point(out, size, {**point, "seed": seed}) for point in points]
            for seed in range(size.seeds)
        ]
        for name, points in settings.items()
    }


def completed(out, size, settings):
    """Returns all settings of `learned`: those given, the rest from `size`."""
    shared = {"n": size.signals, "iterations": size.iterations, "crop": size.crop}
    shared |= source_settings(out.images)
    return {"thumbnail": False, "seed": 0, "patch": 8, **shared, **settings}


def pixel_point(out, size, settings):
    """Returns the measured point of a codec."""
    settings = completed(out, size, settings)
    return out.point("pixels", settings, lambda: measure(*learned(settings)))


def file_curves(out, size):
    """Returns JPEG's and WebP's curves: the settings that no cheaper one equals."""
    curves = {}
    for name, options in FORMATS.items():
        points = []
        for each, quality in itertools.product(options, QUALITIES):
            setting = {"format": name, "quality": quality, **each}
            compute = functools.partial(file_point, setting, size.crop, out.images)
            named = {**setting, "crop": size.crop, **source_settings(out.images)}
            points.append(out.point("files", named, compute))
        kept, best = [], -np.inf
        for point in by_rate(points):
            if point["psnr"] > best:
                best = point["psnr"]
                kept.append(point)
        curves[name] = [kept]
    return curves


def tried_ideas(out, size):
    """Returns (what was tried, its points at the prices of `size.tries`)."""
    base = {**by_rate_kinds(size)[0], "thumbnail": True}
    changes = {
        "as it is": {},
        "without the thumbnail": {"thumbnail": False},
        "a quarter of the atoms": {"num_atoms": size.num_atoms // 4},
        "a quarter of the training patches": {"n": size.signals // 4},
        "dictionary learned at 4 atoms a patch, only its tables at the rate": {
            "kind": "learn_sparse_unrated"
        },
        "patches and thumbnail of 4x4": {"patch": 4},
        "patches and thumbnail of 12x12": {"patch": 12},
        "patches and thumbnail of 16x16": {"patch": 16},
    }
    return {
        name: [
            pixel_point(out, size, {**base, **change, "bit_price": price}) for price in size.tries
        ]
        for name, change in changes.items()
    }


def run(out, size):
    """Computes every point and lays out the report."""
    pixels = pixel_curves(out, size) | file_curves(out, size)
    ideas = tried_ideas(out, size)
    report_pixels(out, size, pixels)
    report_ideas(out, size, ideas, pixels)


def report_pixels(out, size, curves):
    """Adds the results on pixels."""
    pictures = held_out(size.crop, out.images)
    shapes = " and ".join(dict.fromkeys(f"{p.shape[1]}x{p.shape[0]}" for p in pictures))
    out.heading("Verdict, on pixels")
    out.text(verdict(curves))
    out.figure(
        "pixels",
        curve_figure(curves, value="psnr", ylabel="PSNR, dB", title="Patches of photographs"),
        caption=f"PSNR of the pooled squared error of {len(pictures)} test pictures ({shapes}) "
        f"against the rate. Bands: one standard deviation over {size.seeds} seed(s).",
    )
    rate_table(
        out, "pixels_at_rates", curves,
        caption="PSNR in dB at given rates, between points linear in the rate's logarithm; mean "
        "± standard deviation over seeds.",
    )  # fmt: skip
    point_table(out, "pixels_points", curves)
    out.figure(
        "pixels_lpips",
        curve_figure(curves, value="lpips", ylabel="LPIPS, AlexNet (lower is better)", title=""),
        caption="The same points by LPIPS.",
    )
    out.figure(
        "pictures", picture_figure(curves, held_out(size.crop, out.images)[0]),
        caption=f"The points nearest to {SHOWN_RATE} bits a pixel, and where the atoms went.",
    )  # fmt: skip
    out.text(
        "All codecs learn from the same training pictures. *By rate*: the number of atoms, "
        "or stages, is chosen patch by patch so that squared error + lambda x bits is least, and "
        "the dictionary learns from such codes. *Thumbnail*: the patches' means are sent first, "
        "and each patch is predicted from the nine means around it; its bits are counted. FSQ "
        "stands in the second part only: without an encoder it is a scalar quantiser of pixels."
    )


def report_ideas(out, size, ideas, curves):
    """Adds what each idea gains, at the rate it comes to."""
    rows = []
    for name, points in ideas.items():
        for price, point in zip(size.tries, points, strict=True):
            gain = point["psnr"] - mean_at(curves[BOTH_ATOMS], point["bpp"])[0]
            rows.append([name, price, point["bpp"], f"{point['psnr']:.2f}", f"{gain:+.2f}"])
    out.heading("What each idea is worth")
    out.table(
        "ideas", ["change", "lambda", "bits a pixel", "PSNR, dB", "dB beside the best curve"], rows,
        caption=f"*{BOTH_ATOMS}* with one thing changed, seed 0; the last column compares at the "
        "rate reached.",
    )  # fmt: skip


if __name__ == "__main__":
    app.run(results.program("rate_distortion", "Quality against bits", run, SIZES))
