"""Tokens of pictures to the bytes of a file, and back."""

import math
from collections.abc import Iterable, Sequence

from laser_jax.tokens.container import (
    LARGEST_AREA,
    Run,
    check_runs,
    read_container,
    write_container,
)
from laser_jax.tokens.context_model import ContextModel
from laser_jax.tokens.layout import Layout, Tokens
from laser_jax.tokens.range_coder import RangeDecoder, RangeEncoder

LARGEST_TOKENS = 2**30  # bytes of the tokens of a file
Groups = Iterable[tuple[Tokens, tuple[int, int]]]


def pack_tokens(
    groups: Groups, model: ContextModel, *, unit: tuple[int, int], fingerprint: bytes
) -> bytes:
    """Returns the bytes of a file of pictures.

    Args:
      groups: list of `(Tokens (b, h, w), (H, W))`: pictures of one size, in pixels.
      model: the `ContextModel`.
      unit: pixels of a position, `(rows, columns)`: h is H / rows, rounded up.
      fingerprint: 8 bytes of all that decodes the file beside the tokens' model, which has
        its own part in it.

    Raises:
      ValueError: if tokens do not have the model's layout, a grid is not its picture's, or the
        pictures are larger than a file may hold.
    """
    groups = list(groups)
    check_pictures([Run(len(x.counts), *size) for x, size in groups], model.layout, unit)
    encoder, runs = RangeEncoder(), []
    for tokens, (height, width) in groups:
        run = Run(len(tokens.counts), height, width)
        if tokens.counts.shape != _grid(run, unit):
            raise ValueError(
                f"{run.pictures} pictures of {height}x{width} pixels have tokens of shape "
                f"{_grid(run, unit)}, got {tokens.counts.shape}."
            )
        model.encode(encoder, tokens)
        runs.append(run)
    return write_container(runs, encoder.finish(), _joined(fingerprint, model))


def unpack_tokens(
    data: bytes, model: ContextModel, *, unit: tuple[int, int], fingerprint: bytes
) -> list[tuple[Tokens, tuple[int, int]]]:
    """Returns the groups that `pack_tokens` was given.

    Raises:
      ValueError: if the data is no such file, newer, damaged, or another model's.
    """
    runs, payload = read_container(data, _joined(fingerprint, model))
    check_pictures(runs, model.layout, unit)
    decoder = RangeDecoder(payload)
    groups = [(model.decode(decoder, _grid(run, unit)), (run.height, run.width)) for run in runs]
    if not decoder.exhausted():
        raise ValueError("the file is damaged: its payload has more than its pictures need.")
    return groups


def check_pictures(runs: Sequence[Run], layout: Layout, unit: tuple[int, int]) -> None:
    """Raises ValueError if pictures need more positions, or tokens, than a file may hold.

    It bounds a decoder's memory: each small picture fills a position, so the area does not.
    """
    check_runs(runs)
    positions = sum(math.prod(_grid(run, unit)) for run in runs)
    # Twice, as the last row and column of positions reach beyond their picture.
    by_area = 2 * LARGEST_AREA // math.prod(unit)
    by_memory = LARGEST_TOKENS // (4 * (1 + 2 * layout.width))
    if positions > min(by_area, by_memory):
        raise ValueError(
            f"a file of this model holds up to {min(by_area, by_memory)} positions of {unit[0]}x"
            f"{unit[1]} pixels, got {positions}; use several files."
        )


def one_size(groups: Groups) -> list[tuple[Tokens, tuple[int, int]]]:
    """Returns the `Tokens` of each picture, `(1, h, w)`, with its size, from groups."""
    return [
        (Tokens(*(x[i : i + 1] for x in tokens)), size)
        for tokens, size in groups
        for i in range(len(tokens.counts))
    ]


def _grid(run, unit):
    return run.pictures, -(-run.height // unit[0]), -(-run.width // unit[1])


def _joined(fingerprint, model):
    """One fingerprint of the two."""
    return bytes(x ^ y for x, y in zip(fingerprint, model.fingerprint, strict=True))
