"""Curves of quality against bits: their values at a rate, tables, a verdict, figures.

A curve is a list of points for each seed; a point a dict with bpp and psnr, and maybe lpips.
"""

import numpy as np

from experiments import results
from experiments.picture_codecs import window
from laser_jax.evaluation.formats import psnr_at
from laser_jax.figures import style

RATES = (0.3, 0.5, 0.75, 1.0, 1.5, 2.0)  # bits a pixel of the tables
GOAL = 1.5  # dB above residual VQ of the same freedom
SHOWN_RATE = 0.5  # bits a pixel of the pictures shown

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
    FIXED_ATOMS: {"color": style.RED, "linestyle": ":"},
    ATOMS: {"color": style.RED, "linestyle": "--"},
    BOTH_ATOMS: {"color": style.RED, "linestyle": "-"},
    "JPEG": {"color": style.BLACK, "linestyle": "-."},
    "WebP": {"color": style.BLACK, "linestyle": ":"},
}


def by_rate(points):
    return sorted(points, key=lambda point: point["bpp"])


def at_rate(points, rate, value="psnr"):
    """Returns a curve's value at a rate; see `psnr_at`."""
    return psnr_at([(point["bpp"], point[value]) for point in points], rate)


def values_at(curve, rate, value="psnr"):
    """Returns the value of each of a curve's seeds at a rate."""
    return [at_rate(points, rate, value) for points in curve]


def mean_at(curve, rate, value="psnr"):
    """Returns mean and spread (standard deviation) over a curve's seeds at a rate."""
    values = values_at(curve, rate, value)
    return float(np.mean(values)), float(np.std(values))


def best_of(curves, rate):
    """Returns the name of the curve with the most dB at a rate, and these; None twice if none."""
    found = {name: mean_at(curve, rate)[0] for name, curve in curves.items()}
    found = {name: value for name, value in found.items() if np.isfinite(value)}
    return max(found.items(), key=lambda item: item[1], default=(None, None))


def rate_table(out, name, curves, *, caption, rates=RATES):
    """Adds PSNR at fixed rates, with its spread where there are seeds."""
    rows = [
        [curve_name, *(results.spread(values_at(curve, rate)) for rate in rates)]
        for curve_name, curve in curves.items()
    ]
    out.table(name, ["bits a pixel", *(str(rate) for rate in rates)], rows, caption=caption)


def point_table(out, name, curves):
    """Writes every point as CSV."""
    rows = [
        [curve_name, seed, point["bpp"], point["psnr"], point.get("lpips", ""),
         point.get("atoms", "")]
        for curve_name, curve in curves.items()
        for seed, points in enumerate(curve)
        for point in points
    ]  # fmt: skip
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


def curve_figure(curves, *, value, ylabel, title, looks=LOOKS):
    """Returns a figure of curves against the rate; bands are one standard deviation over seeds.

    `looks` are options of matplotlib's plot for each curve.
    """
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
        axes.plot(x, y, **looks[name], marker="o", markersize=3, linewidth=1.5, label=name)
        axes.fill_between(x, y - spread, y + spread, color=looks[name]["color"], alpha=0.2, lw=0)
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
