"""Codes as integers in canonical order, and back.

A signal's tokens are how many atoms it has, which, in ascending order, and their levels: integer
coefficients in units of a step. The set comes before the levels because least squares makes a
coefficient depend on all atoms of its signal.

    layout = Layout.of_set(num_atoms=512, sparsity=8, step=0.1)
    tokens = tokens_of(code, layout)
    code = dequantize_coefficients(code_of(tokens, layout), layout.steps)
"""

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Array, Float, Integer

from laser_jax.checks import check_at_least, check_code, check_integer, check_sparsity
from laser_jax.sparse import SparseCode

LARGEST_LEVEL = 2**30  # in magnitude


class Tokens(NamedTuple):
    """The integers of codes.

    Attributes:
      counts: `(b, h, w)` int32, atoms of each signal.
      atoms: `(b, h, w, k)` int32, in ascending order; 0 from place `counts` on.
      levels: `(b, h, w, k)` int32, not 0; 0 from place `counts` on.
    """

    counts: Integer[np.ndarray, "b h w"]
    atoms: Integer[np.ndarray, "b h w k"]
    levels: Integer[np.ndarray, "b h w k"]


class Layout(NamedTuple):
    """Which integers a kind of code consists of.

    Attributes:
      alphabets: None for a set of atoms; else the size of each place's own alphabet: atom
        `sum(alphabets[:s]) + i` is entry i of place s, and levels are 1.
      num_atoms: m, of all places together.
      width: k, the most atoms of a signal.
      steps: the coefficient of a level of 1: one number, or one for each atom of the code.
      full: whether every signal has exactly k atoms.
      grid: whether the places are FSQ's channels: the code's atom is the channel, its level the
        value.
    """

    alphabets: tuple[int, ...] | None
    num_atoms: int
    width: int
    steps: float | tuple[float, ...] = 1.0
    full: bool = False
    grid: bool = False

    @classmethod
    def of_set(cls, *, num_atoms: int, sparsity: int, step: float) -> Self:
        """Returns the layout of sparse codes, whose coefficients are multiples of `step`."""
        num_atoms = check_integer("num_atoms", num_atoms)
        sparsity = check_integer("sparsity", sparsity)
        check_sparsity(sparsity, num_atoms, "num_atoms")
        if not 0 < step < math.inf:
            raise ValueError(f"step must be a positive number, got {step}.")
        return cls(None, num_atoms, sparsity, float(step))

    @classmethod
    def of_stages(cls, *, num_atoms: int, stages: int = 1, full: bool = True) -> Self:
        """Returns the layout of VQ, one stage, and of residual VQ.

        Args:
          num_atoms: m, of all stages together.
          stages: how many; each has m / stages atoms.
          full: whether every signal uses all stages; False: the first few of them.
        """
        num_atoms, stages = check_integer("num_atoms", num_atoms), check_integer("stages", stages)
        check_at_least("stages", stages, 1)
        if num_atoms < stages or num_atoms % stages:
            raise ValueError(f"num_atoms {num_atoms} must be a multiple of stages {stages}.")
        return cls((num_atoms // stages,) * stages, num_atoms, stages, full=bool(full))

    @classmethod
    def of_grid(cls, levels: Iterable[int]) -> Self:
        """Returns the layout of FSQ with so many values in each channel."""
        levels = tuple(check_integer("levels", n) for n in levels)
        if not levels or min(levels) < 2:
            raise ValueError(f"levels must be integers of at least 2, got {levels}.")
        steps = tuple(1 / (n // 2) for n in levels)
        return cls(levels, sum(levels), len(levels), steps, full=True, grid=True)

    @property
    def starts(self) -> Integer[np.ndarray, " k"]:
        """The first atom of each place, `(k,)`; 0 for a set."""
        sizes = self.alphabets or (0,) * self.width
        return np.cumsum((0, *sizes[:-1]))

    def vectors(
        self, dictionary: Float[Array | np.ndarray, "m d"]
    ) -> Float[np.ndarray, "num_atoms d"]:
        """Returns what one level of each atom adds to a signal, `(num_atoms, d)`.

        Args:
          dictionary: `(m, d)` array of the code's atoms; `(k, d)` of a grid's channels.

        Raises:
          ValueError: if the dictionary has another number of rows.
        """
        rows = np.asarray(dictionary, np.float64)
        expected = self.width if self.grid else self.num_atoms
        if rows.ndim != 2 or len(rows) != expected or rows.size == 0:
            raise ValueError(f"dictionary must have shape ({expected}, d), got {rows.shape}.")
        if not self.grid:
            return rows
        values = [(np.arange(n) - n // 2) / (n // 2) for n in self.alphabets or ()]
        return np.concatenate([x[:, None] * row for x, row in zip(values, rows, strict=True)])


def tokens_of(code: SparseCode, layout: Layout) -> Tokens:
    """Returns the `Tokens` of a `SparseCode` `(b, h, w, k)`.

    Args:
      code: integer coefficients are levels; floats become the nearest multiples of
        `layout.steps`, and an atom of level 0 is left out.
      layout: the `Layout` of the code.

    Raises:
      ValueError: if the code does not have the layout, or a level is beyond 2^30.
    """
    check_code(SparseCode(*map(np.asarray, code)))  # type: ignore[arg-type]
    indices = np.asarray(code.indices, np.int64)
    if indices.ndim != 4 or indices.shape[-1] != layout.width:
        raise ValueError(f"a code must have shape (b, h, w, {layout.width}), got {indices.shape}.")
    if layout.grid and np.any(indices != np.arange(layout.width)):
        raise ValueError(f"indices must be the channels 0 to {layout.width - 1}, in this order.")
    if indices.size and not (0 <= indices.min() and indices.max() < layout.num_atoms):
        raise ValueError(
            f"indices must be in [0, {layout.num_atoms}), got {indices.min()} to {indices.max()}."
        )
    levels = _levels(code, layout)
    used = levels != 0
    if layout.grid:
        indices, used = layout.starts + levels + np.array(layout.alphabets) // 2, np.ones_like(used)
        levels = np.ones_like(levels)
    counts = used.sum(-1)
    order = np.argsort(np.where(used, indices, np.iinfo(np.int64).max), -1, kind="stable")
    atoms, levels = (
        np.where(np.arange(layout.width) < counts[..., None], np.take_along_axis(x, order, -1), 0)
        for x in (indices, levels)
    )
    tokens = Tokens(*(x.astype(np.int32) for x in (counts, atoms, levels)))
    check_tokens(tokens, layout)
    return tokens


def code_of(tokens: Tokens, layout: Layout) -> SparseCode:
    """Returns the integer `SparseCode` of tokens; its coefficients are levels.

    Unused places have coefficient 0 at distinct indices.
    `laser_jax.sparse.dequantize_coefficients(code, layout.steps)` is the code in floats.

    Raises:
      ValueError: if the tokens do not have the layout.
    """
    check_tokens(tokens, layout)
    counts, atoms, levels = (np.asarray(x, np.int32) for x in tokens)
    if layout.grid:
        values = atoms - layout.starts - np.array(layout.alphabets) // 2
        channels = np.broadcast_to(np.arange(layout.width), values.shape)
        indices, levels = channels.astype(np.int32), values.astype(np.int32)
        return SparseCode(indices, levels)  # type: ignore[arg-type]
    used = np.arange(layout.width) < counts[..., None]
    if layout.alphabets:
        indices = np.where(used, atoms, layout.starts).astype(np.int32)
        return SparseCode(indices, levels)  # type: ignore[arg-type]
    # Of the first k atoms at least as many are free as places are unused.
    first = np.arange(layout.width)
    taken = np.any((atoms[..., None] == first) & used[..., None], -2)
    free = np.argsort(taken, -1, kind="stable")
    place = np.clip(first - counts[..., None], 0, None)
    indices = np.where(used, atoms, np.take_along_axis(free, place, -1))
    return SparseCode(indices.astype(np.int32), levels)  # type: ignore[arg-type]


def check_tokens(tokens: Tokens, layout: Layout) -> None:
    """Raises ValueError unless `Tokens` are in canonical order and have the layout."""
    counts, atoms, levels = map(np.asarray, tokens)
    if any(not np.issubdtype(x.dtype, np.integer) for x in (counts, atoms, levels)):
        raise ValueError("tokens must be integers.")
    k, m = layout.width, layout.num_atoms
    if counts.ndim != 3 or atoms.shape != (*counts.shape, k) or levels.shape != atoms.shape:
        raise ValueError(
            f"tokens must have shapes (b, h, w), (b, h, w, {k}) and (b, h, w, {k}), got "
            f"{counts.shape}, {atoms.shape} and {levels.shape}."
        )
    if counts.size == 0:
        return
    least = k if layout.full else 0
    if counts.min() < least or counts.max() > k:
        raise ValueError(f"counts must be in [{least}, {k}], got {counts.min()} to {counts.max()}.")
    used = np.arange(k) < counts[..., None]
    if np.any(atoms[~used]) or np.any(levels[~used]):
        raise ValueError("tokens of unused places must be 0.")
    low, high = (layout.starts, layout.starts + layout.alphabets) if layout.alphabets else (0, m)
    if np.any(used & ((atoms < low) | (atoms >= high))):
        raise ValueError(
            f"atoms must lie in the alphabet of their place, {layout.alphabets}, one after another."
            if layout.alphabets
            else f"atoms must be in [0, {m}), got {atoms.min()} to {atoms.max()}."
        )
    if not layout.alphabets and np.any(used[..., 1:] & (np.diff(atoms, axis=-1) <= 0)):
        raise ValueError("atoms of a signal must be distinct and in ascending order.")
    if layout.alphabets and np.any(levels[used] != 1):
        raise ValueError("levels of a code without coefficients must be 1.")
    if np.any(used & ((levels == 0) | (np.abs(levels.astype(np.int64)) > LARGEST_LEVEL))):
        raise ValueError("levels of used places must be in [-2^30, 2^30] and not 0.")


def _levels(code, layout):
    """The integer coefficients of a code, `(..., k)` int64."""
    coefficients = np.asarray(code.coefficients)
    if np.issubdtype(coefficients.dtype, np.integer):
        wanted = coefficients
    else:
        steps = np.asarray(layout.steps)
        steps = steps[np.asarray(code.indices)] if steps.ndim else steps
        wanted = coefficients.astype(np.float64) / steps
    if not np.all((-LARGEST_LEVEL <= wanted) & (wanted <= LARGEST_LEVEL)):
        raise ValueError("coefficients must be finite and at most 2^30 steps.")
    return np.rint(wanted).astype(np.int64)
