"""A trained prior as a probability model of tokens: bits and samples."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax.priors.sampling import draw
from laser_jax.priors.transformer import TokenTransformer
from laser_jax.ranges import COUNT, WEIGHT, Optional, Real
from laser_jax.tokens import Tokens

_RANGES = {
    "num": COUNT,
    "temperature": WEIGHT,
    "top_k": Optional(COUNT),
    "top_p": Optional(Real(above=0, most=1)),
}


class TokenModel:
    """A `TokenTransformer` with its variables.

    Attributes:
      model: the `TokenTransformer`.
      variables: its variables.
      batch_size: pictures computed at a time.
    """

    def __init__(self, model: TokenTransformer, variables: Any, *, batch_size: int = 64) -> None:
        COUNT.check("batch_size", batch_size)
        self.model, self.variables, self.batch_size = model, variables, batch_size

    def bits(self, tokens: Tokens, *, labels: Any = None) -> np.ndarray:
        """Returns the bits `(b,)` of each picture's tokens.

        Args:
          tokens: `Tokens` `(b, h, w)`.
          labels: `(b,)` integers; needed if the model has classes, and only then.

        Raises:
          ValueError: if the tokens do not have the layout or the grid, or labels do not fit.
        """
        self._check_grid(tokens)
        return self.symbol_bits(self.model.vocabulary.symbols(tokens), labels)

    def symbol_bits(self, symbols: np.ndarray, labels: Any = None) -> np.ndarray:
        """Returns the bits `(b,)` of symbols `(b, n, s)` of the vocabulary; see `bits`."""
        labels = self._labels(labels, len(symbols))
        if self.model.num_classes and labels is None:
            raise ValueError("the prior has classes, so bits need the labels of the pictures.")
        parts = [np.zeros(0)]
        for size, (batch, *label) in self._batches(symbols, labels):
            batch = self.model.vocabulary.trimmed(batch)
            model = self.model.for_symbols(batch)
            parts.append(picture_bits(model, self.variables, batch, *label)[:size])
        return np.concatenate(parts)

    def sample(
        self,
        key: Any,
        num: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        labels: Any = None,
        given: Tokens | None = None,
        known: Any = None,
    ) -> Tokens:
        """Returns the `Tokens` `(num, h, w)` of new pictures.

        Args:
          key: PRNG key.
          num: how many.
          temperature: below 1: likelier tokens; 0: the likeliest symbol each time.
          top_k: at each symbol, the classes that can be drawn; None: all.
          top_p: at each symbol, the probability of the classes that can be drawn; None: all.
          labels: one integer or `(num,)`; None: any class, if there are classes.
          given: `Tokens` `(num, h, w)` to fill in; positions that are not known are ignored.
          known: bool `(num, h, w)`, the positions of `given` that are kept.

        Raises:
          ValueError: if a value is out of range or a shape does not fit.
        """
        for name, value in (
            ("num", num), ("temperature", temperature), ("top_k", top_k), ("top_p", top_p),
        ):  # fmt: skip
            _RANGES[name].check(name, value)
        model, grid = self.model, self.model.grid
        symbols, known = self._given(num, given, known)
        key, label_key = jax.random.split(key)
        labels = self._labels(labels, num)
        if model.num_classes and labels is None:
            labels = np.asarray(jax.random.randint(label_key, (num,), 0, model.num_classes))
        parts: list[np.ndarray] = []
        for size, (batch, marks, *label) in self._batches(symbols, known, labels):
            found = self._draw(
                jax.random.fold_in(key, len(parts)), batch, marks, label[0] if label else None,
                {"temperature": temperature, "top_k": top_k, "top_p": top_p},
            )  # fmt: skip
            parts.append(np.asarray(found)[:size])
        return model.vocabulary.tokens(np.concatenate(parts), grid)

    def _draw(self, key, given, known, labels, options):
        return draw(self.model, self.variables, key, given, known, labels, **options)[0]

    def _given(self, num, given, known):
        model = self.model
        shape = (num, *model.grid)
        if (given is None) != (known is None):
            raise ValueError("given and known belong together: tokens, and which of them are kept.")
        if given is None:
            symbols = np.zeros((num, model.num_positions, model.vocabulary.places), np.int32)
            return symbols, np.zeros((num, model.num_positions), bool)
        self._check_grid(given)
        known = np.asarray(known)
        if known.shape != shape or known.dtype != bool or len(given.counts) != num:
            raise ValueError(
                f"given and known must have shape {shape}, known of bool, got "
                f"{given.counts.shape} and {known.dtype} {known.shape}."
            )
        places = *shape, model.layout.width
        if not given.atoms.shape == given.levels.shape == places:
            raise ValueError(
                f"atoms and levels given must have shape {places}, got {given.atoms.shape} and "
                f"{given.levels.shape}."
            )
        # A valid code in the place of what is ignored: it may be anything.
        empty = model.vocabulary.tokens(np.zeros((1, 1, model.vocabulary.places)), (1, 1))
        given = Tokens(
            np.where(known, given.counts, empty.counts),
            *(np.where(known[..., None], x, y)
              for x, y in zip(given[1:], empty[1:], strict=True)),
        )  # fmt: skip
        return model.vocabulary.symbols(given), known.reshape(num, -1)

    def _check_grid(self, tokens):
        if np.shape(tokens.counts)[1:] != self.model.grid:
            raise ValueError(
                f"tokens must have shape (b, h, w) with (h, w) = {self.model.grid}, got "
                f"{np.shape(tokens.counts)}."
            )

    def _labels(self, labels, num):
        """Labels as `(num,)` int32, None if none are given."""
        classes = self.model.num_classes
        if labels is None:
            return None
        if not classes:
            raise ValueError("the prior has no classes, so labels must be None.")
        labels = np.asarray(labels)
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((), (num,)):
            raise ValueError(
                f"labels must be an integer or have shape ({num},), got {labels.dtype} of shape "
                f"{labels.shape}."
            )
        if labels.size and not (labels.min() >= 0 and labels.max() < classes):
            raise ValueError(
                f"labels must be in [0, {classes}), got {labels.min()} to {labels.max()}."
            )
        return np.broadcast_to(labels, num).astype(np.int32)

    def _batches(self, *arrays):
        """Yields the size of a batch, and its rows, filled up to one shape with the last."""
        arrays = [x for x in arrays if x is not None]
        for start in range(0, len(arrays[0]), self.batch_size):
            parts = [x[start : start + self.batch_size] for x in arrays]
            size = len(parts[0])
            padding = self.batch_size - size
            yield size, [np.concatenate([x, np.repeat(x[-1:], padding, 0)]) for x in parts]


@functools.partial(jax.jit, static_argnums=0)
def picture_bits(model, variables, symbols, labels=None):
    """Returns the bits `(b,)` of symbols `(b, n, s)`."""
    return jnp.sum(model.apply(variables, symbols, labels), (1, 2))
