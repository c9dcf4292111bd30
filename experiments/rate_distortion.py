"""Quality against bits: VQ, residual VQ, FSQ and sparse codes, beside JPEG and WebP.

    python -m experiments.rate_distortion --workdir=runs/full/rate_distortion

On pixel patches of photographs, and in trained autoencoders of equal network and steps. A rate
is what a decoder needs beside the codec itself: the cross-entropy of the test pictures' symbols
under tables of the training pictures' symbols; a real range coder confirms some of them, there
and back. Learned dictionaries and networks are part of the codec, as JPEG's tables are. JPEG and
WebP files count whole, their headers included.
"""

import functools
from typing import NamedTuple

import numpy as np
from absl import app

from experiments import latent_codecs, results
from experiments.photographs import source_settings
from experiments.picture_codecs import coded, file_point, held_out, learned, measure, window
from laser_jax.figures import style

RATES = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0)  # bits a pixel of the tables
GOAL = 1.5  # dB above residual VQ of the same freedom
SHOWN_RATE = 0.5  # bits a pixel of the pictures shown


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
      latents: the size of the part with autoencoders.
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
    latents: latent_codecs.Size


SIZES = {
    "small": Size(
        signals=6000, num_atoms=512, stage_atoms=256, stages=12, sparsity=24, iterations=4,
        bit_prices=(0.012, 0.003, 0.0008), stage_prices=(0.012, 0.003, 0.0008),
        fixed=((1, 0.35), (4, 0.2)), vq=((8, 256), (4, 256), (2, 64)),
        seeds=1, tries=(0.003,), crop=256,
        latents=latent_codecs.SIZES["small"],
    ),
    "full": Size(
        signals=30_000, num_atoms=2048, stage_atoms=1024, stages=16, sparsity=64, iterations=6,
        bit_prices=(0.02, 0.008, 0.003, 0.0012, 0.0005, 0.0002),
        stage_prices=(0.05, 0.02, 0.008, 0.003, 0.0012, 0.0005, 0.0002, 0.00006, 0.00002),
        fixed=((1, 0.35), (2, 0.28), (4, 0.2), (8, 0.14)),
        vq=((8, 256), (8, 4096), (4, 512), (4, 4096), (2, 256)),
        seeds=3, tries=(0.008, 0.0012), crop=0, latents=latent_codecs.SIZES["full"],
    ),
}  # fmt: skip

# The curves, and how they are drawn.
VQ, FIXED_STAGES, STAGES, BOTH_STAGES = (
    "VQ", "residual VQ, fixed stages", "residual VQ, stages by rate",
    "residual VQ, stages by rate, thumbnail",
)  # fmt: skip
FIXED_ATOMS, ATOMS, BOTH_ATOMS = (
    "sparse, fixed atoms", "sparse, atoms by rate", "sparse, atoms by rate, thumbnail",
)  # fmt: skip
LOOKS = {
    VQ: {"color": style.SKY, "linestyle": "-"},
    FIXED_STAGES: {"color": style.BLUE, "linestyle": ":"},
    STAGES: {"color": style.BLUE, "linestyle": "--"},
    BOTH_STAGES: {"color": style.BLUE, "linestyle": "-"},
    "FSQ": {"color": style.GREEN, "linestyle": "-"},
    FIXED_ATOMS: {"color": style.RED, "linestyle": ":"},
    ATOMS: {"color": style.RED, "linestyle": "--"},
    latent_codecs.PATCHES: {"color": style.ORANGE, "linestyle": "--"},
    BOTH_ATOMS: {"color": style.RED, "linestyle": "-"},
    "JPEG": {"color": style.BLACK, "linestyle": "-."},
    "WebP": {"color": style.BLACK, "linestyle": ":"},
}


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
    """Returns JPEG's and WebP's curves: of all settings those that no cheaper one equals."""
    trials = {
        "JPEG": [{"format": "JPEG", "optimize": True, "subsampling": s, "quality": q}
                 for s in (0, 2) for q in (5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 93)],
        "WebP": [{"format": "WEBP", "method": 6, "quality": q}
                 for q in (1, 5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 88, 94)],
    }  # fmt: skip
    curves = {}
    for name, settings in trials.items():
        points = []
        for setting in settings:
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


def coder_rows(out, size):
    """Returns rows (codec, bits by the tables, bits written, their ratio), read back and equal."""
    rows = []
    for name, kind in zip((BOTH_ATOMS, BOTH_STAGES), by_rate_kinds(size), strict=True):
        for price in (size.bit_prices[1], size.bit_prices[-2]):
            settings = completed(out, size, {**kind, "thumbnail": True, "bit_price": price})
            found = out.point("coder", settings, functools.partial(coded, settings))
            estimate, written = found["estimate"], found["written"]
            rows.append([name, price, estimate, written, f"{written / estimate:.4f}"])
    return rows


def by_rate(points):
    return sorted(points, key=lambda point: point["bpp"])


# What they say.


def at_rate(points, rate, value="psnr"):
    """Returns a curve's value at a rate, linear between points in the rate's logarithm; nan
    beyond its ends."""
    rates, values = np.array([(p["bpp"], p[value]) for p in by_rate(points)]).T
    return np.interp(np.log(rate), np.log(rates), values, left=np.nan, right=np.nan)


def values_at(curve, rate, value="psnr"):
    """Returns the value of each of a curve's seeds at a rate."""
    return [at_rate(points, rate, value) for points in curve]


def mean_at(curve, rate, value="psnr"):
    """Returns mean and spread (standard deviation) over a curve's seeds at a rate."""
    values = values_at(curve, rate, value)
    return float(np.mean(values)), float(np.std(values))


def rate_table(out, name, curves, *, caption):
    """Adds PSNR at fixed rates, with its spread where there are seeds."""
    rows = [
        [curve_name, *(results.spread(values_at(curve, rate)) for rate in RATES)]
        for curve_name, curve in curves.items()
    ]
    out.table(name, ["bits a pixel", *(str(rate) for rate in RATES)], rows, caption=caption)


def point_table(out, name, curves):
    """Writes every point as CSV."""
    rows = [
        [curve_name, seed, point["bpp"], point["psnr"], point["lpips"], point.get("atoms", "")]
        for curve_name, curve in curves.items()
        for seed, points in enumerate(curve)
        for point in points
    ]
    out.csv(name, ["curve", "seed", "bits a pixel", "PSNR, dB", "LPIPS, AlexNet", "atoms"], rows)


def lead(curves, name, rival):
    """Returns rate -> how many dB one curve is above another, where both are known."""
    gains = {
        rate: mean_at(curves[name], rate)[0] - mean_at(curves[rival], rate)[0] for rate in RATES
    }
    return {rate: gain for rate, gain in gains.items() if np.isfinite(gain)}


def verdict(curves):
    """Returns sentences, computed, on where sparse codes on pixels win and where they lose."""
    lines = []
    for name, rival in (
        (BOTH_ATOMS, BOTH_STAGES), (ATOMS, STAGES), (BOTH_ATOMS, STAGES), (BOTH_ATOMS, "JPEG"),
        (BOTH_ATOMS, "WebP"),
    ):  # fmt: skip
        gains = lead(curves, name, rival)
        if not gains:
            lines.append(f"- *{name}* and *{rival}* have no rate of the table in common.")
            continue
        wins = [f"{rate}" for rate, gain in gains.items() if gain > 0]
        each = ", ".join(f"{gain:+.2f} at {rate}" for rate, gain in gains.items())
        where = "at no rate" if not wins else "at " + ", ".join(wins) + " bits a pixel"
        if len(wins) == len(gains):
            where = "at every rate compared"
        lines.append(f"- *{name}* is above *{rival}* {where}; dB: {each}.")
    for rival, said in (
        (BOTH_STAGES, "which has the thumbnail too"), (STAGES, "which has no thumbnail"),
    ):  # fmt: skip
        gains = lead(curves, BOTH_ATOMS, rival)
        met = ", ".join(str(rate) for rate, gain in gains.items() if gain >= GOAL) or "none"
        lines.append(
            f"- The goal, {GOAL} dB above residual VQ with stages by rate, {said}: met at {met} of "
            f"{', '.join(map(str, gains))} bits a pixel."
        )
    return "\n".join(lines)


# Figures.


def curve_figure(curves, *, value, ylabel, title):
    """Returns a figure of curves against the rate; bands are one standard deviation over seeds."""
    figure = style.new_figure(8, 5)
    axes = figure.subplots()
    for name, curve in curves.items():
        rates, values = (
            np.array([[point[key] for point in by_rate(points)] for points in curve])
            for key in ("bpp", value)
        )
        if not np.isfinite(values).all():
            continue
        x, y, spread = rates.mean(0), values.mean(0), values.std(0)
        axes.plot(x, y, **LOOKS[name], marker="o", markersize=3, linewidth=1.5, label=name)
        axes.fill_between(x, y - spread, y + spread, color=LOOKS[name]["color"], alpha=0.2, lw=0)
    style.clean(axes, xlabel="bits a pixel", ylabel=ylabel, title=title)
    ticks = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(ticks, map(str, ticks))
    axes.legend(fontsize=8, frameon=False)
    return figure


def picture_figure(curves, picture):
    """Returns a figure of one window through several codecs at about `SHOWN_RATE`, and of where
    the atoms went."""
    names = (STAGES, BOTH_STAGES, ATOMS, BOTH_ATOMS, "JPEG", "WebP")
    nearest = {
        name: min(curves[name][0], key=lambda p: abs(np.log(p["bpp"] / SHOWN_RATE)))
        for name in names
    }
    figure = style.new_figure(8, 12.5)
    panels = figure.subplots(4, 2).ravel()
    style.picture(panels[0], window(picture), title="original\n")
    for axes, (name, point) in zip(panels[1:], nearest.items(), strict=False):
        title = f"{name}\n{point['bpp']:.2f} bits a pixel, {point['psnr']:.1f} dB"
        style.picture(axes, point["window"], title=title)
    atoms = window(nearest[BOTH_ATOMS]["atom_map"], scale=8)
    shown = style.picture(panels[7], atoms, title=f"atoms of each patch,\n{BOTH_ATOMS}",
                          cmap="magma")  # fmt: skip
    figure.colorbar(shown, ax=panels[7], location="bottom", pad=0.02).ax.tick_params(labelsize=8)
    return figure


def latent_map_figure(curves):
    """Returns a figure of a photograph through an autoencoder, and the atoms of each latent."""
    figure = style.new_figure(8, 3)
    name = latent_codecs.BY_RATE
    points = by_rate(curves[name][0])
    chosen = points[len(points) // 2]
    left, right = figure.subplots(1, 2)
    title = f"{name}\n{chosen['bpp']:.2f} bits a pixel, {chosen['psnr']:.1f} dB on test windows"
    style.picture(left, chosen["picture"], title=title)
    shown = style.picture(right, chosen["atom_map"], title="atoms of each latent\n", cmap="magma")
    figure.colorbar(shown, ax=right, shrink=0.9).ax.tick_params(labelsize=8)
    return figure


def run(out, size):
    """Computes every point and lays out the report."""
    pixels = pixel_curves(out, size) | file_curves(out, size)
    ideas, coder = tried_ideas(out, size), coder_rows(out, size)
    latents = latent_codecs.latent_points(out, size.latents)
    report_pixels(out, size, pixels)
    report_ideas(out, size, ideas, pixels)
    report_coder(out, coder)
    report_latents(out, size, latents)


def report_pixels(out, size, curves):
    """Adds what was found on pixels."""
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


def report_coder(out, rows):
    """Adds the real coder's sizes."""
    out.heading("A real coder")
    out.table(
        "coder", ["codec", "lambda", "bits by the tables", "bits written", "ratio"], rows,
        caption="The test pictures written by a range coder (constriction) under the same "
        "tables, read back and equal, symbol by symbol.",
    )  # fmt: skip


def report_latents(out, size, curves):
    """Adds what was found in trained autoencoders."""
    small = size.latents
    out.heading("In trained autoencoders")
    out.figure(
        "latents",
        curve_figure(
            curves, value="psnr", ylabel="PSNR, dB",
            title="Autoencoders of one network and one number of steps",
        ),
        caption=f"Test images; {small.num_hiddens} hidden units, "
        f"{small.steps} steps of batch 64, latents of 1/4 the side; {small.seeds} seed(s).",
    )  # fmt: skip
    rate_table(
        out, "latents_at_rates", curves,
        caption="PSNR in dB at given rates, as above. Codes by rate were trained so.",
    )  # fmt: skip
    point_table(out, "latents_points", curves)
    if latent_codecs.BY_RATE in curves:
        out.figure(
            "latents_atoms", latent_map_figure(curves),
            caption="Where an autoencoder's atoms go: a photograph, and the atoms of each of its "
            "latents.",
        )  # fmt: skip


if __name__ == "__main__":
    app.run(results.program("rate_distortion", "Quality against bits", run, SIZES))
