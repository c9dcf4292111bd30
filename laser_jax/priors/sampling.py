"""Draws tokens from a `TokenTransformer`, one symbol after the other, with a cache."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from laser_jax.priors.transformer import TokenTransformer

_COLDEST = 1e-4  # temperature 0 divides by this


@functools.partial(jax.jit, static_argnames=("model", "top_k"))
def draw(
    model: TokenTransformer,
    variables: Any,
    key: Any,
    given: Int[Array, "b n s"],
    known: Bool[Array, "b n"],
    labels: Int[Array, " b"] | None = None,
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
) -> tuple[Int[Array, "b n s"], Float[Array, " b"]]:
    """Returns drawn symbols and their bits, those of the model at temperature 1.

    Args:
      model: the `TokenTransformer`.
      variables: its variables.
      key: PRNG key.
      given: symbols `(b, n, s)` of the positions that are known.
      known: which positions keep their given symbols.
      labels: `(b,)`, if there are classes.
      temperature, top_k, top_p: as for `choose`.
    """
    b, n, s = given.shape
    vocabulary = model.vocabulary
    inner_layers = model.num_inner_layers if s > 1 else 0

    def apply(method, *args):
        return model.apply(variables, *args, method=method)

    def draw_place(group, t, hidden, i, carry):
        row, bits, cache = carry
        j = group.first + i
        x, cache = apply("look", hidden, row, cache, j)
        scores = apply("scores", group, x, row, jnp.reshape(i, 1))[:, 0]
        class_key, escape_key = jax.random.split(jax.random.fold_in(key, t * s + j))
        classes = choose(class_key, scores, temperature, top_k, top_p)
        symbol = vocabulary.drawn(group, classes, escape_key)
        symbol = jnp.where(known[:, t], given[:, t, j], symbol)
        used = vocabulary.used(row)[:, j]
        bits += jnp.where(used, apply("symbol_bits", group, scores, symbol), 0)
        return row.at[:, j].set(jnp.where(used, symbol, 0)), bits, cache

    def draw_position(t, carry):
        symbols, bits, cache = carry
        before = lax.dynamic_slice_in_dim(symbols, jnp.maximum(t - 1, 0), 1, 1)
        hidden, cache = apply("read", before, labels, cache, t)
        inner = jnp.zeros((b, s), jnp.int32), bits, model.empty_cache(b, s, inner_layers)
        for group in vocabulary.groups:
            step = functools.partial(draw_place, group, t, hidden[:, 0])
            inner = lax.fori_loop(0, group.length, step, inner)
        return symbols.at[:, t].set(inner[0]), inner[1], cache

    carry = jnp.zeros_like(given), jnp.zeros(b), model.empty_cache(b, n, model.num_layers)
    symbols, bits, _ = lax.fori_loop(0, n, draw_position, carry)
    return symbols, bits


def choose(
    key: Any,
    scores: Float[Array, "b classes"],
    temperature: Any = 1.0,
    top_k: int | None = None,
    top_p: Any = None,
) -> Int[Array, " b"]:
    """Returns a class drawn by its score.

    Args:
      key: PRNG key.
      scores: unnormalised log probabilities; -inf is never drawn.
      temperature: scores are divided by it; 0 takes the best class.
      top_k: only the k best classes are drawn; None: all.
      top_p: only the best classes that make up this probability are drawn; None: all.
    """
    scores = scores / jnp.maximum(temperature, _COLDEST)
    if top_k is not None or top_p is not None:
        order = jnp.argsort(-scores, -1)  # stable: of equal scores the first is better
        rank = jnp.argsort(order, -1)
        last = jnp.full(scores.shape[:1], scores.shape[-1] if top_k is None else top_k)
        if top_p is not None:
            kept = jnp.where(rank < last[:, None], scores, -jnp.inf)
            falling = jnp.take_along_axis(jax.nn.softmax(kept), order, -1)
            before = jnp.cumsum(falling, -1) - falling
            last = jnp.minimum(last, jnp.sum(before < top_p, -1))  # at least the first
        scores = jnp.where(rank < last[:, None], scores, -jnp.inf)
    return jax.random.categorical(key, scores).astype(jnp.int32)
