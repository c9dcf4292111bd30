"""Patches to tokens and back, in waves: each patch is predicted from decoded ones."""

import numpy as np

from laser_jax.pixels.prediction import WIDTH, Canvas, patches_of
from laser_jax.pixels.search import CHUNK, Problem, search
from laser_jax.pixels.units import ATOM, FINE, STEP
from laser_jax.sparse import SparseCode
from laser_jax.tokens import tokens_of
from laser_jax.tokens.context_model import waves


def encode_patches(image, means, setting):
    """Returns the `Tokens` `(1, h, w)` of an image.

    Args:
      image: `(8 h, 8 w, 3)` pixels in [0, 255].
      means: of its thumbnail, `(h, w, 3)` in 1/16 pixel.
      setting: the `Setting` of the quality.
    """
    h, w, _ = means.shape
    patches, canvas = FINE * patches_of(np.asarray(image, np.float64)), Canvas(means)
    layout = setting.band.context.layout
    code = SparseCode(*(np.zeros((1, h, w, layout.width), np.int32) for _ in range(2)))
    problem, unit = _problem(setting)
    size = min(CHUNK, 1 << (min(h, -(-w // 2)) - 1).bit_length())
    for rows, columns in waves(h, w):
        predicted = canvas.predict(rows, columns, setting.band.matrix)
        residuals = (patches[rows, columns] - predicted) / unit
        indices, levels = search(residuals, problem, sparsity=layout.width, size=size)
        code.indices[0, rows, columns], code.coefficients[0, rows, columns] = indices, levels
        canvas.put(rows, columns, predicted + _approximation(setting, indices, levels))
    return tokens_of(code, layout)


def decode_patches(tokens, means, setting):
    """Returns the uint8 image of `Tokens` `(1, h, w)`; see `encode_patches`."""
    canvas, (atoms, levels) = Canvas(means), (x[0] for x in tokens[1:])
    for rows, columns in waves(*means.shape[:2]):
        predicted = canvas.predict(rows, columns, setting.band.matrix)
        added = _approximation(setting, atoms[rows, columns], levels[rows, columns])
        canvas.put(rows, columns, predicted + added)
    return canvas.pixels.astype(np.uint8)


def _approximation(setting, atoms, levels):
    """What atoms and their levels add to patches, integers `(n, WIDTH)` in 1/16 pixel."""
    total = np.zeros((len(atoms), WIDTH), np.int64)
    for place in np.flatnonzero(levels.any(0)):
        scaled = setting.step * levels[:, place].astype(np.int64)
        total += scaled[:, None] * setting.band.dictionary[atoms[:, place]]
    return (total + STEP // 2) // STEP


def _problem(setting):
    """The search's `Problem` of a setting, and its unit in 1/16 pixel."""
    unit = 255 * FINE * setting.price**0.5
    step = setting.step * ATOM / STEP / unit
    return Problem.of(setting.band.dictionary / ATOM, step, setting.rate_model), unit
