"""The learned model of the pixel codec, and its file in the package."""

import functools
import io
import pathlib
from typing import NamedTuple

import numpy as np

from laser_jax.sparse import RateModel
from laser_jax.tokens import ContextModel, fingerprint_of

PATH = pathlib.Path(__file__).with_name("pixels.npz")
QUALITIES = 100
STEP_RATIO = 2.5  # ratio of a coefficient's step to the square root of the price
_RATE_UNIT = 256  # rate models are stored in units of 1/256 bit
_VERSION = 1  # version of the arithmetic; it is part of the fingerprint


class Band:
    """The model of patches for a range of qualities.

    Attributes:
      dictionary: `(m, 192)` integers in units of 1/256.
      matrix: `(INPUTS, 192)` of the prediction, float64 of integers in units of 1/4096.
      context: the `ContextModel` of tokens.
      knots: `(r,)` qualities in ascending order, at which there are tables.
    """

    def __init__(self, arrays):
        self.dictionary = arrays["dictionary"].astype(np.int64)
        self.matrix = arrays["matrix"].astype(np.float64)
        self.context = ContextModel.from_bytes(arrays["context"].tobytes())
        self.knots = arrays["knots"].astype(np.int64)
        self._tables = [arrays[name].astype(np.float32) for name in RateModel._fields]
        self.fingerprint = fingerprint_of(
            self.context.fingerprint,
            *(np.ascontiguousarray(arrays[x], "<i4") for x in ("dictionary", "matrix", "knots")),
        )

    def rate_model(self, quality):
        """Returns the `RateModel` of a quality: between two knots, tables are interpolated."""
        place = np.interp(quality, self.knots, np.arange(len(self.knots)))
        low = min(int(place), len(self.knots) - 2)
        share = np.float32(place - low)
        mixed = (((1 - share) * x[low] + share * x[low + 1]) / _RATE_UNIT for x in self._tables)
        return RateModel(*mixed)


class Setting(NamedTuple):
    """The parameters of a quality; a decoder needs the band, the two steps and the side.

    Attributes:
      quality: 1 to 100.
      band: the `Band`.
      step: of coefficients, in 1/1024 of 1/16 pixel.
      thumbnail_step: in 1/16 pixel.
      price: squared error of [0, 1] pixels that a bit must save.
      rate_model: the `RateModel` of patches.
    """

    quality: int
    band: Band
    step: int
    thumbnail_step: int
    price: float
    rate_model: RateModel

    def side(self, differences):
        """Returns the context model's side information; see `side_of`."""
        return side_of(differences, self.quality, self.band.knots)


class PixelModel:
    """The model of the codec: everything that its files depend on.

    Attributes:
      bands: list of `Band`, from low qualities to high ones.
      thumbnail_counts: the initial counts of the thumbnails' tables.
      fingerprint: 8 bytes.
    """

    def __init__(self, arrays):
        prefixes = sorted({name.split(".")[0] for name in arrays if "." in name})
        self.bands = [
            Band({n.split(".")[1]: x for n, x in arrays.items() if n.startswith(f"{prefix}.")})
            for prefix in prefixes
        ]
        self.thumbnail_counts = arrays["thumbnail_counts"].astype(np.int64)
        self._steps, self._thumbnail_steps = arrays["steps"], arrays["thumbnail_steps"]
        self._prices = arrays["prices"]
        names = ("thumbnail_counts", "steps", "thumbnail_steps")
        self.fingerprint = fingerprint_of(
            bytes([_VERSION]),
            *(band.fingerprint for band in self.bands),
            *(np.ascontiguousarray(arrays[name], "<i4") for name in names),
        )

    @functools.lru_cache(maxsize=8)  # noqa: B019 - few models are ever made
    def setting(self, quality):
        """Returns the `Setting` of a quality."""
        place = quality - 1
        # Bands share a quality where one ends; lower qualities than the first belong to it.
        band = self.bands[max(0, sum(quality > x.knots[0] for x in self.bands) - 1)]
        return Setting(
            quality,
            band,
            int(self._steps[place]),
            int(self._thumbnail_steps[place]),
            float(self._prices[place]),
            band.rate_model(quality),
        )


def side_of(differences, quality, knots):
    """Returns the side information of a context model, `(1, h, w, f)` integers.

    Args:
      differences: `(h, w, 24)` of the thumbnail.
      quality: 1 to 100.
      knots: the band's qualities, at even distances.
    """
    quality = np.clip(quality, knots[0], knots[-1])
    near = np.maximum(0, 63 - 63 * np.abs(quality - knots) // (knots[1] - knots[0]))
    shape = (*differences.shape[:2], len(knots))
    return np.concatenate([differences, np.broadcast_to(near, shape)], -1)[None]


def rate_table(bits):
    """Returns bits as the file has them."""
    return np.clip(np.rint(_RATE_UNIT * np.asarray(bits)), -(2**15), 2**15 - 1).astype(np.int16)


def write_model(path, arrays):
    """Writes the arrays of a model; the bytes depend on nothing else."""
    file = io.BytesIO()
    np.savez_compressed(file, **dict(sorted(arrays.items())))
    pathlib.Path(path).write_bytes(file.getvalue())


def read_model(path):
    """Returns the `PixelModel` of a file."""
    with np.load(path, allow_pickle=False) as file:
        return PixelModel(dict(file))


@functools.lru_cache(maxsize=1)
def shipped_model():
    """Returns the `PixelModel` of the package."""
    return read_model(PATH)
