"""A probability model of tokens in integer arithmetic: the same on every machine.

Positions are coded in waves, so that a decoder has those to the west, north, north-west and
north-east of each, in all pictures at once. These data become a vector of small integers: the
neighbours' approximations (projected), their numbers of atoms, and side information. A small
network (one hidden layer, ReLU) turns that into scores:

    counts   of the number of atoms;
    atoms    of the next atom, which also see how many are left and which have been sent. The
             smallest of n draws from weights q is j with the weight q_j (q_j+1 + ... + q_m)^(n-1);
             the counts of atoms used so far in the picture are mixed in;
    levels   of the sign, by the product of what is predicted and the atom, and of the magnitude.
             Magnitudes from 16 on are escapes with an Elias gamma code: none is clipped.

A score is a logarithm to base 2 in units of 1/256 bit; a table turns it into a weight. All weights
are at least 1, so every token can be coded. `fit_context_model` makes the tables.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Self

import numpy as np
from jaxtyping import Float, Integer

from laser_jax.tokens.layout import LARGEST_LEVEL, Layout, Tokens, check_tokens
from laser_jax.tokens.products import exact_product
from laser_jax.tokens.range_coder import RangeDecoder, RangeEncoder
from laser_jax.tokens.tables import (
    MAGNITUDES,
    SENT,
    VERSION,
    check_tables,
    tables_from_bytes,
    tables_to_bytes,
)

Side = Integer[np.ndarray, "b h w side"]

UNIT = 256  # 1.0 in scores, hidden units and embeddings
FEATURE = 64  # 1.0 in features
MATRIX = 1024  # 1.0 in the first layer's matrix
HIDDEN = 16 * UNIT - 1  # largest hidden unit
NEAR = 4  # larger levels of a neighbour count as this
_BITS, _MIX = 22, 16  # log2 of the largest weight; factor of the network's weights beside uses
_RANGE = _BITS * UNIT
_WEIGHTS = np.rint(2.0 ** (_BITS - np.arange(_RANGE + 1) / UNIT)).astype(np.int64)
_POWERS = _WEIGHTS >> (_BITS - 16)  # 1.0 is 2^16
_RATIOS = np.rint(-UNIT * np.log2(np.maximum(np.arange(2**16 + 1), 0.5) / 2**16)).astype(np.int32)
_SIDE = np.rint(FEATURE * np.log2(1 + np.arange(4096))).astype(np.int64)
_CELLS = 2**17  # weights computed at a time: they stay in the cache


class ContextModel:
    """The tables of a context model, for tokens of one layout.

    Attributes:
      layout: the `Layout`.
      tables: name -> integer array.
      fingerprint: 8 bytes that identify the tables and the layout.
    """

    def __init__(self, layout: Layout, tables: Mapping[str, np.ndarray]) -> None:
        self.layout = layout
        self.tables = {name: np.asarray(tables[name], np.int32) for name in sorted(tables)}
        check_tables(layout, self.tables)
        self._atoms = np.ascontiguousarray(self.tables["atom_weights"].T, np.float64)
        digest = hashlib.blake2b(json.dumps([VERSION, *layout]).encode(), digest_size=8)
        shared = {"weights": _WEIGHTS, "ratios": _RATIOS, "side": _SIDE}
        for name, table in (shared | self.tables).items():
            digest.update(f"{name} {table.shape}".encode())
            digest.update(np.ascontiguousarray(table, "<i4").tobytes())
        self.fingerprint = digest.digest()

    @property
    def side_width(self) -> int:
        """Integers of side information at each position."""
        fixed = 4 * self.tables["near"].shape[1] + 12
        return self.tables["first"].shape[0] - fixed

    def bits(self, tokens: Tokens, *, side: Side | None = None) -> Float[np.ndarray, " b"]:
        """Returns the bits `(b,)` of each picture's tokens, coded on its own.

        Args:
          tokens: `Tokens` `(b, h, w)`.
          side: `(b, h, w, side_width)` integers that the decoder has too, if the model takes any.

        Raises:
          ValueError: if the tokens do not have the layout, or side does not fit.
        """
        return np.sum(list(self.bits_by_part(tokens, side=side).values()), axis=0)

    def bits_by_part(
        self, tokens: Tokens, *, side: Side | None = None
    ) -> dict[str, Float[np.ndarray, " b"]]:
        """Returns "counts", "atoms" and "levels" -> bits `(b,)`; see `bits`."""
        meter = _Meter(len(tokens.counts))
        self._walk(meter, tokens, side)
        return meter.parts

    def encode(self, encoder: RangeEncoder, tokens: Tokens, *, side: Side | None = None) -> None:
        """Writes tokens to a `RangeEncoder`; see `bits`."""
        self._walk(_Writer(encoder), tokens, side)

    def decode(
        self, decoder: RangeDecoder, shape: tuple[int, int, int], *, side: Side | None = None
    ) -> Tokens:
        """Returns the `Tokens` of shape `(b, h, w)` read from a `RangeDecoder`.

        Raises:
          ValueError: if the data is not valid.
        """
        k = self.layout.width
        tokens = Tokens(*(np.zeros((*shape, *end), np.int32) for end in ((), (k,), (k,))))
        self._walk(_Reader(decoder), tokens, side)
        return tokens

    def to_bytes(self) -> bytes:
        """Returns the model as bytes, for `from_bytes`."""
        return tables_to_bytes(self.layout, self.tables)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Returns the model of `to_bytes`.

        Raises:
          ValueError: if the data is damaged or of a newer version.
        """
        return cls(*tables_from_bytes(data))

    def _walk(self, coder, tokens, side):
        """Passes all tokens; those that a reader returns are put in place."""
        if not coder.reads:
            check_tokens(tokens, self.layout)
        b, h, w = tokens.counts.shape
        side = _check_side(side, (b, h, w), self.side_width)
        # As many pictures at a time as bounded memory takes. Files depend on it.
        size = max(1, min(2**22 // self.layout.num_atoms, 2**18 // max(1, h * w)))
        for start in range(0, b if h and w else 0, size):
            part = slice(start, start + size)
            coder.first_picture = start
            self._walk_pictures(coder, Tokens(*(x[part] for x in tokens)), side[part])

    def _walk_pictures(self, coder, tokens, side):
        """Passes the tokens of pictures wave after wave."""
        b, h, w = tokens.counts.shape
        picture = _Picture(self, tokens, side)
        for rows, columns in waves(h, w):
            at = np.repeat(np.arange(b), len(rows)), np.tile(rows, b), np.tile(columns, b)
            _Wave(self, coder, picture, at).run()


def waves(h, w):
    """Yields rows and columns of the positions that are coded together.

    Those to the west, north, north-west and north-east of each come earlier.
    """
    for wave in range(w + 2 * (h - 1)):
        rows = np.arange(max(0, -(-(wave - w + 1) // 2)), min(h - 1, wave // 2) + 1)
        if len(rows):  # a single column has positions in every second wave only
            yield rows, wave - 2 * rows


def _check_side(side, shape, width):
    """Side information as bounded integers: the logarithm of each magnitude, with its sign."""
    if (side is None) != (width == 0):
        raise ValueError(f"the model takes {width} integers of side information a position.")
    side = np.zeros((*shape, 0), np.int64) if side is None else np.asarray(side)
    if side.shape != (*shape, width) or not np.issubdtype(side.dtype, np.integer):
        raise ValueError(
            f"side must be integers of shape {(*shape, width)}, got {side.dtype} {side.shape}."
        )
    return np.sign(side) * _SIDE[np.minimum(np.abs(side), len(_SIDE) - 1)]


class _Picture:
    """What has been coded so far. Arrays have a frame for positions outside."""

    def __init__(self, model, tokens, side):
        b, h, w = tokens.counts.shape
        self.model, self.tokens, self.side = model, tokens, side
        self.near = np.zeros((b, h + 1, w + 2, model.tables["near"].shape[1]), np.int32)
        self.counts = np.full((b, h + 1, w + 2), -1, np.int32)
        self.uses = np.zeros((b, model.layout.num_atoms), np.int32)

    def features(self, at):
        """The integers `(n, f)` known at positions."""
        picture, row, column = at
        around = [(row + 1, column), (row, column + 1), (row, column), (row, column + 2)]
        near = [self.near[picture, i, j] for i, j in around]
        counts = np.stack([self.counts[picture, i, j] for i, j in around], -1)
        known = np.clip(counts, 0, 8) * (FEATURE // 4)
        flags = FEATURE * np.concatenate([counts == 0, counts >= 0], -1)
        return np.concatenate([*near, known, flags, self.side[at]], -1, dtype=np.int64)

    def add(self, at, counts, atoms, levels):
        """Remembers the signals at positions."""
        picture, row, column = at
        table, total = self.model.tables["near"], 0
        for place in range(counts.max(initial=0)):
            level = np.clip(levels[:, place], -NEAR, NEAR)  # 0 where there is no atom
            total = total + level[:, None] * table[atoms[:, place]]
        limit = 128 * FEATURE
        self.near[picture, row + 1, column + 1] = np.clip(total, -limit, limit)
        self.counts[picture, row + 1, column + 1] = counts
        used = np.arange(atoms.shape[1]) < counts[:, None]
        np.add.at(self.uses, (np.broadcast_to(picture[:, None], used.shape)[used], atoms[used]), 1)


class _Wave:
    """The positions of a wave: their counts, then their atoms, then their levels."""

    def __init__(self, model, coder, picture, at):
        self.layout, self.tables, self.atom_columns = model.layout, model.tables, model._atoms
        self.coder, self.picture, self.at = coder, picture, at
        self.counts, self.atoms, self.levels = (x[at] for x in picture.tokens)
        whole = (picture.features(at) @ self.tables["first"].astype(np.int64)) // (
            FEATURE * MATRIX // UNIT
        )
        limit = 2**20
        whole = np.clip(whole, -limit, limit).astype(np.int32) + self.tables["first_bias"]
        widths = [self.tables[x].shape[1] for x in ("sent", "level_atom", "product")]
        self.hidden, self.level_hidden, self.predicted = np.split(
            whole, np.cumsum(widths)[:2], axis=1
        )

    def run(self):
        self._pass_counts()
        self._pass_atoms()
        if self.layout.alphabets is None:
            self._pass_levels()
        else:
            self.levels[:] = np.arange(self.layout.width) < self.counts[:, None]
        if self.coder.reads:
            for all_tokens, mine in zip(
                self.picture.tokens, (self.counts, self.atoms, self.levels), strict=True
            ):
                all_tokens[self.at] = mine
        self.picture.add(self.at, self.counts, self.atoms, self.levels)

    def _pass_counts(self):
        if self.layout.full:
            self.counts[:] = self.layout.width
            return
        scores = _scores(
            _relu(self.hidden), self.tables["count_weights"], self.tables["count_bias"]
        )
        self.counts[:] = self.coder("counts", self.at[0], _weights(scores), self.counts)

    def _pass_atoms(self):
        hidden, tables = self.hidden.copy(), self.tables
        for place in range(self.counts.max(initial=0)):
            rows = np.flatnonzero(self.counts > place)
            if place:
                hidden[rows] += tables["sent"][self.atoms[rows, place - 1]]
            left = self.counts[rows] - place
            units = _relu(hidden[rows] + tables["left"][left] + tables["place"][place])
            size = max(1, _CELLS // self._alphabet(place)[1])
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                self._pass_place(place, rows[part], left[part], units[part])

    def _alphabet(self, place):
        """First atom and number of atoms of a place."""
        if self.layout.alphabets is None:
            return 0, self.layout.num_atoms
        return self.layout.starts[place], self.layout.alphabets[place]

    def _pass_place(self, place, rows, left, units):
        start, size = self._alphabet(place)
        columns = slice(start, start + size)
        scores = _scores(units, self.atom_columns[:, columns], self.tables["atom_bias"][columns])
        weights = _weights(scores)
        pictures = self.at[0][rows]
        strength, prior = self.tables["adapt"]
        if strength:
            # Of the whole weight the uses get a share that grows with their number.
            uses = self.picture.uses[pictures, columns]
            seen = uses.sum(1, keepdims=True, dtype=np.int64)
            each = weights.sum(1, keepdims=True) * strength // (seen + prior)
            weights = _MIX * weights + uses * each
        if self.layout.alphabets is None:
            first = self.atoms[rows, place - 1] + 1 if place else np.zeros_like(rows)
            weights = _next_of_set(weights, first, left)
        symbols = self.coder("atoms", pictures, weights, self.atoms[rows, place] - start)
        self.atoms[rows, place] = symbols + start

    def _pass_levels(self):
        tables, predicted = self.tables, self.predicted.copy()
        hidden = self.level_hidden + tables["level_count"][self.counts]
        sent = np.zeros_like(self.counts)
        for place in range(self.counts.max(initial=0)):
            rows = np.flatnonzero(self.counts > place)
            if place:
                before, level = self.atoms[rows, place - 1], self.levels[rows, place - 1]
                near = np.clip(level, -NEAR, NEAR)[:, None]
                predicted[rows] += near * tables["product_sent"][before]
                sent[rows] += np.minimum(np.abs(level), SENT)
            atoms, known = self.atoms[rows, place], self.levels[rows, place]
            limit = 2**14
            factors = np.clip(predicted[rows], -limit, limit).astype(np.int64)
            sign_score = np.sum(factors * tables["product"][atoms], 1) // UNIT
            sign_score = np.clip(sign_score, -HIDDEN, HIDDEN)
            scores = np.stack([sign_score, np.zeros_like(sign_score)], 1)
            pictures = self.at[0][rows]
            negative = self.coder("levels", pictures, _weights(scores), (known < 0) * 1)
            agreed = np.where(negative == 1, -sign_score, sign_score)
            units = hidden[rows] + tables["level_atom"][atoms]
            units += tables["level_sent"][np.minimum(sent[rows], SENT)]
            for sign, row in zip((1, -1), tables["level_sign"], strict=True):
                units += (np.maximum(sign * agreed, 0)[:, None] * row // UNIT).astype(np.int32)
            scores = _scores(_relu(units), tables["level_weights"], tables["level_bias"])
            shown = np.minimum(np.abs(known), MAGNITUDES + 1) - 1
            size = 1 + self.coder("levels", pictures, _weights(scores), shown)
            escaped = np.flatnonzero(size > MAGNITUDES)
            if len(escaped):
                known_sizes = np.abs(known[escaped]) - MAGNITUDES - 1
                size[escaped] += self.coder.integers("levels", pictures[escaped], known_sizes)
            self.levels[rows, place] = np.where(negative == 1, -size, size)


def _relu(units):
    return np.clip(units, 0, HIDDEN)


def _scores(units, weights, bias):
    """units @ weights // UNIT + bias."""
    total = exact_product(units, weights).astype(np.int32)
    total >>= 8
    total += bias
    return total


def _weights(scores):
    """Weights of scores, each at least 1, the largest 2^22."""
    below = scores.max(1, keepdims=True) - scores
    return _WEIGHTS[np.minimum(below, _RANGE, out=below)]


def _next_of_set(weights, first, left):
    """Weights of the next atom in ascending order: not below `first`, `left` of them to come."""
    columns = np.arange(weights.shape[1])
    weights *= columns >= first[:, None]
    more = np.flatnonzero(left > 1)
    if len(more):
        tails = weights[more].cumsum(1)
        total = tails[:, -1:].copy()
        # Shares of what lies beyond each atom, 2^16 or less, and their powers.
        shift = np.searchsorted(1 << np.arange(62), total, "right") - 16
        np.subtract(total, tails, out=tails)
        tails >>= np.maximum(shift, 0)
        top = np.maximum(total >> np.maximum(shift, 0), 1)
        below = _RATIOS[np.minimum(tails, 2**16)] - _RATIOS[np.minimum(top, 2**16)]
        below *= (left[more] - 1).astype(np.int32)[:, None]
        power = weights[more] * _POWERS[np.clip(below, 0, _RANGE)] >> 16
        last = weights.shape[1] - left[more][:, None]
        weights[more] = np.maximum(power, columns >= first[more, None]) * (columns <= last)
    return weights


class _Meter:
    """Sums the bits of known symbols."""

    reads = False

    def __init__(self, pictures):
        self.parts = {part: np.zeros(pictures) for part in ("counts", "atoms", "levels")}

    def __call__(self, part, pictures, weights, symbols):
        own = weights[np.arange(len(symbols)), symbols]
        np.add.at(self.parts[part], pictures + self.first_picture, np.log2(weights.sum(1) / own))
        return symbols

    def integers(self, part, pictures, integers):
        bits = 2 * np.floor(np.log2(integers + 1)) + 1
        np.add.at(self.parts[part], pictures + self.first_picture, bits)
        return integers


class _Writer:
    """Writes known symbols to a `RangeEncoder`."""

    reads = False

    def __init__(self, encoder):
        self._encoder = encoder

    def __call__(self, part, pictures, weights, symbols):
        ends, rows = weights.cumsum(1), np.arange(len(symbols))
        end, own = ends[rows, symbols], weights[rows, symbols]
        encode = self._encoder.encode
        for start, weight, total in zip(
            (end - own).tolist(), own.tolist(), ends[:, -1].tolist(), strict=True
        ):
            encode(start, weight, total)
        return symbols

    def integers(self, part, pictures, integers):
        for integer in integers.tolist():
            self._encoder.encode_integer(integer)
        return integers


class _Reader:
    """Reads symbols from a `RangeDecoder`."""

    reads = True

    def __init__(self, decoder):
        self._decoder = decoder

    def __call__(self, part, pictures, weights, symbols):
        ends, found = weights.cumsum(1), []
        for row, total in zip(ends, ends[:, -1].tolist(), strict=True):
            symbol = int(row.searchsorted(self._decoder.target(total), "right"))
            start = int(row[symbol - 1]) if symbol else 0
            self._decoder.consume(start, int(row[symbol]) - start)
            found.append(symbol)
        return np.array(found, symbols.dtype)

    def integers(self, part, pictures, integers):
        found = [self._decoder.decode_integer() for _ in integers]
        if found and max(found) + MAGNITUDES + 1 > LARGEST_LEVEL:
            raise ValueError("the payload is damaged: a level is beyond 2^30.")
        return np.array(found, np.int64)
