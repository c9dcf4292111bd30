"""The time of VQ and of sparse coding, a pixel a signal: images of 128x128, batches of 1 to 16.

    python -m experiments.speed --workdir=runs/full/speed

The reference system's comparison: 16 entries, 4 atoms a pixel; encode and decode. PyTorch's VQ
stands beside ours where torch is installed, so that a slow VQ cannot flatter the ratio.
"""

import functools
import importlib.util
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app

from experiments import results
from experiments.photographs import square_images
from experiments.timing import machine, median_times, waiting
from laser_jax.figures import style
from laser_jax.sparse import (
    decode,
    fit_dictionary,
    kmeans_init,
    matching_pursuit,
    nearest_atom,
    omp,
)

VQ, PURSUIT, OMP, TORCH = "VQ", "matching pursuit", "OMP", "PyTorch VQ"
# The reference system's README, ms on a GPU that it does not name, by batch.
PUBLISHED = {
    1: {VQ: 1.2, PURSUIT: 9.0},
    4: {VQ: 1.8, PURSUIT: 33.0},
    8: {VQ: 2.6, PURSUIT: 64.5},
    16: {VQ: 5.0, PURSUIT: 128.6},
}
SLOWDOWN, SCALING = 4.0, 1.1  # the goals
LOOKS = {VQ: style.VQ, PURSUIT: style.DICTIONARY, OMP: {"color": style.GREEN, "linestyle": "-."},
         TORCH: {"color": style.BLACK, "linestyle": (0, (1, 2))}}  # fmt: skip


class Size(NamedTuple):
    """Entries, atoms a pixel, sides, batches, and rounds of timing."""

    num_embeddings: int = 16
    sparsity_level: int = 4
    side: int = 128
    batches: tuple = (1, 4, 8, 16)
    rounds: int = 41


SIZES = {"small": Size(rounds=11), "full": Size()}


def programs(size):
    """Returns name -> jitted function of images and atoms to images."""
    k = size.sparsity_level
    coders = {
        VQ: nearest_atom,
        PURSUIT: functools.partial(matching_pursuit, sparsity=k),
        OMP: functools.partial(omp, sparsity=k),
    }

    def code_and_decode(images, atoms, coder):
        return decode(coder(images, atoms), atoms)

    return {
        name: jax.jit(functools.partial(code_and_decode, coder=coder))
        for name, coder in coders.items()
    }


def torch_vq(images, codebook):
    """Returns a function: PyTorch's nearest entries of images, as VQ is usually written there."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    y, c = (torch.from_numpy(np.array(x)).to(device) for x in (images, codebook))
    pixels = y.reshape(-1, y.shape[-1])
    # On the CPU at the end: a GPU's result is awaited so.
    return lambda: c[torch.cdist(pixels, c).argmin(1)].reshape(y.shape).cpu()


def measure(size, source):
    """Returns milliseconds by name, `(batches,)` each; the answers are checked before."""
    images = square_images(source, split="test", count=max(size.batches), side=size.side)
    pixels = jnp.asarray(images[:: max(1, len(images) // 4)].reshape(-1, 3)[:20_000])
    key = jax.random.key(0)
    codebook = kmeans_init(pixels, size.num_embeddings, key=key)
    atoms = fit_dictionary(
        pixels, num_atoms=size.num_embeddings, sparsity=2, method="exact", iterations=3, key=key
    ).dictionary
    run, times = programs(size), {}
    for batch in size.batches:
        y = jnp.asarray(images[:batch])
        runs = {name: waiting(f, y, codebook if name == VQ else atoms) for name, f in run.items()}
        answers = {name: np.asarray(f()) for name, f in runs.items()}
        if importlib.util.find_spec("torch"):
            runs[TORCH] = torch_vq(images[:batch], codebook)
            answers[TORCH] = runs[TORCH]().numpy()
        check(images[:batch], np.asarray(codebook), answers)
        for name, ms in median_times(runs, rounds=size.rounds).items():
            times.setdefault(name, []).append(ms)
    return times


def check(images, codebook, answers):
    """Raises AssertionError unless every VQ is as near as float64's, and OMP is exact."""
    pixels = np.float64(images.reshape(-1, 3)[:4096])
    least = np.min(np.sum((pixels[:, None] - codebook[None]) ** 2, -1), -1)
    for name in (VQ, TORCH):
        if name in answers:
            found = np.sum((pixels - answers[name].reshape(-1, 3)[:4096]) ** 2, -1)
            np.testing.assert_allclose(found, least, rtol=1e-3, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(answers[OMP], images, atol=1e-3, err_msg=OMP)


def run(out, size):
    """Measures, and lays out the report."""
    settings = {**size._asdict(), "images": out.images, **machine()}
    times = out.point("speed", settings, functools.partial(measure, size, out.images))
    out.text(verdict(size, times))
    header, rows = table(size, times)
    out.table(
        "speed", header, rows,
        caption=f"Median ms to encode and decode a batch of {size.side}x{size.side} images, "
        f"{size.num_embeddings} entries, {size.sparsity_level} atoms a pixel. Slowdown: matching "
        "pursuit over VQ. Scaling: its time beside that of batch 1.",
    )  # fmt: skip
    out.figure(
        "speed", figure(size, times),
        caption="Time of a batch. Thin gray lines: the reference's published times, on its GPU.",
    )  # fmt: skip
    out.text(
        "The published times are of another machine, so only the ratios compare. There the pursuit "
        "is a Python loop of small kernels; here it is one compiled program over blocks of pixels."
    )


def verdict(size, times):
    """Returns what the numbers say of the two goals."""
    slowdown = times[PURSUIT] / times[VQ]
    a_pixel = 1e3 * times[PURSUIT] / (np.array(size.batches) * size.side**2)
    growth = a_pixel[-1] / a_pixel[0]
    lines = [
        f"- Slowdown of matching pursuit against VQ: {span(slowdown)} (published: 7.9 to 26); the "
        f"goal, at most {SLOWDOWN:g} at every batch, is {met(slowdown.max() <= SLOWDOWN)}.",
        f"- A pixel takes {a_pixel[-1]:.3f} microseconds at batch {size.batches[-1]}, "
        f"{growth:.2f} times that of batch {size.batches[0]}; the goal, at most {SCALING:g}, is "
        f"{met(growth <= SCALING)}.",
    ]
    if TORCH in times:
        lines.append(
            f"- PyTorch's VQ takes {span(times[TORCH] / times[VQ])} times as long as ours; beside "
            f"it matching pursuit takes {span(times[PURSUIT] / times[TORCH])} times as long."
        )
    return "\n".join(lines)


def span(values):
    return f"{np.min(values):.1f} to {np.max(values):.1f}"


def met(holds):
    return "met" if holds else "**not met**"


def table(size, times):
    """Returns header and rows, a batch each, the published figures in the last columns."""
    names = [name for name in (VQ, TORCH, PURSUIT, OMP) if name in times]
    rows = []
    for i, batch in enumerate(size.batches):
        ms = {name: float(times[name][i]) for name in names}
        theirs = PUBLISHED.get(batch)
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
    """Returns a figure of the times against the batch, ours and the published."""
    drawn = style.new_figure(8, 4)
    axes = drawn.subplots()
    for name, ms in times.items():
        axes.plot(size.batches, ms, **LOOKS[name], marker="o", markersize=4, label=name)
    for name in (VQ, PURSUIT):
        theirs = [PUBLISHED[batch][name] for batch in PUBLISHED]
        axes.plot(list(PUBLISHED), theirs, color="0.6", linewidth=1)
        axes.annotate(f"published {name}", (max(PUBLISHED), theirs[-1]), fontsize=8, color="0.4",
                      xytext=(6, 0), textcoords="offset points", va="center")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(size.batches, map(str, size.batches))
    axes.set_xlim(size.batches[0] * 0.85, size.batches[-1] * 2.2)
    style.clean(axes, xlabel="images of a batch", ylabel="ms")
    axes.legend(fontsize=8, frameon=False)
    return drawn


if __name__ == "__main__":
    app.run(results.program("speed", "VQ and sparse coding: time", run, SIZES))
