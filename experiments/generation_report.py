"""The report of `experiments.generation`: a verdict, a table and a page of samples."""

import numpy as np

from experiments.results import spread
from laser_jax.figures import style

SPARSE = "sparse by rate"


def report(out, size, found):
    """Lays out the verdict, the tables and the samples."""
    seeds = f"{size.seeds} seed{'s' if size.seeds > 1 else ''}"
    out.heading("Verdict")
    out.text(verdict(found))
    out.table(
        "generation", ["code", "bits a pixel", "PSNR, dB", "LPIPS", "order-0 tables", "prior",
                       "prior beside the context model", "gap to training",
                       "Fréchet distance of samples", "of reconstructions", "M parameters"],
        [_row(name, points) for name, points in found.items()],
        caption=f"Test windows, {seeds}, mean ± standard deviation. Bits a pixel: of the file "
        "under the context model; of order-0 tables, the prior, and the bits that its held-out "
        "tokens cost more than training tokens. Fréchet distance: VGG16 features of "
        f"{size.samples} samples; that of as many reconstructions is its floor.",
    )  # fmt: skip
    out.figure(
        "generation_samples", samples_figure({name: x[0] for name, x in found.items()}),
        caption="Left: samples of each prior, seed 0. Right: the training window nearest to each.",
    )  # fmt: skip


def _row(name, points):
    def text(values, form="{:.3f}"):
        return spread(np.array(values), form)

    pixels = points[0]["signal_pixels"]
    return [
        name, text(_all(points, "bpp")), text(_all(points, "psnr"), "{:.2f}"),
        text(_all(points, "lpips")), text(_all(points, "order_0")),
        text(_all(points, "bits_per_pixel")), text(_saved(points), "{:+.1f}%"),
        text(_all(points, "gap_bits_per_token") / pixels),
        text(_all(points, "fd_vgg16_samples"), "{:.0f}"),
        text(_all(points, "fd_vgg16_reconstructions"), "{:.0f}"),
        f"{points[0]['parameters'] / 1e6:.2f}",
    ]  # fmt: skip


def verdict(found):
    """Returns sentences, computed, on sparse codes and the best of the others."""
    others = {name: points for name, points in found.items() if name != SPARSE}
    sparse, rates = found[SPARSE], [np.mean(_all(x, "bpp")) for x in found.values()]
    lines = [f"- All codes cost {min(rates):.3f} to {max(rates):.3f} bits a pixel."]
    for key, what, form, sign in (
        ("psnr", "PSNR of reconstructions, dB", "{:.2f}", -1),
        ("lpips", "LPIPS of reconstructions", "{:.3f}", 1),
        ("bits_per_pixel", "Held-out bits a pixel under the prior", "{:.3f}", 1),
        ("fd_vgg16_samples", "Fréchet distance of samples", "{:.0f}", 1),
    ):
        best = min(others, key=lambda name: sign * np.mean(_all(others[name], key)))
        mine, theirs = _all(sparse, key), _all(others[best], key)
        better = sign * (np.mean(mine) - np.mean(theirs)) < 0
        apart = abs(np.mean(mine) - np.mean(theirs)) > np.std(mine) + np.std(theirs)
        lines.append(
            f"- {what}: *{SPARSE}* {spread(mine, form)}, the best other code, *{best}*, "
            f"{spread(theirs, form)}: sparse codes are {'better' if better else 'worse'}"
            + ("." if apart or len(mine) == 1 else ", within the spread over seeds.")
        )
    saved = ", ".join(f"*{name}* {spread(_saved(x), '{:+.1f}%')}" for name, x in found.items())
    return "\n".join([
        *lines,
        f"- Bits of the prior beside the context model: {saved}. Sparse codes {_effect(found)} "
        "a prior.",
    ])  # fmt: skip


def _effect(found):
    """Whether the prior saves more, or less, of sparse codes' bits than of all other codes'."""
    low, high = {}, {}
    for name, points in found.items():
        values = _saved(points)
        low[name], high[name] = np.mean(values) - np.std(values), np.mean(values) + np.std(values)
    others = found.keys() - {SPARSE}
    if high[SPARSE] < min(low[name] for name in others):
        return "help"
    if low[SPARSE] > max(high[name] for name in others):
        return "hurt"
    return "neither help nor hurt"


def samples_figure(found):
    """Returns a figure with a row for each code: samples, and the nearest training pictures."""
    figure = style.new_figure(9, 0.9 * len(found))
    axes = figure.subplots(len(found), 2, squeeze=False)
    for row, (name, point) in zip(axes, found.items(), strict=True):
        for axis, pictures in zip(row, (point["samples"], point["nearest"]), strict=True):
            style.picture(axis, np.concatenate(list(pictures), 1))
        style.label(row[0], title=name)
    return figure


def _all(points, key):
    return np.array([float(point[key]) for point in points])


def _saved(points):
    """Percent that the prior's held-out bits differ from those of the context model."""
    return 100 * (_all(points, "bits_per_pixel") / _all(points, "bits_per_pixel_context_model") - 1)
