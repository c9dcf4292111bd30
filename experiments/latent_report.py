"""The report of `experiments.latent_codecs`: a verdict, curves and tables."""

import numpy as np

from experiments import results
from experiments.rate_curves import (
    at_rate,
    best_of,
    by_rate,
    curve_figure,
    mean_at,
    point_table,
    rate_table,
)
from laser_jax.evaluation.formats import FORMATS
from laser_jax.figures import style

GOAL = 1.0  # dB of sparse codes above the best kind of VQ
RATES = (0.2, 0.3, 0.4, 0.5, 0.75, 1.0)  # bits a pixel of the tables
PARTS = ("counts", "atoms", "levels")
SPARSE, SPARSE_PATCHES = "sparse by rate", "sparse by rate, 2x2"


def is_sparse(curve):
    return curve.startswith("sparse")


def look(curve):
    """Returns how a curve is drawn: the colour is the kind of code, the line its options."""
    colors = {"sparse": style.RED, "residual VQ by rate": style.PURPLE, "residual": style.BLUE,
              "VQ": style.SKY, "FSQ": style.GREEN}  # fmt: skip
    if curve in FORMATS:
        return {"color": style.BLACK, "linestyle": "-." if curve == "JPEG" else ":"}
    color = next(color for kind, color in colors.items() if curve.startswith(kind))
    options = {"2x2": "-", "cosine": ":", "rotation": "-."}
    line = next((line for option, line in options.items() if option in curve), "--")
    return {"color": color, "linestyle": line}


def report(out, size, curves, ideas, files):
    """Lays out the verdict, the curves, the tables and what each idea gave."""
    out.heading("Verdict")
    out.text(verdict(curves))
    most = max(point["bpp"] for curve in curves.values() for point in curve[0])
    drawn = {name: [[x for x in curve[0] if x["bpp"] <= most]] for name, curve in files.items()}
    out.figure(
        "latents",
        curve_figure(
            curves | drawn, value="psnr", ylabel="PSNR, dB",
            title="Autoencoders of one network and one number of steps, true rates",
            looks={name: look(name) for name in curves | drawn},
        ),
        caption=f"Test windows; {size.num_hiddens} hidden units, {size.steps} steps of batch "
        f"64, latents of 1/4 the side. Seed 0; {size.seeds} seeds of {', '.join(size.front)}.",
    )  # fmt: skip
    rate_table(
        out, "latents_at_rates", curves | files, rates=RATES,
        caption="PSNR in dB at given true rates, between points linear in the rate's logarithm; "
        "mean ± standard deviation where there are several seeds.",
    )  # fmt: skip
    point_table(out, "latents_points", curves | files)
    _report_points(out, curves, files)
    _report_ideas(out, curves, ideas)
    _report_savings(out, curves)
    out.figure(
        "latents_atoms",
        map_figure(curves[SPARSE_PATCHES][0]),
        caption="Where an autoencoder's atoms go: a photograph, and the atoms of each signal.",
    )


def map_figure(points):
    """Returns a figure of a photograph through an autoencoder, and the atoms of each signal."""
    figure = style.new_figure(8, 3)
    chosen = by_rate(points)[len(points) // 2]
    left, right = figure.subplots(1, 2)
    title = f"{chosen['bpp']:.2f} bits a pixel, {chosen['psnr']:.1f} dB on test windows"
    style.picture(left, chosen["picture"], title=title)
    shown = style.picture(right, chosen["atom_map"], title="atoms of each signal", cmap="magma")
    figure.colorbar(shown, ax=right, shrink=0.9).ax.tick_params(labelsize=8)
    return figure


def verdict(curves):
    """Returns sentences, computed, on sparse codes and the best kind of VQ at each rate."""
    lines, met = [], []
    for rate in RATES:
        mine, ours = best_of({k: x for k, x in curves.items() if is_sparse(k)}, rate)
        theirs, other = best_of({k: x for k, x in curves.items() if not is_sparse(k)}, rate)
        if mine is None or theirs is None:
            continue
        lines.append(
            f"- {rate} bits a pixel: *{mine}* {ours:.2f} dB, *{theirs}* {other:.2f} dB, "
            f"{ours - other:+.2f} dB."
        )
        met += [str(rate)] if ours - other >= GOAL else []
    where = f"at {', '.join(met)} bits a pixel" if met else "at no rate"
    return "\n".join([*lines, f"- The goal, {GOAL} dB above the best kind of VQ: met {where}."])


def _report_points(out, curves, files):
    rows = []
    for name, curve in curves.items():
        for point in curve[0]:
            beside = [
                at_rate(x[0], point["bpp"]) for x in (curves[SPARSE_PATCHES], *files.values())
            ]
            if name == SPARSE_PATCHES:
                beside[0] = np.nan
            rows.append(
                [point["code"], f"{point['bpp']:.3f}", f"{point['psnr']:.2f}",
                 *(results.spread([x]) for x in beside), f"{point['fixed']:.2f}"]
            )  # fmt: skip
    out.table(
        "latents_runs",
        ["code", "bits a pixel, true", "PSNR, dB", f"{SPARSE_PATCHES}, at this rate", *files,
         "bits a pixel, fixed length"],
        rows,
        caption="The trained runs, seed 0; 2x2: patches of latents. Beside each, the PSNR in dB of "
        "other codes at its rate. Fixed length: integer levels of at most 31.",
    )  # fmt: skip


def _report_ideas(out, curves, ideas):
    rows = []
    for name, points in ideas.items():
        for point in points:
            gain = point["psnr"] - mean_at(curves[SPARSE_PATCHES][:1], point["bpp"])[0]
            rows.append([name, f"{point['bpp']:.3f}", f"{point['psnr']:.2f}", f"{gain:+.2f}"])
    out.table(
        "latents_ideas", ["change", "bits a pixel", "PSNR, dB", "dB beside the curve"], rows,
        caption=f"*{SPARSE_PATCHES}* with one thing changed, seed 0, compared with its curve at "
        "the rate reached.",
    )  # fmt: skip


def _report_savings(out, curves):
    rows = []
    for curve in curves.values():
        for point in curve[0]:
            before, after = (
                np.array(point[x]) / point["signals"] for x in ("order 0", "in context")
            )
            cells = [f"{a:.2f} → {b:.2f}" if a else "" for a, b in zip(before, after, strict=True)]
            total = f"{before.sum():.2f} → {after.sum():.2f}"
            saved = f"{100 * (1 - after.sum() / before.sum()):.0f}%"
            rows.append([point["code"], f"{point['bpp']:.3f}", *cells, total, saved])
    out.table(
        "latents_savings", ["code", "bits a pixel", *PARTS, "all", "saved"], rows,
        caption="Bits of a signal, test windows, under tables of order 0 and under the context "
        "model, both fitted on training windows, seed 0.",
    )  # fmt: skip
