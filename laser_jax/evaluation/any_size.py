"""Reconstructions of pictures of any size, whole or in tiles.

A tile is computed with a margin, which is discarded, and neighbouring tiles are blended over a
ramp, so that no border is visible. Without attention and group normalisation, whose results depend
on the whole tile, the margin covers all that a pixel of the result depends on, so the result is
that of the whole picture.
"""

import itertools
import math

import numpy as np

from laser_jax.images import check_picture, extended
from laser_jax.models import inference

MOST_PIXELS = 2**20  # of a picture, or of a tile of a larger one

_MARGIN = 6  # positions of the latents, beyond those of the residual blocks
_RAMP = 4  # positions over which neighbouring tiles are blended


def reconstruct_any_size(model, variables, image, *, most_pixels=None):
    """Returns the reconstruction `(H, W, C)`, float32 in [0, 1], of one image.

    Args:
      model: the `Autoencoder`.
      variables: its variables for evaluation.
      image: `(H, W, C)`, uint8 or float in [0, 1]. It is extended by reflection to a size that
        the model takes, and the result cropped back.
      most_pixels: bound of what is computed at once; None: 2^20, or more where tiles of so few
        pixels would be more than half overlap.

    Raises:
      ValueError: if the image has a wrong shape or is outside [0, 1], or tiles of `most_pixels`
        would be all overlap.
    """
    image = check_picture(image, model.in_channels)
    height, width, _ = image.shape
    whole = extended(image, model.signal_shape)
    margin, ramp = overlap(model)
    shared = 2 * margin + ramp
    if most_pixels is None:
        most_pixels = max(MOST_PIXELS, math.prod(2 * shared + each for each in model.signal_shape))
    if whole[..., 0].size <= most_pixels:
        found = inference.reconstruct(model, variables, whole[None])
        return np.asarray(found)[0, :height, :width]
    axes = _tiles(whole.shape[:2], model.signal_shape, most_pixels, shared)
    total = np.zeros(whole.shape, np.float32)
    weight = np.zeros((*whole.shape[:2], 1), np.float32)
    for (top, down), (left, across) in itertools.product(*axes):
        part = np.s_[top : top + down, left : left + across]
        found = np.asarray(inference.reconstruct(model, variables, whole[part][None]))[0]
        ends = ((top, down, whole.shape[0]), (left, across, whole.shape[1]))
        rows, columns = (_weights(*end, margin, ramp) for end in ends)
        weights = (rows[:, None] * columns)[..., None]
        total[part] += weights * found
        weight[part] += weights
    return (total / weight)[:height, :width]


def overlap(model):
    """Returns the margin of a tile and the ramp between two, in pixels."""
    # Before and after the bottleneck, each block and its convolutions reach this far. Between them
    # a position depends on all of its patch.
    scale = 2**model.num_downsamples
    positions = 2 * model.num_residual_blocks + _MARGIN + max(model.signal_shape) // scale - 1
    return positions * scale, _RAMP * scale


def _tiles(shape, unit, most_pixels, shared):
    """Returns (start, length) of the tiles of each axis; all tiles have one shape.

    Args:
      shape: of the picture.
      unit: what starts and lengths are multiples of, for each axis.
      most_pixels: of a tile.
      shared: pixels that two neighbours share, at least.
    """
    across = min(shape[1], max(int(most_pixels**0.5), most_pixels // shape[0]))
    across -= across % unit[1]
    down = min(shape[0], most_pixels // max(across, 1))
    lengths = (down - down % unit[0], across)
    axes = []
    for size, length, step in zip(shape, lengths, unit, strict=True):
        stride = length - shared - (length - shared) % step
        if length < size and stride < step:
            raise ValueError(
                f"tiles of {most_pixels} pixels would be all overlap, {shared} pixels; give more."
            )
        count = 1 if length >= size else -(-(size - length) // stride) + 1
        axes.append([(min(i * stride, size - length), length) for i in range(count)])
    return axes


def _weights(start, length, size, margin, ramp):
    """Returns the weights of a tile's pixels along an axis; they are 1 up to a picture's border."""
    place = np.arange(length)
    before = place if start > 0 else np.full(length, np.inf)
    after = place[::-1] if start + length < size else np.full(length, np.inf)
    inside = np.minimum(before, after) - margin
    return np.clip((inside + 1) / (ramp + 1), 0, 1).astype(np.float32)
