"""Tokens as rows of symbols, which a model predicts one after the other.

A position has `places` symbols, in groups that share an alphabet:

    VQ, FSQ         one symbol: the entry, or the number of the grid's point;
    residual VQ     the number of stages, if it varies, then a symbol for each stage;
    sparse codes    the number of atoms, the atoms in ascending order, their levels.

The symbol of a level is the level itself. Its class is sign and magnitude; magnitudes from 16 on
are an escape with an Elias gamma code, as in `laser_jax.tokens`, so none is clipped.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from laser_jax.tokens import Layout, Tokens, check_tokens

MAGNITUDES = 15  # magnitudes with a separate class; one more class is the escape
LARGEST_POINTS = 2**16  # larger FSQ grids have one symbol for each channel

Symbols = Int[Array | np.ndarray, "*batch s"]


class Group(NamedTuple):
    """Places `[first, first + length)` of a row, with `size` classes each."""

    name: str
    size: int
    first: int
    length: int

    @property
    def places(self) -> slice:
        """The places of the group in a row."""
        return slice(self.first, self.first + self.length)


class Vocabulary:
    """The symbols of a `Layout`.

    Attributes:
      layout: the `Layout`.
      most_atoms: places of atoms, and of levels, in a row of a sparse code; `layout.width` by
        default. A smaller number makes rows shorter, for codes that use no more atoms.
      groups: the `Group`s, in the order of their places.
      places: s, symbols of a position.
    """

    def __init__(self, layout: Layout, most_atoms: int | None = None) -> None:
        self.layout = layout
        self.most_atoms = k = layout.width if most_atoms is None else most_atoms
        sizes: list = [] if layout.full else [("counts", layout.width + 1, 1)]
        self._one_point = layout.grid and math.prod(layout.alphabets or ()) <= LARGEST_POINTS
        if self._one_point:
            sizes.append(("points", math.prod(layout.alphabets or ()), 1))
        elif layout.alphabets:
            sizes += [(f"stage_{i}", size, 1) for i, size in enumerate(layout.alphabets)]
        else:
            sizes += [("atoms", layout.num_atoms, k), ("levels", 2 * (MAGNITUDES + 1), k)]
        firsts = np.cumsum([0, *(count for _, _, count in sizes)])
        self.groups = tuple(
            Group(name, size, int(first), count)
            for (name, size, count), first in zip(sizes, firsts[:-1], strict=True)
        )
        self.places = int(firsts[-1])

    @functools.cached_property
    def group(self) -> dict[str, Group]:
        """Name -> `Group`."""
        return {group.name: group for group in self.groups}

    def symbols(self, tokens: Tokens) -> np.ndarray:
        """Returns the symbols `(b, h w, s)`, int32, of tokens `(b, h, w)`.

        Raises:
          ValueError: if the tokens do not have the layout.
        """
        check_tokens(tokens, self.layout)
        counts, atoms, levels = (np.asarray(x, np.int64) for x in tokens)
        parts = [] if self.layout.full else [counts[..., None]]
        if self.layout.alphabets:
            used = np.arange(self.layout.width) < counts[..., None]
            entries = np.where(used, atoms - self.layout.starts, 0)
            if self._one_point:
                entries = np.sum(entries * self._radix, -1, keepdims=True)
            parts.append(entries)
        else:
            parts += [atoms, levels]
        rows = np.concatenate(parts, -1).astype(np.int32)
        b, h, w, s = rows.shape
        return rows.reshape(b, h * w, s)

    def trimmed(self, symbols: np.ndarray) -> np.ndarray:
        """Returns symbols with as few places of atoms as their codes need, a power of 2."""
        if self.layout.alphabets:
            return symbols
        needed = int(symbols[..., 0].max(initial=1))
        own = Vocabulary(self.layout, symbols.shape[-1] // 2)  # they may be trimmed already
        short = Vocabulary(self.layout, min(1 << (needed - 1).bit_length(), own.most_atoms))
        parts = [symbols[..., g.first : g.first + s.length]
                 for g, s in zip(own.groups, short.groups, strict=True)]  # fmt: skip
        return np.concatenate(parts, -1)

    def tokens(self, symbols: np.ndarray, grid: tuple[int, int]) -> Tokens:
        """Returns the tokens `(b, h, w)` of symbols; the inverse of `symbols`."""
        layout = self.layout
        rows = np.asarray(symbols, np.int64)
        rows = rows.reshape(-1, *grid, rows.shape[-1])
        counts = np.full(rows.shape[:3], layout.width) if layout.full else rows[..., 0]
        rows = rows if layout.full else rows[..., 1:]
        used = np.arange(layout.width) < counts[..., None]
        if layout.alphabets:
            entries = rows
            if self._one_point:
                entries = rows // self._radix % np.array(layout.alphabets)
            atoms, levels = entries + layout.starts, np.ones_like(entries)
        else:
            missing = layout.width - rows.shape[-1] // 2
            padding = (*3 * [(0, 0)], (0, missing))
            atoms, levels = (np.pad(x, padding) for x in np.split(rows, 2, -1))
        parts = counts, np.where(used, atoms, 0), np.where(used, levels, 0)
        return Tokens(*(x.astype(np.int32) for x in parts))

    @property
    def _radix(self):
        return np.cumprod((1, *self.layout.alphabets[:-1]))

    def used(self, symbols: Symbols) -> Bool[Array, "*batch s"]:
        """Returns which places of each position are part of its code."""
        if self.layout.full:
            return jnp.ones(symbols.shape, bool)
        number = np.concatenate(
            [np.arange(g.length) if g.name in ("atoms", "levels") else [i - 1]
             for i, g in enumerate(self.groups)]
        )  # fmt: skip
        number = number.reshape((1,) * (symbols.ndim - 1) + (-1,))
        return jnp.asarray(number) < symbols[..., :1]

    def classes(self, group: Group, symbols: Any) -> Any:
        """Returns the classes of symbols of a group, in [0, group.size)."""
        if group.name != "levels":
            return symbols
        magnitude = jnp.clip(jnp.abs(symbols), 1, MAGNITUDES + 1)
        return 2 * (magnitude - 1) + (symbols < 0)

    def drawn(self, group: Group, classes: Any, key: Any) -> Any:
        """Returns symbols of classes; the bits of an escape are drawn."""
        if group.name != "levels":
            return classes
        magnitude, negative = classes // 2 + 1, classes % 2
        coins = jax.random.bits(key, (2, *classes.shape))
        length = jnp.minimum(lax.clz(coins[0]), 29).astype(jnp.int32)  # of fair coins up to a 1
        excess = (1 << length) + (coins[1] & ((1 << length) - 1).astype(coins.dtype))
        excess = excess.astype(jnp.int32)
        magnitude = jnp.where(magnitude > MAGNITUDES, MAGNITUDES + excess, magnitude)
        return jnp.where(negative == 1, -magnitude, magnitude)

    def escape_bits(self, group: Group, symbols: Any) -> Any:
        """Returns the bits of the symbols that their classes do not have."""
        if group.name != "levels":
            return jnp.zeros(symbols.shape)
        magnitude = jnp.abs(symbols)
        excess = jnp.maximum(magnitude - MAGNITUDES, 1)
        length = 2 * (31 - lax.clz(excess)) + 1
        return jnp.where(magnitude > MAGNITUDES, length, 0).astype(jnp.float32)

    def vectors(self, dictionary: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the name of a group -> what its classes add to a signal, `(size, d)`.

        Args:
          dictionary: `(m, d)` atoms of the code.
        """
        rows = self.layout.vectors(dictionary)
        if not self.layout.alphabets:
            return {"atoms": rows}
        parts = np.split(rows, self.layout.starts[1:])
        if not self._one_point:
            return {f"stage_{i}": part for i, part in enumerate(parts)}
        digits = np.arange(self.groups[-1].size)[:, None] // self._radix
        digits = digits % np.array(self.layout.alphabets)
        return {"points": sum(part[digit] for part, digit in zip(parts, digits.T, strict=True))}
