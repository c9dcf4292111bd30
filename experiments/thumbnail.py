"""The first layer of a picture's code: a thumbnail of means, from which patches are predicted.

A thumbnail pixel is a patch's mean colour in an orthonormal basis of brightness and two
colour differences, rounded to multiples of a step. It is sent whole before any patch, so a
patch can be predicted from all nine means around it, those after it included: a linear map
learned on training photographs. What is left is what dictionaries code.

Each integer is predicted by the median edge detector of LOCO-I from its left and upper
neighbours, and the difference is coded under a table chosen by how much these differ from each
other.

References:
  Weinberger, Seroussi and Sapiro, The LOCO-I lossless image compression algorithm, 2000.
"""

from typing import NamedTuple

import numpy as np

from experiments.photographs import grid_patches

# Rows: brightness, red - blue, green against both; orthonormal.
COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
LARGEST = 64  # differences beyond it are counted as it; the real coder refuses them
CONTEXTS = 6


class Thumbnail(NamedTuple):
    """How thumbnails are made, coded and used.

    Attributes:
      patch_size: p.
      step: of the means' integers, in units of [0, 1] pixels.
      interpolation: `(27, p p 3)`, nine means' differences from the middle one to a patch's.
      bits: `(3, CONTEXTS, 2 LARGEST + 1)` of a difference, by colour and context.
    """

    patch_size: int
    step: float
    interpolation: np.ndarray
    bits: np.ndarray


def fit_thumbnail(images, *, patch_size, step):
    """Returns the `Thumbnail` learned from images `(H, W, 3)` in [0, 1]."""
    inputs, outputs, integers = [], [], []
    for image in images:
        patches = grid_patches(image, patch_size)
        integers.append(shrink(patches, step))
        around, middle = _neighbours(integers[-1], step)
        inputs.append(around.reshape(-1, around.shape[-1]))
        outputs.append((patches - np.tile(middle, patch_size**2)).reshape(len(inputs[-1]), -1))
    x, y = np.concatenate(inputs), np.concatenate(outputs)
    # A little of ridge: the means of a smooth region are nearly dependent.
    interpolation = np.linalg.solve(x.T @ x + 1e-5 * len(x) * np.eye(x.shape[1]), x.T @ y)
    counts = np.full((3, CONTEXTS, 2 * LARGEST + 1), 0.05)
    for image in integers:
        differences, contexts = predict(image)
        for colour in range(3):
            places = contexts[..., colour], _clip(differences[..., colour]) + LARGEST
            np.add.at(counts[colour], places, 1)
    bits = np.log2(counts.sum(-1, keepdims=True)) - np.log2(counts)
    return Thumbnail(patch_size, step, interpolation, bits)


def shrink(patches, step):
    """Returns the integer thumbnail `(h, w, 3)` of patches `(h, w, p p 3)`."""
    means = patches.reshape(*patches.shape[:2], -1, 3).mean(2)
    return np.round(means @ COLOURS.T / step).astype(np.int64)


def enlarge(thumbnail, integers):
    """Returns the patches `(h, w, p p 3)` that an integer thumbnail predicts."""
    around, middle = _neighbours(integers, thumbnail.step)
    return around @ thumbnail.interpolation + np.tile(middle, thumbnail.patch_size**2)


def thumbnail_bits(thumbnail, integers):
    """Returns the bits of an integer thumbnail."""
    differences, contexts = predict(integers)
    return sum(
        thumbnail.bits[
            colour, contexts[..., colour], _clip(differences[..., colour]) + LARGEST
        ].sum()
        for colour in range(3)
    )


def predict(integers):
    """Returns the differences from the prediction, and the contexts, both `(h, w, 3)`."""
    left, up, corner = (np.zeros_like(integers) for _ in range(3))
    left[:, 1:], up[1:], corner[1:, 1:] = integers[:, :-1], integers[:-1], integers[:-1, :-1]
    prediction, context = predict_one(left, up, corner)
    # The first row and column have one neighbour.
    prediction[0], prediction[1:, 0] = left[0], up[1:, 0]
    return integers - prediction, context


def predict_one(left, up, corner):
    """Returns prediction and context from three neighbouring integers."""
    low, high = np.minimum(left, up), np.maximum(left, up)
    prediction = np.where(corner >= high, low, np.where(corner <= low, high, left + up - corner))
    activity = np.abs(left - corner) + np.abs(up - corner)
    return prediction, np.minimum(np.ceil(np.log2(activity + 1)), CONTEXTS - 1).astype(int)


def _neighbours(integers, step):
    """Means around each: differences from the middle one `(h, w, 27)`, and that `(h, w, 3)`."""
    means = step * integers @ COLOURS
    padded = np.pad(means, ((1, 1), (1, 1), (0, 0)), mode="edge")
    h, w = integers.shape[:2]
    around = [padded[i : i + h, j : j + w] - means for i in range(3) for j in range(3)]
    return np.concatenate(around, -1), means


def _clip(differences):
    return np.clip(differences, -LARGEST, LARGEST)
