"""Comparisons of codes: reconstructions, a row of pixels, and the use of entries."""

import numpy as np

from laser_jax.figures import style

LOOKS = (style.VQ, style.DICTIONARY, {"color": style.GREEN, "linestyle": "-."},
         {"color": style.PURPLE, "linestyle": (0, (1, 3))})  # fmt: skip


def reconstruction_comparison(original, reconstructions):
    """Returns a figure: originals over each method's reconstructions and their error maps.

    All error maps share one scale, so that a darker one is a better one.

    Args:
      original: `(b, H, W, C)` in [0, 1], C = 3, or 1 for gray images.
      reconstructions: method -> images like `original`.
    """
    b = len(original)
    rows = 1 + 2 * len(reconstructions)
    height, width = original.shape[1:3]
    errors = {name: np.abs(images - original).mean(-1) for name, images in reconstructions.items()}
    brightest = max(np.percentile(error, 99.5) for error in errors.values())
    figure = style.new_figure(8, 0.2 + (5.9 / b * height / width + 0.04) * rows)
    figure.get_layout_engine().set(h_pad=0.01, hspace=0.01)
    panels = figure.subplots(rows, b, squeeze=False)
    _row(panels[0], original, "original")
    for i, (name, images) in enumerate(reconstructions.items()):
        _row(panels[1 + 2 * i], np.clip(images, 0, 1), name)
        shown = _row(panels[2 + 2 * i], errors[name], "error", cmap="magma", vmin=0, vmax=brightest)
    bar = figure.colorbar(shown, ax=panels, shrink=0.4, aspect=30, pad=0.01)
    bar.ax.tick_params(labelsize=8)
    bar.set_label("mean absolute error of the channels", fontsize=8)
    return figure


def _row(panels, images, label, **options):
    for axes, image in zip(panels, images, strict=True):
        shown = style.picture(axes, image, **options)
    style.row_label(panels[0], label)
    return shown


def channel_slice(original, reconstructions):
    """Returns a figure of one row of pixels, a panel a channel.

    Args:
      original: `(W, C)` in [0, 1], C = 3, or 1 for gray images.
      reconstructions: method -> row like `original`; the first is drawn as VQ is, the second
        as dictionaries are.
    """
    figure = style.new_figure(8, 5.5)
    names = ("red", "green", "blue") if original.shape[-1] == 3 else ("gray",)
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for channel, (axes, name) in enumerate(zip(panels, names, strict=True)):
        axes.plot(original[:, channel], **style.ORIGINAL, linewidth=1, label="original")
        for look, (method, row) in zip(LOOKS, reconstructions.items(), strict=False):
            axes.plot(row[:, channel], **look, linewidth=1.4, label=method)
        style.clean(axes, ylabel=name)
    panels[-1].set_xlabel("pixel along the middle row", fontsize=9)
    style.legend(panels[0], ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def usage_bars(counts, *, least=None):
    """Returns a figure of how often each entry is used, a panel a method, most used first.

    Args:
      counts: method -> `(m,)` uses.
      least: uses from which on an entry counts as used; None: any.
    """
    figure = style.new_figure(8, 0.6 + 1.9 * len(counts))
    panels = figure.subplots(len(counts), squeeze=False)[:, 0]
    for axes, look, (name, uses) in zip(panels, LOOKS, counts.items(), strict=False):
        share = np.sort(np.asarray(uses, float))[::-1] / max(np.sum(uses), 1)
        axes.stairs(share, fill=True, color=look["color"])  # bars without gaps
        used = int(np.sum(share > 0 if least is None else np.asarray(uses) >= least))
        style.clean(axes, ylabel="share of uses", title=f"{name}: {used} of {len(share)} used")
        axes.set_xlim(0, len(share))
    panels[-1].set_xlabel("entry, most used first", fontsize=9)
    return figure
