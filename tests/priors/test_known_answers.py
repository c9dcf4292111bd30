"""Priors trained on sources whose entropy, or whose codes, are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laser_jax.priors import TokenModel, TokenTransformer
from laser_jax.tokens import Layout, Tokens

COPY_WEST, COPY_NORTH, SYMBOLS = 0.6, 0.3, 8


def train(model, symbols, *, steps, learning_rate=3e-3, batch=64):
    """Returns the `TokenModel` trained on symbols (b, n, s) by Adam."""
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    params = jax.jit(model.init)(jax.random.key(0), symbols[:1])["params"]

    @jax.jit
    def step(params, state, batch):
        loss = lambda p: jnp.mean(model.apply({"params": p}, batch))  # noqa: E731
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state, rng = optimizer.init(params), np.random.default_rng(0)
    for _ in range(steps):
        params, state = step(params, state, symbols[rng.integers(len(symbols), size=batch)])
    return TokenModel(model, {"params": params})


def field(number, grid, seed):
    """A field that copies its west or north neighbour or is new, and its bits in all."""
    rng = np.random.default_rng(seed)
    x, bits = np.zeros((number, *grid), int), 0.0
    for i in range(grid[0]):
        for j in range(grid[1]):
            # Outside the grid lies one neighbour that is uniform, so nothing is copied.
            around = [(COPY_WEST, x[:, i, j - 1])] if j else []
            around += [(COPY_NORTH, x[:, i - 1, j])] if i else []
            chances = np.full((number, SYMBOLS), 1.0)
            chances *= (1 - sum(share for share, _ in around)) / SYMBOLS
            for share, value in around:
                chances[np.arange(number), value] += share
            draws = rng.random((number, 1))
            x[:, i, j] = np.minimum((draws > np.cumsum(chances, -1)).sum(-1), SYMBOLS - 1)
            bits -= np.log2(chances[np.arange(number), x[:, i, j]]).sum()
    return x, bits


def tokens_of_entries(entries):
    """VQ tokens (b, h, w)."""
    ones = np.ones(entries.shape, np.int32)
    return Tokens(ones, entries[..., None].astype(np.int32), ones[..., None])


@functools.cache
def small(grid):
    layout = Layout.of_stages(num_atoms=SYMBOLS)
    return TokenTransformer(
        layout=layout, grid=grid, width=32, num_layers=2, num_heads=2, dropout=0.0
    )


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [False, True])
def test_bits_of_a_markov_field_are_its_entropy(shuffled):
    """With positions shuffled, they are those of a source without order."""
    grid = (4, 4)
    (train_field, _), (test_field, entropy) = field(8192, grid, 0), field(1024, grid, 1)
    if shuffled:  # the same permutation within a picture would keep some order
        rng = np.random.default_rng(2)
        train_field, test_field = (
            rng.permuted(x.reshape(len(x), -1), axis=0).reshape(x.shape)
            for x in (train_field, test_field)
        )
        entropy = test_field.size * np.log2(SYMBOLS)  # each position is uniform by itself
    model = small(grid)
    symbols = model.vocabulary.symbols(tokens_of_entries(train_field))
    prior = train(model, symbols, steps=150 if shuffled else 800)
    found = prior.bits(tokens_of_entries(test_field)).sum()
    assert found == pytest.approx(entropy, rel=0.02)


@pytest.mark.slow
def test_prior_that_knows_ten_codes_draws_them():
    grid = (2, 3)
    codes = np.random.default_rng(0).integers(SYMBOLS, size=(10, *grid))
    model = small(grid)
    prior = train(model, model.vocabulary.symbols(tokens_of_entries(codes)), steps=300)
    drawn = prior.sample(jax.random.key(0), 200).atoms[..., 0]
    known = {code.tobytes() for code in codes.astype(np.int32)}
    found = [code.tobytes() for code in drawn]
    assert sum(code in known for code in found) >= 195
    assert set(found) >= known
