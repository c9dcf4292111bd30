"""Bits and quality of the test photographs under pixel codecs and as files."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pixel_codecs
from experiments.photographs import (
    as_bytes,
    from_grid,
    grid_patches,
    middle,
    pictures,
    random_patches,
)
from experiments.thumbnail import Thumbnail, enlarge, fit_thumbnail, shrink, thumbnail_bits
from laser_jax.evaluation.formats import stored
from laser_jax.metrics import active_atoms, lpips
from laser_jax.pretrained import WeightsUnavailable
from laser_jax.sparse.codebook import stage_kmeans

THUMBNAIL_STEP = 0.06
WINDOW = (160, 240)  # rows and columns of the part of the first test photograph that figures show


def learned(settings):
    """Returns the codec that settings describe, and its `Problem`."""
    options = dict(settings)
    kind = options.pop("kind")
    images = options.pop("images", "photographs")
    which = *(options.pop(key) for key in ("patch", "thumbnail", "n", "crop")), images
    which += (options["seed"],)
    task = problem(*which)
    if kind == "learn_stages":
        options["start"] = _stage_start(which, options.pop("num_atoms"), options["stages"])
        del options["seed"]
    return getattr(pixel_codecs, kind)(jnp.asarray(task.signals), **options), task


@functools.lru_cache(maxsize=1)
def _stage_start(which, num_atoms, stages):
    """The k-means of all stages: half of the time of a codec, and the same at every rate."""
    signals, key = jnp.asarray(problem(*which).signals), jax.random.key(which[-1])
    return stage_kmeans(signals, num_atoms, stages=stages, key=key, iterations=5)


class Problem(NamedTuple):
    """Training signals, and the test pictures as signals with their predictions."""

    signals: np.ndarray  # (n, d)
    pictures: tuple  # (patches, predicted, thumbnail's integers) of each test picture
    thumbnail: Thumbnail | None
    patch_size: int

    @property
    def thumbnail_bits(self):
        """Bits of the thumbnails of all test pictures."""
        if self.thumbnail is None:
            return 0.0
        return float(sum(thumbnail_bits(self.thumbnail, q) for _, _, q in self.pictures))

    def signals_of(self, picture):
        """Returns what is left to code of a picture, `(n, d)`."""
        patches, predicted, _ = picture
        return jnp.asarray((patches - predicted).reshape(-1, patches.shape[-1]), jnp.float32)


@functools.lru_cache(maxsize=2)
def problem(patch_size, with_thumbnail, count, crop, images, seed):
    """Returns the `Problem`: patches less their prediction, one colour or a thumbnail's."""
    train, test = pictures(images, "train"), held_out(crop, images)
    cut = [grid_patches(image, patch_size) for image in test]
    if not with_thumbnail:
        colour = np.mean([image.mean((0, 1)) for image in train], axis=0, dtype=np.float32)
        flat = np.tile(colour, patch_size**2)
        signals = random_patches(train, patch_size, count, seed=seed) - flat
        uncoloured = tuple((x, np.broadcast_to(flat, x.shape), None) for x in cut)
        return Problem(signals, uncoloured, None, patch_size)
    # Every grid is as good a one: shifted pictures and their mirror images are more to learn from.
    rng, half = np.random.default_rng(seed), patch_size // 2
    shifted = [
        image[top:, left:][:, ::way]
        for image in train
        for top, left, way in ((0, 0, 1), (half, half, -1), (half, 0, 1), (0, half, -1))
    ]
    thumbnail = fit_thumbnail(shifted, patch_size=patch_size, step=THUMBNAIL_STEP)
    signals = []
    for image in shifted:
        patches = grid_patches(image, patch_size)
        left = patches - enlarge(thumbnail, shrink(patches, thumbnail.step))
        signals.append(left.reshape(-1, left.shape[-1]))
    integers = [shrink(patches, thumbnail.step) for patches in cut]
    return Problem(
        np.float32(rng.permutation(np.concatenate(signals))[:count]),
        tuple((x, enlarge(thumbnail, q), q) for x, q in zip(cut, integers, strict=True)),
        thumbnail,
        patch_size,
    )


def held_out(crop, images="photographs"):
    """Returns the test pictures whole, or the middle of each."""
    whole = pictures(images, "test")
    return [middle(image, crop) for image in whole] if crop else whole


def measure(codec, task):
    """Returns rate, quality, a window and its atoms of a codec on the test pictures."""
    bits, originals, decoded, counts = task.thumbnail_bits, [], [], []
    for picture in task.pictures:
        patches, predicted, _ = picture
        code = codec.encode(task.signals_of(picture))
        bits += float(jnp.sum(codec.bits(code)))
        approximation = np.asarray(codec.approximate(code)).reshape(patches.shape)
        originals.append(from_grid(patches, task.patch_size)[None])
        decoded.append(from_grid(as_shown(predicted + approximation), task.patch_size)[None])
        counts.append(np.asarray(active_atoms(code)).reshape(patches.shape[:2]))
    return {
        **quality(originals, decoded, bits),
        "atoms": float(np.mean(np.concatenate([x.ravel() for x in counts]))),
        "atom_map": counts[0].astype(np.uint8),
        "window": as_bytes(window(decoded[0][0])),
    }


def quality(originals, decoded, bits):
    """Returns bits a pixel, PSNR of the pooled squared error in dB, mean LPIPS (AlexNet).

    Args:
      originals, decoded: lists of `(b, H, W, 3)` in [0, 1].
      bits: of all.
    """
    squared = sum(
        np.sum((a - b) ** 2, dtype=np.float64) for a, b in zip(originals, decoded, strict=True)
    )
    pixels = sum(images[..., 0].size for images in originals)
    try:
        pairs = zip(originals, decoded, strict=True)
        distance = float(np.mean(np.concatenate([lpips(a, np.float32(b)) for a, b in pairs])))
    except WeightsUnavailable:
        distance = float("nan")
    return {
        "bpp": float(bits / pixels),
        "psnr": float(-10 * np.log10(squared / pixels / 3)),
        "lpips": distance,
    }


def window(picture, scale=1):
    """Returns the middle `WINDOW` of a picture, its corner on the grid of 8x8 patches.

    Args:
      picture: `(H, W, ...)`, or a map of one value for each `scale` x `scale` pixels.
      scale: a divisor of 8.
    """
    cut = []
    for length, side in zip(picture.shape, WINDOW, strict=False):
        start = max(0, (length * scale - side) // 2) // 8 * 8
        cut.append(slice(start // scale, (start + side) // scale))
    return picture[*cut]


def as_shown(image):
    """Returns what a screen shows of an image: 256 values in [0, 1]."""
    return np.round(255 * np.clip(image, 0, 1)) / 255


def file_point(setting, crop, images="photographs"):
    """Returns the rate and quality of the test pictures as files of a format."""
    originals, decoded, bits = held_out(crop, images), [], 0
    for image in originals:
        size, back = stored(as_bytes(image), **setting)
        bits += 8 * size
        decoded.append(back / 255)
    measured = quality([x[None] for x in originals], [x[None] for x in decoded], bits)
    return {**measured, "window": as_bytes(window(decoded[0]))}
