"""A masked model of tokens: it fills in hidden positions, many at once.

It needs a few passes for a picture instead of one for each symbol. Its likelihood is not
exact, so it has no bits.

References:
  Chang, Zhang, Jiang, Liu and Freeman, MaskGIT: masked generative image transformer, 2022.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from laser_jax.convolution import Dense
from laser_jax.priors.sampling import choose
from laser_jax.priors.token_model import TokenModel
from laser_jax.priors.transformer import LN2, Block, check_model, rotary_angles
from laser_jax.priors.vocabulary import Vocabulary
from laser_jax.ranges import COUNT, SHARE, Flag, setting
from laser_jax.tokens import Layout


class MaskedTransformer(nn.Module):
    """The probability of the symbols at hidden positions, given all others.

    Stages of residual VQ are predicted independently of each other.

    Attributes:
      layout, grid, num_classes, width, num_layers, num_heads, dropout, dtype, remat: as in
        `TokenTransformer`; every code must have the same number of entries.
    """

    layout: Layout
    grid: tuple[int, int]
    num_classes: int = 0
    width: int = setting(128, COUNT)
    num_layers: int = setting(4, COUNT)
    num_heads: int = setting(4, COUNT)
    dropout: float = setting(0.1, SHARE)
    dtype: Any = jnp.float32
    remat: bool = setting(False, Flag())

    measure = "masked_bits_per_token"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_model(self)
        if not (self.layout.alphabets and self.layout.full):
            raise ValueError(
                "a masked prior needs codes with the same number of entries everywhere: vq, fsq, "
                "or rvq and hybrid with all stages. Use an autoregressive one."
            )

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols of the layout."""
        return Vocabulary(self.layout)

    @property
    def num_positions(self) -> int:
        """n, positions of a picture."""
        return self.grid[0] * self.grid[1]

    @nn.compact
    def scores(
        self,
        symbols: Int[Array, "b n s"],
        hidden: Bool[Array, "b n"],
        labels: Int[Array, " b"] | None = None,
    ) -> list[Float[Array, "b n classes"]]:
        """Returns unnormalised log probabilities of the classes of each symbol.

        Args:
          symbols: `(b, n, s)`; those at hidden positions are ignored.
          hidden: which positions are hidden.
          labels: `(b,)`, if there are classes.
        """
        n, c, normal = self.num_positions, self.width, nn.initializers.normal(self.width**-0.5)
        groups = self.vocabulary.groups
        tables = [self.param(f"{g.name}_table", normal, (g.size, c)) for g in groups]
        biases = [self.param(f"{g.name}_bias", nn.initializers.zeros, (g.size,)) for g in groups]
        known = sum(table[symbols[..., i]] for i, table in enumerate(tables))
        mask = self.param("mask", normal, (1, 1, c))
        x = Dense(c, dtype=self.dtype)(jnp.where(hidden[..., None], mask, known))
        x += self.param("position", normal, (n, c))[None].astype(x.dtype)
        if self.num_classes:
            table = self.param("label", normal, (self.num_classes, c))
            x += table[labels][:, None].astype(x.dtype)
        x = nn.Dropout(self.dropout)(x, deterministic=not self.has_rng("dropout"))
        angles = rotary_angles(np.indices(self.grid).reshape(2, n).T, c // self.num_heads)
        block = nn.remat(Block) if self.remat else Block
        fields = self.num_heads, self.dropout, self.dtype
        for i in range(self.num_layers):
            one = block(*fields, causal=False, name=f"Block_{i}")  # the same name with remat
            x, _ = one(x, angles, angles)
        x = nn.LayerNorm(dtype=self.dtype)(x).astype(jnp.float32)
        return [
            Dense(c)(x) @ table.T + bias[None, None]
            for table, bias in zip(tables, biases, strict=True)
        ]

    def __call__(self, symbols, labels=None):
        """Returns the bits `(b, n, s)` of hidden symbols, 0 of the others.

        The random stream `mask` hides positions: a share cos(u pi / 2), u uniform, of a picture's.
        """
        return self._hidden_bits(symbols, labels)[0]

    def _hidden_bits(self, symbols, labels):
        """The bits `(b, n, s)`, and which positions `(b, n)` are hidden."""
        b, n, _ = symbols.shape
        share_key, order_key = jax.random.split(self.make_rng("mask"))
        share = jnp.cos(jax.random.uniform(share_key, (b, 1)) * (jnp.pi / 2))
        order = jnp.argsort(jax.random.uniform(order_key, (b, n)))
        hidden = jnp.argsort(order) < jnp.ceil(share * n)
        scores = self.scores(symbols, hidden, labels)
        bits = [
            (jax.nn.logsumexp(x, -1) - _picked(x, symbols[..., i])) / LN2
            for i, x in enumerate(scores)
        ]
        return jnp.where(hidden[..., None], jnp.stack(bits, -1), 0), hidden

    def training_bits(self, symbols, labels=None) -> Float[Array, ""]:
        """Returns the mean bits of a hidden position."""
        bits, hidden = self._hidden_bits(symbols, labels)
        return jnp.sum(bits) / jnp.maximum(jnp.sum(hidden), 1)


class MaskedTokenModel(TokenModel):
    """A `MaskedTransformer` with its variables. It draws tokens in `steps` passes.

    Attributes:
      steps: passes of the network for a picture, each fixes the most probable hidden positions;
        those that are still hidden after pass i of k are a share cos(i / k pi / 2).
    """

    steps: int = 8

    def symbol_bits(self, symbols: np.ndarray, labels: Any = None) -> np.ndarray:
        """Raises ValueError: a masked model has no exact likelihood."""
        raise ValueError(
            "a masked prior has no exact likelihood, so it has no bits; use an autoregressive one."
        )

    def _draw(self, key, given, known, labels, options):
        return draw_masked(
            self.model, self.variables, key, given, known, labels, steps=self.steps, **options
        )


@functools.partial(jax.jit, static_argnames=("model", "steps", "top_k"))
def draw_masked(
    model: MaskedTransformer,
    variables: Any,
    key: Any,
    given: Int[Array, "b n s"],
    known: Bool[Array, "b n"],
    labels: Int[Array, " b"] | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
    steps: int = 8,
) -> Int[Array, "b n s"]:
    """Returns drawn symbols; `temperature` also scales the noise of the order.

    Args: as for `laser_jax.priors.sampling.draw`; `steps` as in `MaskedTokenModel`.
    """
    b, n, s = given.shape
    number = jnp.sum(~known, 1, keepdims=True)

    def step(i, carry):
        symbols, hidden = carry
        keys = jax.random.split(jax.random.fold_in(key, i), s + 1)
        scores = model.apply(variables, symbols, hidden, labels, method="scores")
        drawn, chance = [], jnp.zeros((b, n))
        for one, values in zip(keys[:s], scores, strict=True):
            rows = choose(one, values.reshape(b * n, -1), temperature, top_k, top_p)
            drawn.append(rows.reshape(b, n))
            chance += _picked(jax.nn.log_softmax(values), drawn[-1])
        symbols = jnp.where(hidden[..., None], jnp.stack(drawn, -1), symbols)
        done = (i + 1) / steps
        noise = jax.random.gumbel(keys[s], (b, n))
        chance += temperature * (1 - done) * noise
        left = still_hidden(number, done)
        rank = jnp.argsort(jnp.argsort(jnp.where(hidden, chance, jnp.inf)))  # least likely first
        return symbols, hidden & (rank < left)

    return lax.fori_loop(0, steps, step, (given, ~known))[0]


def still_hidden(number, done):
    """Returns how many of the hidden positions are left after a share of the passes."""
    return jnp.floor(number * jnp.cos(done * (jnp.pi / 2)) + 1e-3)


def _picked(scores, classes):
    return jnp.take_along_axis(scores, classes[..., None], -1)[..., 0]
