"""The tables of a context model: their names and shapes, and their bytes."""

import io
import json
from collections.abc import Mapping

import numpy as np

from laser_jax.tokens.layout import Layout

MAGNITUDES = 15  # magnitudes with a separate symbol; one more symbol is the escape
SENT = 31  # larger sums of magnitudes count as this
VERSION = 1
# Sizes: m atoms, k places, c = k + 1 counts, n numbers of a neighbour, f features, h hidden units,
# l those of levels, p of the product, w = h + l + p, s sums of magnitudes, g magnitudes, t = 2.
_SHAPES = {
    "near": "mn", "first": "fw", "first_bias": "w", "count_weights": "hc", "count_bias": "c",
    "left": "ch", "place": "kh", "sent": "mh", "atom_weights": "mh", "atom_bias": "m",
    "level_count": "cl", "level_atom": "ml", "level_sent": "sl", "level_sign": "tl",
    "level_weights": "lg", "level_bias": "g", "product": "mp", "product_sent": "mp", "adapt": "t",
}  # fmt: skip


def check_tables(layout: Layout, tables: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless there are all tables of a layout, in shapes that fit together."""
    if set(tables) != set(_SHAPES):
        raise ValueError(f"tables {sorted(set(tables) ^ set(_SHAPES))} are missing or unknown.")
    k = layout.width
    sizes = {"m": layout.num_atoms, "k": k, "c": k + 1, "s": SENT + 1, "g": MAGNITUDES + 1, "t": 2}
    for name, letters in _SHAPES.items():
        shape = tables[name].shape
        fits = [sizes.setdefault(x, n) == n for x, n in zip(letters, shape, strict=False)]
        if len(shape) != len(letters) or not all(fits):
            raise ValueError(f"table {name!r} of shape {shape} does not fit the others.")
    if sizes["w"] != sizes["h"] + sizes["l"] + sizes["p"] or sizes["f"] < 4 * sizes["n"] + 12:
        raise ValueError(f"table 'first' of shape {tables['first'].shape} does not fit the others.")


def tables_to_bytes(layout: Layout, tables: Mapping[str, np.ndarray]) -> bytes:
    """Returns a layout and tables as bytes, each in the smallest type."""
    file = io.BytesIO()
    about = np.frombuffer(json.dumps([VERSION, *layout]).encode(), np.uint8)
    small = {name: x.astype(np.min_scalar_type(-1 - int(np.abs(x).max(initial=0))))
             for name, x in tables.items()}  # fmt: skip
    np.savez_compressed(file, layout=about, **small)  # type: ignore[arg-type]
    return file.getvalue()


class NewerTables(ValueError):
    """Tables that a newer version of the package wrote."""


def tables_from_bytes(data: bytes) -> tuple[Layout, dict[str, np.ndarray]]:
    """Returns the layout and the tables of `tables_to_bytes`.

    Raises:
      ValueError: if the data is damaged or of a newer version.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            tables = dict(file)
        version, *rest = json.loads(bytes(tables.pop("layout")))
        if version == VERSION:
            alphabets, m, k, steps, full, grid = rest
            alphabets = tuple(alphabets) if alphabets else None
            steps = tuple(steps) if isinstance(steps, list) else steps
            layout = Layout(alphabets, m, k, steps, full, grid)
            check_tables(layout, tables)
            return layout, tables
    except Exception as error:  # zip, json and NumPy raise many kinds
        what = str(error).rstrip(".")
        raise ValueError(f"the tables of tokens are damaged: {what}.") from error
    raise NewerTables(f"the tables have version {version}, this code reads {VERSION}.")
