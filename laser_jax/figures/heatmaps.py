"""Maps of codes over their pictures: the entry, the L1 norm and the number of atoms."""

import numpy as np

from laser_jax.figures import style


def code_maps(entries, *, has_coefficients):
    """Returns name -> map `(b, h, w)` of the codes of a bottleneck.

    Without coefficients: "entry", the index of the entry, of residual VQ that of the first stage.
    With coefficients: their "L1 norm", and "atoms", the number of them, if it varies.

    Args:
      entries: `SparseCode` `(b, h, w, k)` over the entries: `bottleneck.entries(code)`.
      has_coefficients: the attribute of the bottleneck.
    """
    if not has_coefficients:
        return {"entry": np.asarray(entries.indices)[..., 0]}
    maps = {"L1 norm": l1_map(entries)}
    if len(np.unique(count_map(entries))) > 1:
        maps["atoms"] = count_map(entries)
    return maps


def l1_map(code):
    """Returns the L1 norm of each place's coefficients, `(b, h, w)`."""
    return np.abs(np.asarray(code.coefficients)).sum(-1)


def count_map(code):
    """Returns the atoms of each place, `(b, h, w)` integers."""
    return np.sum(np.asarray(code.coefficients) != 0, -1)


def over_pixels(values, height, width):
    """Returns a map `(b, h, w)` enlarged to `(b, height, width)`: each value covers its pixels.

    Raises:
      ValueError: if the map does not divide the picture.
    """
    _, h, w = values.shape
    if height % h or width % w:
        raise ValueError(f"a map of {h}x{w} does not divide a picture of {height}x{width}.")
    return values.repeat(height // h, 1).repeat(width // w, 2)


def clipped(values):
    """Returns the 1st and 99th percentile: a colour scale that a few outliers do not set."""
    return tuple(float(x) for x in np.percentile(values, (1, 99)))


def heatmap_figure(images, maps, *, title=""):
    """Returns a figure: each image, and beside it its maps, enlarged to pixels.

    Args:
      images: `(b, H, W, C)` in [0, 1], C = 3, or 1 for gray images.
      maps: from `code_maps`.
      title: a line above.
    """
    b, height, width, _ = images.shape
    columns = 1 + len(maps)
    figure = style.new_figure(8, 0.9 + b * 7.4 / columns * height / width)
    style.heading(figure, title)
    panels = figure.subplots(b, columns, squeeze=False)
    for axes, image in zip(panels[:, 0], images, strict=True):
        style.picture(axes, image)
    for column, (name, values) in zip(panels[:, 1:].T, maps.items(), strict=True):
        pixels = over_pixels(values, height, width)
        if name == "entry":  # the order of a codebook's entries has no meaning
            order = np.random.default_rng(0).permutation(values.max() + 1)
            pixels, look = order[pixels], {"cmap": "nipy_spectral"}
            low, high = 0, len(order) - 1
        else:
            look = {"cmap": "magma"}
            low, high = clipped(values) if name == "L1 norm" else (0, values.max())
        for axes, each in zip(column, pixels, strict=True):
            shown = style.picture(axes, each, **look, vmin=low, vmax=high)
        style.label(column[0], title=name)
        bar = figure.colorbar(shown, ax=column, location="bottom", pad=0.01, aspect=30)
        bar.ax.tick_params(labelsize=8)
        if name == "entry":
            bar.set_ticks([])
            bar.set_label(f"{len(np.unique(values))} entries here, in any order", fontsize=8)
    return figure
