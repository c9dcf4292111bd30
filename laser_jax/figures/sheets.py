"""Sheets of images: reconstructions beside their originals, and all atoms of a dictionary."""

import math
import warnings

import numpy as np

from laser_jax.figures import style
from laser_jax.figures.style import as_rgb


def error_map(original, reconstruction):
    """Returns the absolute error, mean over channels and four times as bright, as gray images."""
    error = np.abs(original - reconstruction).mean(axis=-1, keepdims=True)
    return np.clip(4 * np.repeat(error, 3, axis=-1), 0, 1)


def reconstruction_grid(original, reconstruction):
    """Returns one picture: originals over reconstructions over their error maps.

    Args:
      original, reconstruction: `(b, H, W, C)` in [0, 1], C = 3, or 1 for gray images.

    Returns:
      `(3 (H + 2), b (W + 2), 3)` in [0, 1].
    """
    rows = (original, reconstruction, error_map(original, reconstruction))
    return np.concatenate([_tile(np.asarray(row), columns=len(row)) for row in rows])


def atom_sheet(atoms):
    """Returns one nearly square picture of all atoms.

    Args:
      atoms: `(m, s, s, C)` images in [0, 1], C = 3, or 1 for gray images.
    """
    return _tile(np.asarray(atoms), columns=math.ceil(math.sqrt(len(atoms))))


def reconstruction_figure(original, reconstruction, path, *, title):
    """Writes a labelled PNG of originals, reconstructions and error maps.

    Args:
      original, reconstruction: `(b, H, W, C)` in [0, 1], C = 3, or 1 for gray images.
      path: where the PNG goes.
      title: a line above it.
    """
    rows = {
        "original": original,
        "reconstruction": reconstruction,
        "error x 4": error_map(original, reconstruction),
    }
    columns = len(original)
    figure = style.new_figure(1 + 0.75 * columns, 2.75)
    style.heading(figure, title)
    for axes, (name, images) in zip(figure.subplots(3), rows.items(), strict=True):
        axes.imshow(_tile(np.asarray(images), columns=columns), interpolation="nearest")
        style.row_label(axes, name)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    with warnings.catch_warnings():
        # A box is drawn for a character of the title that the font lacks, as Chinese ones.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(path)


def _tile(images, *, columns):
    """Images in rows, in RGB, two white pixels between them."""
    images = as_rgb(images)
    b, height, width, channels = images.shape
    rows = math.ceil(b / columns)
    sheet = np.ones((rows * columns, height + 2, width + 2, channels), np.float32)
    sheet[:b, 1:-1, 1:-1] = images
    sheet = sheet.reshape(rows, columns, height + 2, width + 2, channels).swapaxes(1, 2)
    return sheet.reshape(rows * (height + 2), columns * (width + 2), channels)
