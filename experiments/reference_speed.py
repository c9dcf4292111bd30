"""The time of VQ and of sparse coding, one signal a pixel, by batch. A part of `reference`.

PyTorch's VQ is timed too where torch is installed, so that a slow VQ cannot flatter the ratio.
"""

import functools
import importlib.util

import jax
import numpy as np

from experiments.photographs import square_images
from experiments.reference_patches import through
from experiments.timing import machine, median_times
from laser_jax.figures import style
from laser_jax.sparse import matching_pursuit, nearest_atom, omp

VQ, PURSUIT, OMP, TORCH = "VQ", "matching pursuit", "OMP", "PyTorch VQ"
# The reference system's README, ms by batch on an unnamed GPU.
PUBLISHED_MS = {
    1: {VQ: 1.2, PURSUIT: 9.0},
    4: {VQ: 1.8, PURSUIT: 33.0},
    8: {VQ: 2.6, PURSUIT: 64.5},
    16: {VQ: 5.0, PURSUIT: 128.6},
}
SLOWDOWN, SCALING = 4.0, 1.1  # goals of the times
LOOKS = {VQ: style.VQ, PURSUIT: style.DICTIONARY, OMP: {"color": style.GREEN, "linestyle": "-."},
         TORCH: {"color": style.BLACK, "linestyle": (0, (1, 2))}}  # fmt: skip


def run(out, size, settings, dictionaries):
    """Measures the times and adds them to the report.

    Args:
      out: the `Results`.
      size: has sparsity_level, side, batches and rounds.
      settings: what the dictionaries depend on.
      dictionaries: codebook and dictionary of pixels.
    """
    settings = {**settings, "batches": size.batches, "rounds": size.rounds, **machine()}
    compute = functools.partial(measure, size, out.images, *dictionaries)
    times = out.point("speed", settings, compute)
    out.heading("Speed")
    out.text(verdict(size, times))
    out.table(
        "speed", *table(size, times),
        caption=f"Median ms to encode and decode a batch of {size.side}x{size.side} images, "
        f"{size.num_embeddings} entries, {size.sparsity_level} atoms a pixel. Slowdown: matching "
        "pursuit over VQ. Scaling: its time relative to batch 1.",
    )  # fmt: skip
    out.figure(
        "speed", figure(size, times),
        caption="Time of a batch. Thin gray lines: the reference's published times, on its GPU.",
    )  # fmt: skip
    out.text(
        "The published times come from another machine, so only ratios compare. There the pursuit "
        "is a Python loop of small kernels; here it is one compiled program over blocks of pixels."
    )


def measure(size, source, codebook, atoms):
    """Returns milliseconds by name, `(batches,)` each; results are checked before timing."""
    images = square_images(source, split="test", count=max(size.batches), side=size.side)
    k, times = size.sparsity_level, {}
    coders = {
        VQ: (codebook, nearest_atom),
        PURSUIT: (atoms, functools.partial(matching_pursuit, sparsity=k)),
        OMP: (atoms, functools.partial(omp, sparsity=k)),
    }
    for batch in size.batches:
        runs = {name: through(images[:batch], *coder) for name, coder in coders.items()}
        if importlib.util.find_spec("torch"):
            runs[TORCH] = torch_vq(images[:batch], codebook)
        check(images[:batch], codebook, {name: np.asarray(run()) for name, run in runs.items()})
        for name, ms in median_times(runs, rounds=size.rounds).items():
            times.setdefault(name, []).append(ms)
    return times


def torch_vq(images, codebook):
    """Returns a function: the nearest entries of images in PyTorch, as VQ is usually written."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    y, c = (torch.from_numpy(np.array(x)).to(device) for x in (images, codebook))
    pixels = y.reshape(-1, y.shape[-1])
    # The copy to the CPU waits for a GPU's result.
    return lambda: c[torch.cdist(pixels, c).argmin(1)].reshape(y.shape).cpu()


def check(images, codebook, answers):
    """Raises AssertionError unless every VQ is as near as float64's, and OMP is exact."""
    pixels = np.float64(images.reshape(-1, 3)[:4096])
    least = np.min(np.sum((pixels[:, None] - codebook[None]) ** 2, -1), -1)
    for name in (VQ, TORCH):
        if name in answers:
            found = np.sum((pixels - answers[name].reshape(-1, 3)[:4096]) ** 2, -1)
            np.testing.assert_allclose(found, least, rtol=1e-3, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(answers[OMP], images, atol=1e-3, err_msg=OMP)


def verdict(size, times):
    """Returns whether the times meet the two goals."""
    slowdown = times[PURSUIT] / times[VQ]
    a_pixel = 1e3 * times[PURSUIT] / (np.array(size.batches) * size.side**2)
    growth = a_pixel[-1] / a_pixel[0]
    lines = [
        f"- Slowdown of matching pursuit against VQ: {span(slowdown)} (published: 7.5 to 26); the "
        f"goal, at most {SLOWDOWN:g} at every batch, is {met(slowdown.max() <= SLOWDOWN)}.",
        f"- A pixel takes {a_pixel[-1]:.3f} microseconds at batch {size.batches[-1]}, "
        f"{growth:.2f} times that of batch {size.batches[0]}; the goal, at most {SCALING:g}, is "
        f"{met(growth <= SCALING)}.",
    ]
    if TORCH in times:
        lines.append(
            f"- PyTorch's VQ takes {span(times[TORCH] / times[VQ])} times as long as ours; "
            f"matching pursuit takes {span(times[PURSUIT] / times[TORCH])} times as long as it."
        )
    return "\n".join(lines)


def span(values):
    return f"{np.min(values):.1f} to {np.max(values):.1f}"


def met(holds):
    return "met" if holds else "**not met**"


def table(size, times):
    """Returns header and rows, a batch each, the published numbers in the last columns."""
    names = [name for name in (VQ, TORCH, PURSUIT, OMP) if name in times]
    rows = []
    for i, batch in enumerate(size.batches):
        ms = {name: float(times[name][i]) for name in names}
        theirs = PUBLISHED_MS.get(batch)
        rows.append([
            batch, *ms.values(), f"{ms[PURSUIT] / ms[VQ]:.2f}",
            *(f"{1e3 * ms[name] / batch / size.side**2:.4f}" for name in (VQ, PURSUIT)),
            f"{ms[PURSUIT] / float(times[PURSUIT][0]):.2f}",
            *([theirs[VQ], theirs[PURSUIT], f"{theirs[PURSUIT] / theirs[VQ]:.1f}"] if theirs
              else ["", "", ""]),
        ])  # fmt: skip
    header = [
        "batch", *(f"{name}, ms" for name in names), "slowdown", "VQ, µs a pixel",
        "pursuit, µs a pixel", "scaling", "published VQ, ms", "published dictionary, ms",
        "published slowdown",
    ]  # fmt: skip
    return header, rows


def figure(size, times):
    """Returns a figure of the times by batch, ours and the published ones."""
    drawn = style.new_figure(8, 4)
    axes = drawn.subplots()
    for name, ms in times.items():
        axes.plot(size.batches, ms, **LOOKS[name], marker="o", markersize=4, label=name)
    for name in (VQ, PURSUIT):
        theirs = [PUBLISHED_MS[batch][name] for batch in PUBLISHED_MS]
        axes.plot(list(PUBLISHED_MS), theirs, color="0.6", linewidth=1)
        axes.annotate(f"published {name}", (max(PUBLISHED_MS), theirs[-1]), fontsize=8, color="0.4",
                      xytext=(6, 0), textcoords="offset points", va="center")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(size.batches, map(str, size.batches))
    axes.set_xlim(size.batches[0] * 0.85, size.batches[-1] * 2.2)
    style.clean(axes, xlabel="images of a batch", ylabel="ms")
    axes.legend(fontsize=8, frameon=False)
    return drawn
