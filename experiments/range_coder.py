"""Entropy coding with a rate model's tables: codes to bytes and back.

Shows that the rates of `laser_jax.sparse.rate` are what a file would take. The coder itself is
constriction's range coder (Bamler 2022); this module defines the distributions of the symbols.
"""

import math

import numpy as np

from experiments.thumbnail import COLOURS, LARGEST, predict, predict_one


class _Stream:
    """Encodes or decodes symbols, so that both directions share one code path."""

    def __init__(self, words=None):
        import constriction

        self._categorical = constriction.stream.model.Categorical
        self._writes = words is None
        queue = constriction.stream.queue
        self._coder = queue.RangeEncoder() if self._writes else queue.RangeDecoder(words)

    def __call__(self, symbol, probabilities):
        """Writes a symbol of a distribution and returns it, or reads one."""
        if len(probabilities) == 1:
            return 0
        model = self._categorical(np.asarray(probabilities, np.float64), perfect=False)
        if not self._writes:
            return int(self._coder.decode(model))
        self._coder.encode(int(symbol), model)
        return int(symbol)

    def words(self):
        return self._coder.get_compressed()


def encode_code(code, model, *, stages=None):
    """Returns an integer `SparseCode` `(n, k)` as uint32 words; see `decode_code`.

    A set's indices are written in ascending order, so what comes back is the same set sorted.
    """
    stream = _Stream()
    _pass_code(stream, np.asarray(code.indices), np.asarray(code.coefficients), model, stages)
    return stream.words()


def decode_code(words, model, *, signals, stages=None):
    """Returns `(indices, levels)` of each signal, two lists of `signals` lists."""
    return _pass_code(_Stream(words), [None] * signals, [None] * signals, model, stages)


def _pass_code(stream, indices, levels, model, stages):
    index_p = 2.0 ** -np.asarray(model.index_bits, np.float64)
    level_p = 2.0 ** -np.asarray(model.level_bits, np.float64)
    level_p /= level_p.sum()
    k = len(model.count_bits) - 1
    # What a set's order saves is no part of the distribution of its size.
    saved = [0 if stages else math.lgamma(n + 1) / math.log(2) for n in range(k + 1)]
    count_p = 2.0 ** -(np.asarray(model.count_bits, np.float64) + saved)
    found = [], []
    for row, row_levels in zip(indices, levels, strict=True):
        known = row is not None
        used = np.flatnonzero(row_levels) if known else None
        count = stream(len(used) if known else None, count_p)
        if known:
            order = used if stages else used[np.argsort(row[used])]
            row, row_levels = row[order], row_levels[order]
        pass_support = _pass_stages if stages else _pass_set
        support = pass_support(stream, row, count, index_p, stages)
        read = []
        for place in range(count):
            if stages:
                read.append(1)
                continue
            level = row_levels[place] if known else 0
            size = 1 + stream(abs(level) - 1, level_p)
            read.append(size * (1 - 2 * stream(level < 0, [0.5, 0.5])))
        found[0].append(support)
        found[1].append(read)
    return found


def _pass_stages(stream, row, count, index_p, stages):
    size = len(index_p) // stages
    return [
        s * size
        + stream(row[s] - s * size if row is not None else None, index_p[s * size : (s + 1) * size])
        for s in range(count)
    ]


def _pass_set(stream, row, count, index_p, _):
    """Ascending indices, each as the least of the draws that are left, all of them distinct."""
    beyond = np.append(np.cumsum(index_p[::-1])[::-1], 0)  # beyond[j]: of drawing j or more
    support, first = [], 0
    for place in range(count):
        left = count - place
        # The draw j is the least: it is drawn, and the others lie beyond it.
        last = len(index_p) - left + 1
        weights = index_p[first:last] * (beyond[first + 1 : last + 1] / beyond[first]) ** (left - 1)
        symbol = row[place] - first if row is not None else None
        support.append(first + stream(symbol, weights / weights.sum()))
        first = support[-1] + 1
    return support


def encode_thumbnail(integers, thumbnail):
    """Returns an integer thumbnail `(h, w, 3)` as uint32 words."""
    differences, _ = predict(integers)
    if np.abs(differences).max() > LARGEST:
        raise ValueError(f"a difference of {np.abs(differences).max()} is beyond {LARGEST}.")
    stream = _Stream()
    _pass_thumbnail(stream, integers.copy(), thumbnail, known=True)
    return stream.words()


def decode_thumbnail(words, thumbnail, *, shape):
    """Returns the integer thumbnail of this shape."""
    return _pass_thumbnail(_Stream(words), np.zeros(shape, np.int64), thumbnail, known=False)


def _pass_thumbnail(stream, integers, thumbnail, *, known):
    probabilities = 2.0**-thumbnail.bits
    h, w, _ = integers.shape
    none = np.zeros(len(COLOURS), np.int64)
    for y in range(h):
        for x in range(w):
            left = integers[y, x - 1] if x else none
            up = integers[y - 1, x] if y else none
            corner = integers[y - 1, x - 1] if x and y else none
            prediction, context = predict_one(left, up, corner)
            if y == 0:
                prediction = left
            elif x == 0:
                prediction = up
            for colour in range(len(COLOURS)):
                symbol = integers[y, x, colour] - prediction[colour] + LARGEST
                p = probabilities[colour, context[colour]]
                symbol = stream(symbol if known else None, p)
                integers[y, x, colour] = symbol + prediction[colour] - LARGEST
    return integers
