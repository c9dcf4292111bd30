"""The transformer over tokens: a probability model whose samples and bits agree."""

import functools
import itertools

import jax
import numpy as np
import pytest

from laser_jax.priors import MaskedTransformer, TokenModel, TokenTransformer, Vocabulary
from laser_jax.priors.sampling import choose, draw
from laser_jax.tokens import Layout, Tokens, check_tokens

LAYOUTS = {
    "vq": Layout.of_stages(num_atoms=5),
    "rvq": Layout.of_stages(num_atoms=6, stages=2),
    "rvq by rate": Layout.of_stages(num_atoms=6, stages=2, full=False),
    "fsq": Layout.of_grid((3, 2)),
    "sparse": Layout.of_set(num_atoms=6, sparsity=3, step=0.5),
}
GRID = (1, 2)
SMALL = {"width": 16, "num_layers": 1, "num_inner_layers": 1, "num_heads": 2}


def every_code(layout):
    """All codes of one position, levels in {-1, 1, 20}, as tokens (codes, 1, 1)."""
    rows = []
    if layout.alphabets:
        least = layout.width if layout.full else 0
        for count in range(least, layout.width + 1):
            for entries in itertools.product(*(range(n) for n in layout.alphabets[:count])):
                atoms = np.zeros(layout.width, int)
                atoms[:count] = entries + layout.starts[:count]
                rows.append((count, atoms, (np.arange(layout.width) < count).astype(int)))
    else:
        for count in range(layout.width + 1):
            for atoms in itertools.combinations(range(layout.num_atoms), count):
                for levels in itertools.product((-1, 1, 20), repeat=count):
                    padding = (0,) * (layout.width - count)
                    rows.append((count, atoms + padding, levels + padding))
    counts, atoms, levels = (np.array(x, np.int32) for x in zip(*rows, strict=True))
    return Tokens(counts[:, None, None], atoms[:, None, None], levels[:, None, None])


def pairs(layout, number, seed=0):
    """Random pictures of two positions."""
    codes, rng = every_code(layout), np.random.default_rng(seed)
    chosen = rng.integers(len(codes.counts), size=(number, 2))
    return Tokens(*(x[:, 0, 0][chosen][:, None] for x in codes))


@functools.partial(jax.jit, static_argnums=0)
def apply(model, variables, symbols):
    return model.apply(variables, symbols)


def bits_of(prior, symbols):
    """The bits of each symbol."""
    return np.asarray(apply(prior.model, prior.variables, symbols))


@pytest.fixture(scope="module")
def prior_of():
    """A function that returns the random prior of a layout."""
    cache = {}

    def prior(name):
        if name not in cache:
            model = TokenTransformer(layout=LAYOUTS[name], grid=GRID, **SMALL)
            symbols = np.zeros((1, 2, model.vocabulary.places), np.int32)
            variables = jax.jit(model.init)(jax.random.key(0), symbols)
            cache[name] = TokenModel(model, variables, batch_size=8)
        return cache[name]

    return prior


@pytest.mark.parametrize("name", LAYOUTS)
def test_symbols_are_tokens_in_another_order(name):
    layout = LAYOUTS[name]
    tokens = every_code(layout)
    vocabulary = Vocabulary(layout)
    symbols = vocabulary.symbols(tokens)
    assert symbols.shape == (len(tokens.counts), 1, vocabulary.places)
    assert len(np.unique(symbols, axis=0)) == len(symbols)
    for found, expected in zip(vocabulary.tokens(symbols, (1, 1)), tokens, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_shorter_rows_have_the_same_bits_and_tokens(prior_of):
    prior = prior_of("sparse")
    tokens = pairs(prior.model.layout, 64)
    few = np.max(tokens.counts, (1, 2)) < 3
    tokens = Tokens(*(x[few][:8] for x in tokens))
    vocabulary = prior.model.vocabulary
    symbols = vocabulary.symbols(tokens)
    short = vocabulary.trimmed(symbols)
    assert short.shape[-1] == 5 and symbols.shape[-1] == 7
    for found, expected in zip(vocabulary.tokens(short, GRID), tokens, strict=True):
        np.testing.assert_array_equal(found, expected)
    expected = bits_of(prior, symbols).sum((1, 2))
    np.testing.assert_allclose(prior.bits(tokens), expected, rtol=1e-5)
    np.testing.assert_allclose(prior.symbol_bits(short), expected, rtol=1e-5)
    assert prior.bits(Tokens(*(x[:0] for x in tokens))).shape == (0,)


def test_rows_of_one_atom_have_its_level():
    vocabulary = Vocabulary(Layout.of_set(num_atoms=6, sparsity=3, step=0.5))
    tokens = every_code(vocabulary.layout)
    few = np.max(tokens.counts, (1, 2)) < 2
    short = vocabulary.trimmed(vocabulary.symbols(Tokens(*(x[few] for x in tokens))))
    assert short.shape[-1] == 3
    used = Vocabulary(vocabulary.layout, most_atoms=1).used(short)
    np.testing.assert_array_equal(used[..., 1:], short[..., :1] == [1, 1])


def test_grid_of_many_points_has_a_symbol_for_each_channel():
    layout = Layout.of_grid((42, 42, 42))
    atoms = np.array([[[[3, 42, 125]]]])
    tokens = Tokens(np.full((1, 1, 1), 3), atoms, np.ones_like(atoms))
    vocabulary = Vocabulary(layout)
    symbols = vocabulary.symbols(tokens)
    np.testing.assert_array_equal(symbols, [[[3, 0, 41]]])
    np.testing.assert_array_equal(vocabulary.tokens(symbols, (1, 1)).atoms, atoms)


# A sparse code has all parts of a token: counts, atoms and levels.
kinds = pytest.mark.parametrize(
    "name", ["vq", "sparse", pytest.param("rvq by rate", marks=pytest.mark.slow)]
)


@kinds
def test_probabilities_of_all_codes_sum_to_one(name, prior_of):
    """Of the second position, after one code at the first."""
    prior, layout = prior_of(name), LAYOUTS[name]
    codes = every_code(layout)
    # Levels stand for what they share their class with: 2 signs x 16 classes of magnitude.
    first = [np.broadcast_to(x[3], x.shape) for x in codes]
    tokens = Tokens(*(np.concatenate(x, 2) for x in zip(first, codes, strict=True)))
    symbols = prior.model.vocabulary.symbols(tokens)
    bits = np.asarray(bits_of(prior, symbols), np.float64)[:, 1]
    if not layout.alphabets:
        bits = bits[:, :4]  # the count and the atoms
        _, kept = np.unique(symbols[:, 1, :4], axis=0, return_index=True)
        bits = bits[kept]
    np.testing.assert_allclose(np.sum(2.0 ** -bits.sum(-1)), 1, atol=1e-6)


@kinds
def test_samples_are_codes_and_cached_bits_are_those_without_a_cache(name, prior_of):
    prior = prior_of(name)
    model, s = prior.model, prior.model.vocabulary.places
    nothing = np.zeros((8, 2, s), np.int32), np.zeros((8, 2), bool)
    symbols, bits = draw(model, prior.variables, jax.random.key(1), *nothing)
    tokens = model.vocabulary.tokens(symbols, GRID)
    check_tokens(tokens, model.layout)  # distinct atoms in ascending order among the rest
    assert len(np.unique(symbols, axis=0)) > 1
    np.testing.assert_allclose(bits, prior.bits(tokens), rtol=1e-5, atol=1e-5)


def test_known_positions_are_kept_and_the_others_filled_in(prior_of):
    prior = prior_of("sparse")
    given = pairs(prior.model.layout, 8)
    known = np.zeros((8, *GRID), bool)
    known[:, 0, 1] = True
    found = prior.sample(jax.random.key(2), 8, given=given, known=known)
    check_tokens(found, prior.model.layout)
    for new, old in zip(found, given, strict=True):
        np.testing.assert_array_equal(new[:, 0, 1], old[:, 0, 1])
    assert np.any(found.atoms[:, 0, 0] != given.atoms[:, 0, 0])
    for other in given:
        other[:, 0, 0] = 99  # ignored
    wrong = given._replace(atoms=given.atoms[..., :-1])
    with pytest.raises(ValueError, match=r"atoms and levels given must have shape \(8, 1, 2, "):
        prior.sample(jax.random.key(2), 8, given=wrong, known=np.zeros_like(known))
    again = prior.sample(jax.random.key(2), 8, given=given, known=known)
    jax.tree.map(np.testing.assert_array_equal, again, found)


def test_a_symbol_depends_on_earlier_ones_alone(prior_of):
    prior = prior_of("sparse")
    tokens = pairs(prior.model.layout, 8)
    symbols = prior.model.vocabulary.symbols(tokens)
    bits = bits_of(prior, symbols)
    changed = symbols.copy()
    changed[:, 1] = np.roll(symbols[:, 1], 1, 0)
    changed = bits_of(prior, changed)
    np.testing.assert_array_equal(changed[:, 0], bits[:, 0])
    assert np.any(changed[:, 1] != bits[:, 1])


def test_escaped_levels_cost_their_elias_gamma_code(prior_of):
    vocabulary = prior_of("sparse").model.vocabulary
    levels = np.array([1, -15, 16, -17, 18, 1000])
    found = vocabulary.escape_bits(vocabulary.group["levels"], levels)
    np.testing.assert_array_equal(found, [0, 0, 1, 3, 3, 2 * 9 + 1])


def test_escapes_are_drawn_with_the_probabilities_of_their_code(prior_of):
    vocabulary = prior_of("sparse").model.vocabulary
    classes = np.full(20_000, 2 * 15 + 1)  # -16 and below
    drawn = -np.asarray(vocabulary.drawn(vocabulary.group["levels"], classes, jax.random.key(0)))
    shares = [np.mean(drawn == 16), np.mean((drawn == 17) | (drawn == 18)), np.mean(drawn > 18)]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.015)


@pytest.mark.parametrize("options, kept", [
    ({"temperature": 0.0}, {3}), ({"top_k": 2}, {1, 3}), ({"top_p": 0.6}, {1, 3}),
    ({"top_p": 0.1}, {3}), ({}, {0, 1, 3}),
])  # fmt: skip
def test_temperature_top_k_and_top_p_limit_the_classes(options, kept):
    scores = np.log(np.array([[0.15, 0.3, 1e-30, 0.55]], np.float32).repeat(200, 0))
    drawn = choose(jax.random.key(0), scores, **options)
    assert set(np.asarray(drawn).tolist()) == kept


@pytest.mark.parametrize("options, kept", [
    ({"top_k": 1}, {0}), ({"top_p": 0.3}, {0, 1}), ({"top_k": 3, "top_p": 0.5}, {0, 1}),
])  # fmt: skip
def test_of_equal_classes_the_first_are_kept(options, kept):
    drawn = choose(jax.random.key(0), np.zeros((200, 4), np.float32), **options)
    assert set(np.asarray(drawn).tolist()) == kept


def test_labels_change_the_bits_and_are_checked(prior_of, refuses):
    model = TokenTransformer(layout=LAYOUTS["vq"], grid=GRID, num_classes=3, **SMALL)
    tokens = pairs(model.layout, 8)
    variables = jax.jit(model.init)(
        jax.random.key(0), model.vocabulary.symbols(tokens)[:1], np.zeros(1, np.int32)
    )
    prior = TokenModel(model, variables, batch_size=8)
    assert np.all(prior.bits(tokens, labels=0) != prior.bits(tokens, labels=[1, 2] * 4))
    for labels in (None, 3, -1, [0, 1], [0.5] * 8):
        refuses(prior.bits, tokens, labels=labels)
    refuses(prior_of("vq").bits, tokens, labels=0)
    refuses(prior_of("sparse").bits, tokens)
    refuses(prior_of("vq").bits, Tokens(*(x[:, :, :1] for x in tokens)))


@pytest.mark.parametrize("arguments", [
    {"num": 0}, {"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5},
    {"labels": 1}, {"known": np.ones((8, *GRID), bool)},
])  # fmt: skip
def test_sampling_options_out_of_range_raise(arguments, prior_of, refuses):
    refuses(prior_of("vq").sample, jax.random.key(0), **{"num": 8} | arguments)


@pytest.mark.parametrize("kind", [TokenTransformer, MaskedTransformer])
def test_remat_gives_the_same_gradients_and_bfloat16_nearly_the_same_bits(kind):
    plain = kind(layout=LAYOUTS["rvq"], grid=GRID, dropout=0.0, width=16, num_layers=1, num_heads=2)
    symbols = plain.vocabulary.symbols(pairs(LAYOUTS["rvq"], 16)).astype(np.int32)
    rngs = {"params": jax.random.key(0), "mask": jax.random.key(1)}
    params = jax.jit(functools.partial(plain.init, method="training_bits"))(rngs, symbols)

    def bits(model):
        def loss(params):
            rngs = {"mask": jax.random.key(1), "dropout": jax.random.key(2)}
            return model.apply(params, symbols, method="training_bits", rngs=rngs)

        value, gradient = jax.jit(jax.value_and_grad(loss))(params)
        return float(value), gradient

    value, gradient = bits(plain)
    again, recomputed = bits(plain.clone(remat=True))
    assert again == pytest.approx(value, rel=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), recomputed, gradient)
    half, _ = bits(plain.clone(dtype=jax.numpy.bfloat16))
    assert half == pytest.approx(value, rel=0.01) and half != value


@pytest.mark.parametrize("fields", [
    {"width": 10, "num_heads": 2}, {"grid": (0, 2)}, {"grid": (2,)}, {"grid": [1, 2]},
    {"num_classes": -1}, {"num_classes": 1.5},
])  # fmt: skip
@pytest.mark.parametrize("model", [TokenTransformer, MaskedTransformer])
def test_fields_of_models_that_do_not_fit_raise(model, fields, refuses):
    refuses(model, **{"layout": LAYOUTS["vq"], "grid": GRID} | fields)


def test_number_of_atoms_and_of_pictures_computed_at_a_time_is_checked(prior_of, refuses):
    refuses(TokenTransformer, layout=LAYOUTS["sparse"], grid=GRID, most_atoms=0)
    refuses(TokenModel, prior_of("vq").model, prior_of("vq").variables, batch_size=0)
