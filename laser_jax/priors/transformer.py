"""An autoregressive transformer over tokens: `TokenTransformer`.

A causal transformer runs over positions, row by row. At each position a small one runs over the
symbols of that position (`Vocabulary`), with the first one's output added at each place. If a
position has a single symbol there is no second one.

Positions of the first transformer are rotary angles of rows and columns. Queries use the
coordinates of the position that is predicted, keys those of the position that they come from, so
the neighbour above has the same offset everywhere.

References:
  Lee, Kim, Kim, Cho and Han, Autoregressive image generation using residual quantization, 2022 (two
  transformers). Su et al., RoFormer, 2021 (rotary positions).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from laser_jax.convolution import Dense
from laser_jax.priors.vocabulary import MAGNITUDES, Group, Vocabulary
from laser_jax.ranges import COUNT, COUNT_OR_NONE, SHARE, Flag, check_settings, setting
from laser_jax.tokens import Layout

LN2 = float(np.log(2))
_PERIOD = 100.0  # period of the slowest rotary angle, in positions; grids are small

Hidden = Float[Array, "b n c"]


def rotary_angles(coordinates: np.ndarray, width: int) -> Float[np.ndarray, "n half"]:
    """Returns the angles `(n, width / 2)` of coordinates `(n, axes)`; each axis has a share."""
    share = width // 2 // coordinates.shape[1]
    rates = _PERIOD ** (-np.arange(share) / share)
    angles = (coordinates[:, :, None] * rates).reshape(len(coordinates), -1)
    return np.pad(angles, ((0, 0), (0, width // 2 - angles.shape[1]))).astype(np.float32)


def rotate(x: Float[Array, "b n heads e"], angles: Float[Array, "n half"]):
    """Returns x with its pairs of entries turned by angles."""
    sin, cos = (f(angles)[None, :, None, :].astype(x.dtype) for f in (jnp.sin, jnp.cos))
    first, second = jnp.split(x, 2, -1)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


class Block(nn.Module):
    """Attention and a multilayer perceptron, each after a layer norm, with residual connections.

    With a cache it takes the rows from `index` on; the cache has the keys and values of all rows.
    `shown` `(b, rows)` says which rows the others see; None: all.
    Dropout acts where the random stream `dropout` is given.
    """

    num_heads: int
    dropout: float
    dtype: Any
    causal: bool = True

    @nn.compact
    def __call__(self, x, query_angles, key_angles, cache=None, index=0, shown=None):
        drop = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))
        b, n, c = x.shape
        y = nn.LayerNorm(use_bias=False, dtype=self.dtype)(x)
        qkv = Dense(3 * c, use_bias=False, dtype=self.dtype, name="qkv")(y)
        query, key, value = jnp.split(qkv.reshape(b, n, self.num_heads, -1), 3, -1)
        query, key = rotate(query, query_angles), rotate(key, key_angles)
        if cache is not None:
            key, value = (
                lax.dynamic_update_slice(old, new.astype(old.dtype), (0, index, 0, 0))
                for old, new in zip(cache, (key, value), strict=True)
            )
        scores = jnp.einsum("bqhe,bkhe->bhqk", query, key) / np.sqrt(query.shape[-1])
        last = index + jnp.arange(n)[:, None] if self.causal else n
        seen = jnp.arange(key.shape[1])[None] <= last
        seen = seen[None, None] if shown is None else seen[None, None] & shown[:, None, None]
        weights = jax.nn.softmax(jnp.where(seen, scores.astype(jnp.float32), -1e30))
        y = jnp.einsum("bhqk,bkhe->bqhe", drop(weights).astype(self.dtype), value)
        x = x + drop(Dense(c, use_bias=False, dtype=self.dtype, name="out")(y.reshape(b, n, c)))
        y = nn.LayerNorm(use_bias=False, dtype=self.dtype)(x)
        y = nn.gelu(Dense(4 * c, dtype=self.dtype, name="wide")(y))
        return x + drop(Dense(c, dtype=self.dtype, name="narrow")(y)), (key, value)


def check_model(model: Any) -> None:
    """Raises ValueError unless the fields of a model of tokens fit together.

    Each head needs whole pairs of rows' and of columns' angles.
    """
    check_settings(model)
    grid, width, heads = model.grid, model.width, model.num_heads
    if not (isinstance(grid, tuple) and len(grid) == 2):
        raise ValueError(f"grid must be a pair (h, w), got {grid!r}.")
    for side in grid:
        COUNT.check("grid", side)
    COUNT_OR_NONE.check("num_classes", model.num_classes)
    if width % (4 * heads):
        raise ValueError(f"width must be a multiple of 4 num_heads, {4 * heads}, got {width}.")


class TokenTransformer(nn.Module):
    """The probability of each symbol of tokens, given those before it.

    `apply(variables, symbols, labels)` returns bits; `laser_jax.priors.TokenModel` has tokens in
    and out, and samples.

    Attributes:
      layout: the `Layout` of the tokens.
      grid: (h, w), positions of a picture.
      num_classes: labels in [0, num_classes); 0: none.
      width: channels; a multiple of 4 num_heads.
      num_layers: blocks of the transformer over positions.
      num_inner_layers: blocks of the one over the symbols of a position.
      num_heads: of each block.
      dropout: share of the activations that are dropped in training.
      dtype: of the computation; scores are float32.
      most_atoms: places of atoms in the symbols of sparse codes; see `Vocabulary`. The parameters
        do not depend on it.
      remat: whether activations are computed again in the backward pass, to save memory.
    """

    layout: Layout
    grid: tuple[int, int]
    num_classes: int = 0
    width: int = setting(128, COUNT)
    num_layers: int = setting(4, COUNT)
    num_inner_layers: int = setting(2, COUNT_OR_NONE)
    num_heads: int = setting(4, COUNT)
    dropout: float = setting(0.1, SHARE)
    dtype: Any = jnp.float32
    most_atoms: int | None = None
    remat: bool = setting(False, Flag())

    measure = "bits_per_token"  # the name of `training_bits`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model(self)
        if self.most_atoms is not None:
            COUNT.check("most_atoms", self.most_atoms)

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the layout."""
        return Vocabulary(self.layout, self.most_atoms)

    def for_symbols(self, symbols) -> "TokenTransformer":
        """Returns the same model for symbols of so many places; see `Vocabulary.trimmed`."""
        if self.layout.alphabets:
            return self
        return self.clone(most_atoms=symbols.shape[-1] // 2)

    @property
    def num_positions(self) -> int:
        """n, positions of a picture."""
        return self.grid[0] * self.grid[1]

    def setup(self):
        vocabulary, c = self.vocabulary, self.width
        normal = nn.initializers.normal(c**-0.5)
        self.tables = {
            g.name: self.param(f"{g.name}_table", normal, (g.size, c)) for g in vocabulary.groups
        }
        self.biases = {
            g.name: self.param(f"{g.name}_bias", nn.initializers.zeros, (g.size,))
            for g in vocabulary.groups
        }
        self.heads = {
            g.name: Dense(c, dtype=jnp.float32, name=f"{g.name}_head") for g in vocabulary.groups
        }
        if "levels" in self.tables:
            self.gates = self.param("gates", _signed_magnitudes, (2 * MAGNITUDES + 2, c))
        self.start = self.param("start", normal, (1, 1, c))
        # Of all places, though rows may have fewer.
        self.place = {
            g.name: self.param(f"{g.name}_place", normal, (g.length, c))
            for g in Vocabulary(self.layout).groups
        }
        self.row = self.param("row", nn.initializers.zeros, (self.grid[0], 1, c))
        self.column = self.param("column", nn.initializers.zeros, (1, self.grid[1], c))
        if self.num_classes:
            self.label = self.param("label", normal, (self.num_classes, c))
        self.content = Dense(c, dtype=self.dtype)
        block = nn.remat(Block) if self.remat else Block
        options = {"num_heads": self.num_heads, "dropout": self.dropout, "dtype": self.dtype}
        self.outer = [block(**options, name=f"outer_{i}") for i in range(self.num_layers)]
        inner = self.num_inner_layers if vocabulary.places > 1 else 0
        self.inner = [block(**options, name=f"inner_{i}") for i in range(inner)]
        self.outer_norm = nn.LayerNorm(dtype=self.dtype)
        self.inner_norm = nn.LayerNorm(dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, symbols: Int[Array, "b n s"], labels: Int[Array, " b"] | None = None
    ) -> Float[Array, "b n s"]:
        """Returns the bits of each symbol; 0 at places that are not part of the code.

        Args:
          symbols: `(b, h w, s)` of `Vocabulary.symbols`.
          labels: `(b,)` integers, if there are classes.
        """
        hidden, _ = self.read(symbols, labels)
        b, n, s = symbols.shape
        rows = symbols.reshape(b * n, s)
        x, _ = self.look(hidden.reshape(b * n, -1), rows)
        parts = []
        for group in self.vocabulary.groups:
            scores = self.scores(group, x[:, group.places], rows, np.arange(group.length))
            parts.append(self.symbol_bits(group, scores, rows[:, group.places]))
        bits = jnp.where(self.vocabulary.used(rows), jnp.concatenate(parts, -1), 0)
        return bits.reshape(b, n, s)

    def training_bits(self, symbols, labels=None) -> Float[Array, ""]:
        """Returns the mean bits of a position, for training."""
        return jnp.mean(jnp.sum(self(symbols, labels), -1))

    def read(self, symbols, labels=None, cache=None, index=0) -> tuple[Hidden, Any]:
        """Runs the transformer over positions: what is known before each of them.

        Args:
          symbols: `(b, n, s)` of all positions. With a cache, `(b, 1, s)`: those of position
            `index - 1`, which the start ignores.
          labels: `(b,)`, if there are classes.
          cache: keys and values of earlier positions, from `empty_cache`; None: run over all.
          index: the position to predict, with a cache.

        Returns:
          The hidden states `(b, n, c)`, or `(b, 1, c)` with a cache, and the new cache.
        """
        n, c = self.num_positions, self.width
        content = self._contents(symbols)
        start = jnp.broadcast_to(self.start.astype(content.dtype), (len(content), 1, c))
        grid = np.indices(self.grid).reshape(2, n).T
        angles: list = [rotary_angles(x, c // self.num_heads) for x in (grid, _before(grid))]
        place = (self.row + self.column).reshape(n, c)
        if cache is None:
            x = jnp.concatenate([start, content[:, :-1]], 1)
        else:
            x = jnp.where(index == 0, start, content)
            *angles, place = (lax.dynamic_slice_in_dim(a, index, 1) for a in (*angles, place))
        x = x + place[None].astype(x.dtype)
        if self.num_classes:
            x = x + self.label[labels][:, None].astype(x.dtype)
        x = self.drop(x, deterministic=not self.has_rng("dropout"))
        x, cache = _run(self.outer, x, angles[0], angles[1], cache, index)
        return self.outer_norm(x), cache

    def look(self, hidden, rows, cache=None, index=0) -> tuple[Hidden, Any]:
        """Runs the transformer over the symbols of single positions.

        Args:
          hidden: `(b, c)` of `read`.
          rows: symbols `(b, s)` of these positions; those from `index` on are ignored.
          cache, index: as for `read`; with a cache, the place to predict.

        Returns:
          The hidden states `(b, s, c)`, or `(b, 1, c)` with a cache, and the new cache.
        """
        places = self.vocabulary.places
        x = hidden[:, None]
        if places > 1:
            x = x + self._before_places(rows).astype(x.dtype)
        place = [(i, j) for i, g in enumerate(self.vocabulary.groups) for j in range(g.length)]
        angles: Any = rotary_angles(np.array(place), self.width // self.num_heads)
        if cache is not None:
            x = lax.dynamic_slice_in_dim(x, index, 1, 1)
            angles = lax.dynamic_slice_in_dim(angles, index, 1)
        # Places that are not part of the code are hidden: rows may leave them out.
        shown = self.vocabulary.used(rows)
        x, cache = _run(self.inner, x, angles, angles, cache, index, shown)
        return self.inner_norm(x), cache

    def scores(self, group: Group, x, rows, order) -> Float[Array, "b n classes"]:
        """Returns unnormalised log probabilities of the classes at places of a group.

        Args:
          group: the `Group`.
          x: `(b, n, c)` of `look`, at the places.
          rows: symbols `(b, s)`; those before the places count.
          order: `(n,)`, the numbers of the places in the group.
        """
        table, bias = self.tables[group.name], self.biases[group.name]
        scores = self.heads[group.name](x.astype(jnp.float32)) @ table.T + bias[None, None]
        if group.name != "atoms":
            return scores
        # The least of `left` draws: atom j, and the others above it.
        atoms = rows[:, group.places]
        before = jnp.pad(atoms, ((0, 0), (1, 0)), constant_values=-1)[:, order][..., None]
        left = (rows[:, :1] - jnp.asarray(order)[None])[..., None]
        tail = lax.cumlogsumexp(scores, axis=2, reverse=True)
        tail = jnp.pad(tail[..., 1:], ((0, 0), (0, 0), (0, 1)))
        number = jnp.arange(group.size)[None, None]
        scores += jnp.where(left > 1, (left - 1) * tail, 0)
        allowed = (number > before) & (number <= group.size - left)
        return jnp.where(allowed | (left < 1), scores, -jnp.inf)

    def symbol_bits(self, group: Group, scores, symbols) -> Float[Array, "*shape"]:
        """Returns the bits of symbols of a group under scores `(*shape, classes)`."""
        classes = self.vocabulary.classes(group, symbols)[..., None]
        picked = jnp.take_along_axis(scores, classes, -1)[..., 0]
        nats = jax.nn.logsumexp(scores, -1) - picked
        return nats / LN2 + self.vocabulary.escape_bits(group, symbols)

    def empty_cache(self, batch: int, length: int, layers: int) -> Any:
        """Returns the cache of so many blocks before the first of `length` rows."""
        shape = (batch, length, self.num_heads, self.width // self.num_heads)
        return [(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype))] * layers

    def _embedded(self, symbols):
        """The vectors of symbols, `(..., s, c)`; 0 at unused places."""
        parts = [
            self.tables[g.name][self.vocabulary.classes(g, symbols[..., g.places])]
            for g in self.vocabulary.groups
        ]
        used = self.vocabulary.used(symbols)[..., None]
        return jnp.where(used, jnp.concatenate(parts, -2), 0)

    def _contents(self, symbols):
        """The vector of each position's code, `(b, n, c)`."""
        embedded = self._embedded(symbols)
        content = jnp.sum(embedded, -2)
        if "levels" in self.tables:
            groups = self.vocabulary.group
            levels = symbols[..., groups["levels"].places]
            gates = self.gates[self.vocabulary.classes(groups["levels"], levels)]
            content += jnp.sum(gates * embedded[..., groups["atoms"].places, :], -2)
        return self.content(content)

    def _before_places(self, rows):
        """What each place sees of the one before it in its group; a level also sees its atom."""
        embedded = self._embedded(rows)
        x = jnp.pad(embedded[:, :-1], ((0, 0), (1, 0), (0, 0)))
        groups = self.vocabulary.groups
        x += jnp.concatenate([self.place[g.name][: g.length] for g in groups])[None]
        if "levels" in self.tables:
            group = self.vocabulary.group
            x = x.at[:, group["levels"].first].add(-embedded[:, group["atoms"].places][:, -1])
            x = x.at[:, group["levels"].places].add(embedded[:, group["atoms"].places])
        return x


def _run(blocks, x, query_angles, key_angles, cache, index, shown=None):
    """Runs blocks and returns their output and caches."""
    new = []
    for block, old in zip(blocks, cache or [None] * len(blocks), strict=True):
        x, kept = block(x, query_angles, key_angles, old, index, shown)
        new.append(kept)
    return x, new


def _before(grid):
    """The position before each; that of the first is above and left of the grid."""
    return np.concatenate([[[-1, -1]], grid[:-1]])


def _signed_magnitudes(key, shape, dtype=jnp.float32):
    """A level of 1 scales its atom by 1/4, in all channels."""
    classes = np.arange(shape[0])
    levels = (classes // 2 + 1) * (1 - 2 * (classes % 2))
    return jnp.broadcast_to(jnp.asarray(levels / 4, dtype)[:, None], shape)
