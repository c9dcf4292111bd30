"""Prediction of a patch from data of the decoder: the thumbnail and the borders.

A linear map of the mean colours around the patch and of the decoded pixels above and to the left
of it, up to eight pixels beyond its right side. In integers: the product in float64 is exact, so
all machines agree.
"""

import numpy as np

from laser_jax.pixels.units import FINE, PATCH, WEIGHT
from laser_jax.tokens.products import exact_product

REACH = 2  # decoded pixels above and to the left
_ABOVE = [(i, j) for i in range(-REACH, 0) for j in range(-REACH, 2 * PATCH)]
_LEFT = [(i, j) for i in range(PATCH) for j in range(-REACH, 0)]
_ROWS, _COLUMNS = np.array(_ABOVE + _LEFT).T
INPUTS = 3 * (len(_ROWS) + 8)
WIDTH = 3 * PATCH**2  # values of a patch
_INSIDE = np.indices((PATCH, PATCH)).reshape(2, -1)


class Canvas:
    """A picture of which some patches are known.

    Attributes:
      pixels: `(8 h, 8 w, 3)` int16; -1 where unknown.
    """

    def __init__(self, means, pixels=None):
        """Makes a canvas.

        Args:
          means: `(h, w, 3)` mean colours of all patches in 1/16 pixel.
          pixels: what is known; None: nothing.
        """
        h, w, _ = means.shape
        self._means = np.pad(means, ((1, 1), (1, 1), (0, 0)), mode="edge")
        frame = (REACH, 0), (REACH, PATCH), (0, 0)
        if pixels is None:
            pixels = np.full((PATCH * h, PATCH * w, 3), -1, np.int16)
        self._framed = np.pad(pixels.astype(np.int16), frame, constant_values=-1)

    @property
    def pixels(self):
        return self._framed[REACH:, REACH:-PATCH]

    def inputs(self, rows, columns):
        """Returns the inputs of the prediction, `(n, INPUTS)`, and the mean, `(n, 3)`.

        Differences from the patch's own mean, in 1/16 pixel; 0 outside the picture.
        """
        middle = self._means[rows + 1, columns + 1]
        around = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
        means = np.stack([self._means[rows + i, columns + j] for i, j in around], 1)
        y = PATCH * rows[:, None] + _ROWS + REACH
        x = PATCH * columns[:, None] + _COLUMNS + REACH
        border = self._framed[y, x].astype(np.int64)
        # What is not decoded yet is left of a patch only outside the picture.
        known = np.where(border < 0, middle[:, None], FINE * border)
        found = np.concatenate([means, known], 1) - middle[:, None]
        return found.reshape(len(rows), INPUTS), middle

    def predict(self, rows, columns, matrix):
        """Returns the predicted patches `(n, WIDTH)`, integers in 1/16 pixel.

        Args:
          rows, columns: `(n,)` positions.
          matrix: `(INPUTS, WIDTH)` float64 of integers in units of 1/4096.
        """
        found, middle = self.inputs(rows, columns)
        change = np.floor(exact_product(found, matrix) / WEIGHT).astype(np.int64)
        predicted = change + np.tile(middle, PATCH**2)
        return np.clip(predicted, 0, 255 * FINE)

    def put(self, rows, columns, patches):
        """Puts decoded patches, `(n, WIDTH)` in 1/16 pixel, in place, rounded to pixels."""
        shown = np.clip((patches + FINE // 2) // FINE, 0, 255).reshape(len(rows), -1, 3)
        y = PATCH * rows[:, None] + _INSIDE[0] + REACH
        x = PATCH * columns[:, None] + _INSIDE[1] + REACH
        self._framed[y, x] = shown


def patches_of(image):
    """Returns the patches `(h, w, WIDTH)` of an image `(8 h, 8 w, 3)`."""
    h, w = (side // PATCH for side in image.shape[:2])
    cut = image.reshape(h, PATCH, w, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(h, w, WIDTH)
