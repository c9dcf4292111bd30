"""Patches to tokens and back, in waves: each patch is predicted from decoded ones."""

import functools

import jax
import numpy as np

from laser_jax.pixels.prediction import WIDTH, Canvas, patches_of, waves
from laser_jax.pixels.units import ATOM, FINE, STEP
from laser_jax.sparse import SparseCode, rate_distortion_pursuit
from laser_jax.tokens import tokens_of


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
    pursue = _Pursuit(setting, min(h, -(-w // 2)))
    for rows, columns in waves(h, w):
        predicted = canvas.predict(rows, columns, setting.band.matrix)
        indices, levels = pursue(patches[rows, columns] - predicted)
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


class _Pursuit:
    """Codes the patches of waves in batches of one size, so that one program serves all."""

    def __init__(self, setting, largest):
        self._size = min(128, 1 << (max(largest, 1) - 1).bit_length())
        # Signals are in units of the step.
        self._unit = setting.step * ATOM / STEP
        self._pursue = functools.partial(
            rate_distortion_pursuit,
            dictionary=_on_device(setting.band),
            model=setting.rate_model,
            sparsity=setting.band.context.layout.width,
            step=1.0,
            bit_price=setting.price * (255 * FINE / self._unit) ** 2,
        )

    def __call__(self, signals):
        """Returns atoms and levels `(n, k)` of residuals `(n, WIDTH)` in 1/16 pixel."""
        n, found = len(signals), []
        for start in range(0, n, self._size):
            part = np.float32(signals[start : start + self._size] / self._unit)
            padded = np.pad(part, ((0, self._size - len(part)), (0, 0)))
            found.append(jax.device_get(self._pursue(padded)))
        return (np.concatenate(x)[:n] for x in zip(*found, strict=True))


@functools.lru_cache(maxsize=4)
def _on_device(band):
    return jax.device_put(np.float32(band.dictionary / ATOM))
