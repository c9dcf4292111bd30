"""Learns the pixel codec's model from photographs.

Each band of qualities has a dictionary. Over the square root of its price, every signal is coded
at a price of 1 and with one step, so a dictionary serves several prices. An iteration codes one
view (a grid, a mirror image) of each photograph at each end of the band (knots) under the tables
of the iteration before, then moves the atoms. The decoded pixels that a prediction needs are those
of the iteration before, so all patches are coded at once; the codec itself codes them in waves.
"""

import logging
from typing import NamedTuple

import jax
import numpy as np
from scipy import sparse

from laser_jax.pixels import thumbnail
from laser_jax.pixels.model import QUALITIES, STEP_RATIO, rate_table, side_of
from laser_jax.pixels.prediction import INPUTS, WIDTH, Canvas, patches_of
from laser_jax.pixels.units import ATOM, FINE, PATCH, STEP, WEIGHT
from laser_jax.sparse import (
    RateModel,
    SparseCode,
    fit_rate_model,
    rate_distortion_pursuit,
    uniform_rate_model,
)
from laser_jax.tokens import Layout, fit_context_model, tokens_of

log = logging.getLogger("laser_jax")

# Prices fall by a constant factor up to quality 67, by a larger one from there.
PRICES = 0.025 * (0.0002 / 0.025) ** (np.arange(QUALITIES) / (QUALITIES - 1))
PRICES[66:] = PRICES[66] * 0.1 ** (np.arange(34) / 33)
MAX_LEVEL = 255
PIXEL = 255 * FINE  # [0, 1] pixels in 1/16 pixel
CHUNK = 4096  # signals coded by one call


class Plan(NamedTuple):
    """How much is learned.

    Attributes:
      atoms: m, of each band.
      sparsity: the most atoms of a patch.
      iterations: of a dictionary.
      passes: over which tables are fitted, after the dictionary.
      knots: for each band the qualities at which there are tables; beyond the last band's the
        tables of its nearest knot are used.
      windows: for each knot the side in pixels of the part of each photograph that is coded.
      context_steps: the most steps of a context model.
      seed: of all random numbers.
    """

    atoms: int = 2048
    sparsity: int = 48
    iterations: int = 8
    passes: int = 2
    knots: tuple = ((34, 67),)
    windows: tuple = ((1024, 512),)
    context_steps: int = 1500
    seed: int = 0


class Cut(NamedTuple):
    """A view of a photograph at a price, ready to be coded."""

    knot: int
    decoded: np.ndarray  # a view of the decoded photograph
    thumbnail: np.ndarray
    inputs: np.ndarray  # (n, INPUTS)
    middle: np.ndarray  # (n, WIDTH)
    patches: np.ndarray  # (n, WIDTH), in 1/16 pixel


def learn(photographs, plan=None):
    """Returns the arrays of a `PixelModel`.

    Args:
      photographs: list of uint8 `(H, W, 3)`.
      plan: a `Plan`.
    """
    plan = plan or Plan()
    return joined([learn_band(photographs, plan, band) for band in range(len(plan.knots))])


def learn_band(photographs, plan, band):
    """Returns the arrays of a `Band`, and counts of the thumbnails' symbols."""
    learner = _Learner(photographs, plan, band)
    for iteration in range(plan.iterations):
        learner.improve(iteration)
    return learner.finish()


def joined(bands):
    """Returns the arrays of a model from what `learn_band` returned for each band."""
    counts = sum(counts for _, counts in bands)
    totals = np.maximum(counts.sum(-1, keepdims=True), 1)
    arrays = {
        "thumbnail_counts": np.maximum(np.rint(1024 * counts / totals), 1).astype(np.int16),
        "steps": np.rint(STEP_RATIO * PRICES**0.5 * PIXEL * STEP / ATOM).astype(np.int32),
        "thumbnail_steps": np.array([thumbnail_step(x) for x in PRICES], np.int16),
        "prices": PRICES,
    }
    for number, (band, _) in enumerate(bands):
        arrays |= {f"{number}.{name}": x for name, x in band.items()}
    return arrays


class _Learner:
    def __init__(self, photographs, plan, band):
        self.plan, self.rng = plan, np.random.default_rng([plan.seed, 1 + band])
        self.photographs, self.windows = photographs, plan.windows[band]
        self.knots = np.array(plan.knots[band])
        self.prices = PRICES[self.knots - 1]
        model = uniform_rate_model(plan.atoms, sparsity=plan.sparsity, max_level=MAX_LEVEL)
        levels = 1 + 2 * np.log2(np.arange(1, MAX_LEVEL + 1))
        # Under even tables nearly no atom would be worth its bits.
        model = RateModel(np.asarray(model.index_bits), levels, np.zeros(plan.sparsity + 1))
        self.rates = [RateModel(*map(np.float32, model))] * len(self.knots)
        self.decoded = [
            [self._noisy(image, price) for image in photographs] for price in self.prices
        ]
        self.dictionary, self.matrix = None, None
        self.moments = 0, 0

    def _noisy(self, image, price):
        """Approximates the pixels decoded at a price, before any have been decoded."""
        noise = 255 * (price / 4) ** 0.5 * self.rng.standard_normal(image.shape)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.int16)

    def _cuts(self, turn):
        """Yields a view of each photograph at each knot."""
        for knot, window in enumerate(self.windows):
            step = learning_step(self.prices[knot])
            for number, image in enumerate(self.photographs):
                chosen = turn + knot + number
                original, decoded = (_view(x, chosen) for x in (image, self.decoded[knot][number]))
                corner = [
                    PATCH * int(self.rng.integers(max(0, side - window) // PATCH + 1))
                    for side in original.shape[:2]
                ]
                part = tuple(slice(a, a + window) for a in corner)
                yield self._cut(knot, original[part], decoded[part], step)

    def _cut(self, knot, original, decoded, step):
        small = thumbnail.shrink(original, step)
        canvas = Canvas(thumbnail.means_of(small, step), decoded)
        h, w, _ = small.shape
        inputs, middle = canvas.inputs(*(x.ravel() for x in np.indices((h, w))))
        patches = FINE * patches_of(original.astype(np.int64)).reshape(h * w, WIDTH)
        middle = np.tile(middle, PATCH**2)
        return Cut(knot, decoded, small, np.int32(inputs), np.int32(middle), np.int32(patches))

    def improve(self, iteration):
        """Codes a view of each photograph, then updates the dictionary and the tables."""
        cuts = list(self._cuts(iteration))
        self.matrix = _fit_matrix(cuts, self.prices)
        signals = [self._signals(cut) for cut in cuts]
        if self.dictionary is None:
            self.dictionary = self._first_atoms(signals)
        codes = [self._code(cut, y) for cut, y in zip(cuts, signals, strict=True)]
        self._fit_rates(cuts, codes)
        errors = [y - x @ self.dictionary for y, x in zip(signals, codes, strict=True)]
        crossed = (x.T @ y for x, y in zip(codes, signals, strict=True))
        new = sum(x.T @ x for x in codes), sum(crossed)
        self.moments = tuple(0.6 * old + now for old, now in zip(self.moments, new, strict=True))
        self.dictionary = _descend(*self.moments, self.dictionary)
        self._report(iteration, cuts, codes, errors)
        if iteration < self.plan.iterations - 3:
            self._replace(codes, errors)

    def _signals(self, cut):
        """The residuals of the prediction, divided by the square root of the price."""
        predicted = np.clip(cut.inputs @ self.matrix / WEIGHT + cut.middle, 0, PIXEL)
        return (cut.patches - predicted) / (PIXEL * self.prices[cut.knot] ** 0.5)

    def _first_atoms(self, signals):
        every = np.concatenate(signals)
        energy = np.sum(every**2, 1)
        chosen = self.rng.choice(len(every), self.plan.atoms, False, energy / energy.sum())
        return every[chosen] / np.linalg.norm(every[chosen], axis=1, keepdims=True)

    def _code(self, cut, signals):
        """Codes a cut and stores its decoded pixels; returns the code as a matrix."""
        code = pursue(signals, self.dictionary, self.rates[cut.knot], self.plan.sparsity)
        matrix = _as_matrix(code, self.plan.atoms)
        price = self.prices[cut.knot]
        approximation = PIXEL * price**0.5 * (matrix @ self.dictionary - signals)
        shown = np.clip(np.rint((cut.patches + approximation) / FINE), 0, 255)
        h, w, _ = cut.thumbnail.shape
        grid = shown.reshape(h, w, PATCH, PATCH, 3).transpose(0, 2, 1, 3, 4)
        cut.decoded[:] = grid.reshape(cut.decoded.shape)
        return matrix

    def _fit_rates(self, cuts, codes):
        for knot in range(len(self.rates)):
            mine = [x for cut, x in zip(cuts, codes, strict=True) if cut.knot == knot]
            self.rates[knot] = _rate_model(sparse.vstack(mine), self.plan)

    def _report(self, iteration, cuts, codes, errors):
        for knot, price in enumerate(self.prices):
            mine = [i for i, cut in enumerate(cuts) if cut.knot == knot]
            bits = sum(_bits(codes[i], self.rates[knot]) for i in mine)
            error = price * np.mean(np.concatenate([errors[i] for i in mine]) ** 2)
            pixels = sum(codes[i].shape[0] for i in mine) * PATCH**2
            log.info(
                "iteration %d, price %.5f: %.3f bits a pixel, %.2f dB",
                iteration, price, bits / pixels, -10 * np.log10(error),
            )  # fmt: skip

    def _replace(self, codes, errors):
        """Replaces atoms that are hardly used by the signals with the largest errors."""
        uses = np.bincount(np.concatenate([x.indices for x in codes]), minlength=self.plan.atoms)
        unused = np.flatnonzero(uses < 8)
        every = np.concatenate(errors)
        energy = np.sum(every**2, 1)
        chosen = self.rng.choice(len(every), len(unused), False, energy / energy.sum())
        self.dictionary[unused] = every[chosen] / np.sqrt(energy[chosen, None])
        kept = np.ones(self.plan.atoms)
        kept[unused] = 0
        codes, crossed = self.moments
        self.moments = codes.multiply(kept[:, None] * kept).tocsr(), crossed * kept[:, None]
        for i, rate in enumerate(self.rates):
            bits = rate.index_bits.copy()
            bits[unused] = np.log2(self.plan.atoms)
            self.rates[i] = rate._replace(index_bits=bits)

    def finish(self):
        """Rounds the dictionary and fits all tables to it; see `learn_band`."""
        plan, found, counts = self.plan, [], 0
        rounded = np.clip(np.rint(ATOM * self.dictionary), -127, 127).astype(np.int8)
        self.dictionary = rounded / ATOM
        for turn in range(plan.passes):
            cuts = list(self._cuts(plan.iterations + turn))
            codes = [self._code(cut, self._signals(cut)) for cut in cuts]
            self._fit_rates(cuts, codes)
            counts = counts + thumbnail.count_symbols([cut.thumbnail for cut in cuts])
            found += zip(cuts, codes, strict=True)
        arrays = {
            "dictionary": rounded, "matrix": self.matrix.astype(np.int16),
            "knots": self.knots.astype(np.int16), "context": self._context(found),
        }  # fmt: skip
        for name in RateModel._fields:
            arrays[name] = rate_table([getattr(rate, name) for rate in self.rates])
        return arrays, counts

    def _context(self, found):
        plan = self.plan
        layout = Layout.of_set(num_atoms=plan.atoms, sparsity=plan.sparsity, step=1.0)
        tokens, sides = [], []
        for cut, code in found:
            h, w, _ = cut.thumbnail.shape
            tokens.append(tokens_of(_as_code(code, (1, h, w), plan.sparsity), layout))
            around = thumbnail.differences(cut.thumbnail)
            sides.append(side_of(around, self.knots[cut.knot], self.knots))
        log.info("fitting the context model")
        model = fit_context_model(
            tokens, layout, dictionary=self.dictionary, side=sides, seed=plan.seed,
            most_steps=plan.context_steps,
        )  # fmt: skip
        return np.frombuffer(model.to_bytes(), np.uint8)


def thumbnail_step(price):
    """Returns the step of files' thumbnails in 1/16 pixel: the best for the validation photograph.

    Coarser means cost more atoms than they save.
    """
    return int(np.rint(0.034 * PIXEL * (price / 0.005) ** (1 / 3)))


def learning_step(price):
    """Returns the step while learning, in 1/16 pixel. It was chosen before that of files."""
    return int(np.rint(0.06 * PIXEL * np.clip((price / 0.003) ** 0.25, 0.8, 1.5)))


def pursue(signals, dictionary, rate, sparsity):
    """Returns the integer `SparseCode` of signals over the square root of their price."""
    dictionary, rate = jax.device_put((np.float32(dictionary), rate))
    found = []
    for start in range(0, len(signals), CHUNK):
        part = np.float32(signals[start : start + CHUNK])
        padded = np.pad(part, ((0, CHUNK - len(part)), (0, 0)))
        code = jax.device_get(rate_distortion_pursuit(
            padded, dictionary, rate, sparsity=sparsity, step=STEP_RATIO, bit_price=1.0
        ))  # fmt: skip
        found.append(SparseCode(*(x[: len(part)] for x in code)))
    return SparseCode(*(np.concatenate(x) for x in zip(*found, strict=True)))


def _view(image, number):
    """One of eight views of an image whose sides are multiples of 8, without a copy."""
    half = PATCH // 2
    top, left = ((0, 0), (half, half), (half, 0), (0, half))[number % 4]
    image = image[top:, left:]
    if number % 8 >= 4:
        image = image.transpose(1, 0, 2)
    if number % 2:
        image = image[:, ::-1]
    h, w = (side - side % PATCH for side in image.shape[:2])
    return image[:h, :w]


def _fit_matrix(cuts, prices):
    """The map of least squares from inputs to patches; a signal at a low price counts more."""
    left, right = np.zeros((INPUTS, INPUTS)), np.zeros((INPUTS, WIDTH))
    for cut in cuts:
        x, y = cut.inputs.astype(np.float64), (cut.patches - cut.middle).astype(np.float64)
        weight = prices[cut.knot] ** -0.5
        left += weight * x.T @ x
        right += weight * x.T @ y
    ridge = 1e-4 * np.trace(left) / INPUTS
    matrix = np.linalg.solve(left + ridge * np.eye(INPUTS), right)
    return np.clip(np.rint(WEIGHT * matrix), -(2**15), 2**15 - 1)


def _as_matrix(code, atoms):
    """A code as a sparse matrix of real coefficients, `(n, m)`."""
    used = np.asarray(code.coefficients) != 0
    values = STEP_RATIO * np.asarray(code.coefficients)[used].astype(np.float64)
    starts = np.append(0, np.cumsum(used.sum(1)))
    return sparse.csr_matrix((values, np.asarray(code.indices)[used], starts), (len(used), atoms))


def _as_code(matrix, shape, sparsity):
    """The inverse of `_as_matrix`: an integer code of `shape + (k,)`; unused places have atom 0."""
    n, counts = matrix.shape[0], np.diff(matrix.indptr)
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
    rows = np.repeat(np.arange(n), counts)
    indices, levels = np.zeros((n, sparsity), np.int32), np.zeros((n, sparsity), np.int32)
    indices[rows, place] = matrix.indices
    levels[rows, place] = np.rint(matrix.data / STEP_RATIO)
    return SparseCode(*(x.reshape(*shape, sparsity) for x in (indices, levels)))


def _rate_model(matrix, plan):
    code = _as_code(matrix, (matrix.shape[0],), plan.sparsity)
    model = fit_rate_model(code, num_atoms=plan.atoms, max_level=MAX_LEVEL)
    return RateModel(*map(np.asarray, model))


def _bits(matrix, rate):
    levels = np.abs(np.rint(matrix.data / STEP_RATIO)).astype(int)
    each = rate.index_bits[matrix.indices] + rate.level_bits[np.minimum(levels, MAX_LEVEL) - 1]
    return each.sum(dtype=np.float64) + rate.count_bits[np.diff(matrix.indptr)].sum()


def _descend(code_moment, cross_moment, dictionary):
    """One pass of block coordinate descent, as in `online_update`, over a sparse code moment.

    There the moment is a full matrix: its product costs n m^2.
    """
    code_moment, dictionary = sparse.csr_matrix(code_moment), dictionary.copy()
    uses = code_moment.diagonal()
    for atom in np.flatnonzero(uses > 0):
        row = slice(*code_moment.indptr[atom : atom + 2])
        model = code_moment.data[row] @ dictionary[code_moment.indices[row]]
        moved = dictionary[atom] + (cross_moment[atom] - model) / uses[atom]
        norm = np.linalg.norm(moved)
        if norm > 0:
            dictionary[atom] = moved / norm
    return dictionary
