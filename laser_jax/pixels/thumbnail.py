"""The first layer of a picture's code: a thumbnail of the patches' mean colours, in integers.

A mean is three integers: brightness and two colour differences, in multiples of a step. Each is
predicted by the median edge detector of LOCO-I from its left and upper neighbours, and the
difference is coded under adaptive counts, chosen by how much the neighbours differ.

References:
  Weinberger, Seroussi and Sapiro, The LOCO-I lossless image compression algorithm, 2000.
"""

import numpy as np

from laser_jax.pixels.units import FINE, PATCH

# Rows: brightness, red - blue, green against both; orthonormal, times 2^12.
COLOURS = np.array([[2365, 2365, 2365], [2896, 0, -2896], [1672, -3344, 1672]])
_ONE = 4096
LARGEST = 31  # larger differences are escapes
ESCAPE = 2 * LARGEST + 1
CONTEXTS = 20
_LEVELS = 5  # levels of the activity to the left; contexts are pairs of activities
# Gain of a count per use; counts are halved above this sum. All 64 counts are at least 1, so each
# of the three symbols of a mean takes at least log2(4096 / (4096 - 63)) > 1/48 bit.
_GAIN, _MOST = 24, 4096


def shrink(image, step):
    """Returns the integer thumbnail `(h, w, 3)` of an image `(8 h, 8 w, 3)` of pixels in [0, 255].

    Args:
      image: array.
      step: of the integers, in units of 1/16 pixel.
    """
    h, w = (side // PATCH for side in image.shape[:2])
    means = image.reshape(h, PATCH, w, PATCH, 3).mean((1, 3), dtype=np.float64)
    return np.rint(means @ COLOURS.T * (FINE / _ONE / step)).astype(np.int64)


def means_of(thumbnail, step):
    """Returns the mean colours `(h, w, 3)` that a thumbnail stands for, in 1/16 pixel."""
    return (thumbnail @ COLOURS * step) >> 12


def differences(thumbnail):
    """Returns the eight neighbours' differences from each position, `(h, w, 24)` integers."""
    h, w, _ = thumbnail.shape
    padded = np.pad(thumbnail, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return np.concatenate([padded[i : i + h, j : j + w] - thumbnail for i, j in around], -1)


def count_symbols(thumbnails):
    """Returns how often each symbol occurs, `(3, CONTEXTS, ESCAPE + 1)`, in thumbnails."""
    counts = np.zeros((3, CONTEXTS, ESCAPE + 1), np.int64)
    for thumbnail in thumbnails:
        values = thumbnail.tolist()
        for row, column, colour, context, predicted in _places(values):
            symbol = _symbol(values[row][column][colour] - predicted)
            counts[colour, context, symbol] += 1
    return counts


def encode_thumbnail(encoder, thumbnail, counts):
    """Writes an integer thumbnail to a `RangeEncoder`.

    Args:
      encoder: the encoder.
      thumbnail: `(h, w, 3)`.
      counts: the counts to begin with, integers `(3, CONTEXTS, ESCAPE + 1)` of at least 1.
    """
    values, tables = thumbnail.tolist(), _Tables(counts)
    for row, column, colour, context, predicted in _places(values):
        difference = values[row][column][colour] - predicted
        symbol = _symbol(difference)
        start, weight, total = tables.interval(colour, context, symbol)
        encoder.encode(start, weight, total)
        tables.add(colour, context, symbol)
        if symbol == ESCAPE:
            encoder.encode_integer(2 * (abs(difference) - LARGEST - 1) + (difference < 0))


def decode_thumbnail(decoder, shape, counts):
    """Returns the integer thumbnail `(h, w, 3)` read from a `RangeDecoder`; see `encode_thumbnail`.

    Raises:
      ValueError: if the data is invalid.
    """
    h, w = shape
    values, tables = [[[0] * 3 for _ in range(w)] for _ in range(h)], _Tables(counts)
    for row, column, colour, context, predicted in _places(values):
        symbol = tables.find(colour, context, decoder)
        tables.add(colour, context, symbol)
        difference = symbol - LARGEST
        if symbol == ESCAPE:
            size, negative = divmod(decoder.decode_integer(), 2)
            difference = (LARGEST + 1 + size) * (1 - 2 * negative)
        value = predicted + difference
        if abs(value) > 2**14:
            raise ValueError("the payload is damaged: a mean colour is out of range.")
        values[row][column][colour] = value
    return np.array(values, np.int64)


def _symbol(difference):
    return difference + LARGEST if abs(difference) <= LARGEST else ESCAPE


def _places(values):
    """Yields row, column, colour, context and prediction, each from the values before it."""
    nothing = [0] * 3
    for row, line in enumerate(values):
        above = values[row - 1] if row else None
        for column, own in enumerate(line):
            left = line[column - 1] if column else above[0] if row else nothing
            up = above[column] if row else left
            corner = above[column - 1] if row and column else up
            right = above[column + 1] if row and column + 1 < len(line) else up
            for colour in range(3):
                a, b, c = left[colour], up[colour], corner[colour]
                low, high = (a, b) if a < b else (b, a)
                predicted = low if c >= high else high if c <= low else a + b - c
                first = min((abs(a - c) + abs(b - c)).bit_length(), _LEVELS - 1)
                if colour:  # a step of brightness goes with one of colour
                    second = abs(own[0] - (left[0] + up[0]) // 2)
                else:
                    second = abs(right[0] - b)
                yield row, column, colour, first * 4 + min(second.bit_length(), 3), predicted


class _Tables:
    """Counts of the symbols in each context, which grow with use."""

    def __init__(self, counts):
        self._counts = counts.astype(np.int64)

    def interval(self, colour, context, symbol):
        ends = self._counts[colour, context].cumsum()
        weight = int(self._counts[colour, context, symbol])
        return int(ends[symbol]) - weight, weight, int(ends[-1])

    def find(self, colour, context, decoder):
        ends = self._counts[colour, context].cumsum()
        symbol = int(ends.searchsorted(decoder.target(int(ends[-1])), "right"))
        start = int(ends[symbol - 1]) if symbol else 0
        decoder.consume(start, int(ends[symbol]) - start)
        return symbol

    def add(self, colour, context, symbol):
        counts = self._counts[colour, context]
        counts[symbol] += _GAIN
        if counts.sum() > _MOST:
            counts[:] = (counts + 1) // 2
