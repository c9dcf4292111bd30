"""The masked model: what is hidden is predicted, what is known is kept, and there are no bits."""

import jax
import numpy as np
import pytest

from laser_jax.priors import MaskedTokenModel, MaskedTransformer
from laser_jax.priors.masked import draw_masked, still_hidden
from laser_jax.tokens import Layout, check_tokens

GRID = (2, 3)
LAYOUT = Layout.of_stages(num_atoms=6, stages=2)


@pytest.fixture(scope="module")
def prior():
    model = MaskedTransformer(layout=LAYOUT, grid=GRID, width=16, num_layers=1, num_heads=2)
    keys = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    variables = jax.jit(model.init)(keys, np.zeros((1, 6, 2), np.int32))
    return MaskedTokenModel(model, variables, batch_size=8)


def test_samples_are_codes_and_known_positions_are_kept(prior):
    first = prior.sample(jax.random.key(0), 8)
    check_tokens(first, LAYOUT)
    known = np.zeros((8, *GRID), bool)
    known[:, 0] = True
    found = prior.sample(jax.random.key(1), 8, given=first, known=known)
    check_tokens(found, LAYOUT)
    np.testing.assert_array_equal(found.atoms[:, 0], first.atoms[:, 0])
    assert np.any(found.atoms[:, 1] != first.atoms[:, 1])


@pytest.mark.parametrize("steps, hidden", [(2, [6, 4, 0]), (3, [6, 5, 3, 0])])
def test_hidden_positions_follow_the_cosine_schedule(steps, hidden, prior):
    assert [int(still_hidden(6, i / steps)) for i in range(steps + 1)] == hidden
    nothing = np.zeros((8, 6, 2), np.int32), np.zeros((8, 6), bool)
    first, again = (
        draw_masked(prior.model, prior.variables, jax.random.key(3), *nothing, steps=n)
        for n in (1, steps)
    )
    # The passes that follow change only what the first leaves hidden, and never what is fixed.
    same = np.mean(np.all(np.asarray(first) == np.asarray(again), -1))
    assert 1 - hidden[1] / 6 <= same < 1


def test_training_hides_the_symbols_that_it_predicts(prior):
    symbols = np.random.default_rng(0).integers(3, size=(8, 6, 2)).astype(np.int32)
    apply = jax.jit(lambda x, key: prior.model.apply(prior.variables, x, rngs={"mask": key}))
    bits = np.asarray(apply(symbols, jax.random.key(0)))
    hidden = bits[..., 0] > 0
    assert np.all(hidden.any(-1)) and not hidden.all()
    changed = np.where(hidden[..., None], 2 - symbols, symbols)
    scores = jax.jit(lambda x: prior.model.apply(prior.variables, x, hidden, method="scores"))
    for a, b in zip(scores(symbols), scores(changed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_bits_count_hidden_positions_that_cost_nothing(prior):
    symbols = np.zeros((8, 6, 2), np.int32)
    params = dict(prior.variables["params"])
    for name in [name for name in params if name.endswith("_bias")]:
        params[name] = 1000.0 * (np.arange(len(params[name])) == 0)

    def bits(symbols, method="training_bits"):
        rngs = {"mask": jax.random.key(0)}
        return prior.model.apply({"params": params}, symbols, rngs=rngs, method=method)

    every = np.asarray(bits(symbols + 1, "__call__"))  # each hidden symbol costs 1443 bits
    hidden = np.sum(every[..., 0] > 0)
    symbols[0] = 1
    expected = every[0].sum() / hidden
    np.testing.assert_allclose(bits(symbols), expected, rtol=1e-2)


def test_a_masked_prior_has_no_bits_and_needs_codes_of_one_length(prior, refuses):
    refuses(prior.bits, prior.sample(jax.random.key(0), 8))
    for layout in (
        Layout.of_set(num_atoms=6, sparsity=2, step=1.0),
        Layout.of_stages(num_atoms=6, stages=2, full=False),
    ):
        refuses(MaskedTransformer, layout=layout, grid=GRID)
    refuses(MaskedTransformer, layout=LAYOUT, grid=GRID, width=9)
