import functools
import hashlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.tokens import (
    ContextModel,
    Layout,
    RangeDecoder,
    RangeEncoder,
    Tokens,
    context_model,
    fit_context_model,
    fitting,
)
from tests.tokens.test_layout import LAYOUTS, random_tokens

SET = Layout.of_set(num_atoms=12, sparsity=5, step=0.25)


def smooth_tokens(rng, pictures, side=6):
    """Sparse codes whose first atom, and its sign, follow those of the neighbours."""
    noise = rng.normal(size=(pictures, 2, side + 2, side + 2))
    field = sum(noise[..., i : i + side, j : j + side] for i in range(3) for j in range(3)) / 3
    first, second = field[:, 0], field[:, 1]
    counts = 1 + (second > 0)
    atoms = np.stack([np.clip(np.round(2 * first + 4), 0, 7), 8 + (second > 1)], -1)
    levels = np.stack([np.where(second > 0.3, 2, -1), 1 + 0 * counts], -1)
    padding = np.zeros((*counts.shape, 3))
    used = np.arange(5) < counts[..., None]
    atoms, levels = (np.concatenate([x, padding], -1) * used for x in (atoms, levels))
    return Tokens(*(x.astype(np.int32) for x in (counts, atoms, levels)))


@pytest.fixture(scope="module")
def fitted():
    """A model of smooth tokens, trained, and the order-0 tables of the same tokens."""
    tokens, atoms = smooth_tokens(np.random.default_rng(0), 200), np.eye(12)
    models = [fit_context_model(tokens, SET, dictionary=atoms, most_steps=n) for n in (150, 0)]
    models[1] = ContextModel(SET, models[1].tables | {"adapt": (0, 1)})
    return models


def integer_model(layout, *, side=0, hidden=8, level=4):
    """A model whose tables are any integers, the same on every machine."""
    m, k, near, product = layout.num_atoms, layout.width, 3, 2
    shapes = {
        "near": (m, near), "first": (4 * near + 12 + side, hidden + level + product),
        "first_bias": (hidden + level + product,), "count_weights": (hidden, k + 1),
        "count_bias": (k + 1,), "left": (k + 1, hidden), "place": (k, hidden), "sent": (m, hidden),
        "atom_weights": (m, hidden), "atom_bias": (m,), "level_count": (k + 1, level),
        "level_atom": (m, level), "level_sent": (32, level), "level_sign": (2, level),
        "level_weights": (level, 16), "level_bias": (16,), "product": (m, product),
        "product_sent": (m, product),
    }  # fmt: skip
    tables, seed = {"adapt": np.array([8, 64])}, 1
    for name, shape in shapes.items():
        numbers = []
        for _ in range(int(np.prod(shape))):
            seed = (1103515245 * seed + 12345) % 2**31
            numbers.append(seed // 2**16 % 601 - 300)
        tables[name] = np.array(numbers).reshape(shape)
    return ContextModel(layout, tables)


def coded(model, tokens, side=None):
    """Encodes tokens, checks that they come back, and returns the bytes."""
    encoder = RangeEncoder()
    model.encode(encoder, tokens, side=side)
    data = encoder.finish()
    decoder = RangeDecoder(data)
    found = model.decode(decoder, tokens.counts.shape, side=side)
    for mine, given in zip(found, tokens, strict=True):
        np.testing.assert_array_equal(mine, given)
    assert decoder.exhausted()
    return data


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_tokens_come_back_in_the_bits_of_the_model(layout):
    tokens = random_tokens(np.random.default_rng(3), layout, (2, 5, 7))
    model = integer_model(layout)
    bits = model.bits(tokens)
    assert bits.shape == (2,)
    assert bits.sum() / 8 - 1 < len(coded(model, tokens)) < 1.001 * bits.sum() / 8 + 4


def test_bits_of_a_picture_do_not_depend_on_the_others_or_on_memory(monkeypatch):
    tokens = random_tokens(np.random.default_rng(4), SET, (3, 5, 7))
    model = integer_model(SET)
    alone = [model.bits(Tokens(*(x[i : i + 1] for x in tokens)))[0] for i in range(3)]
    np.testing.assert_allclose(model.bits(tokens), alone, rtol=1e-12)
    monkeypatch.setattr("laser_jax.tokens.context_model._CELLS", 24)
    np.testing.assert_allclose(model.bits(tokens), alone, rtol=1e-12)


def test_side_information_and_single_rows_are_taken():
    rng = np.random.default_rng(5)
    model = integer_model(SET, side=4)
    for shape in ((1, 1, 1), (1, 1, 6), (2, 6, 1)):
        tokens = random_tokens(rng, SET, shape)
        side = rng.integers(-(10**6), 10**6, (*shape, 4))
        coded(model, tokens, side)
        assert np.any(model.bits(tokens, side=side) != model.bits(tokens, side=0 * side))
    with pytest.raises(ValueError, match="takes 4 integers of side information"):
        model.bits(tokens)
    with pytest.raises(ValueError, match=r"of shape \(2, 6, 1, 4\), got float64"):
        model.bits(tokens, side=side / 2)


def test_payload_is_the_same_on_every_machine():
    shape, k = (1, 6, 8), SET.width
    number = np.arange(np.prod(shape)).reshape(shape)
    counts = number * number % (k + 1)
    used = np.arange(k) < counts[..., None]
    atoms = np.sort((5 * number[..., None] + 7 * np.arange(k)) % 12 + 12 * ~used, -1) * used
    levels = ((number[..., None] * (3 + np.arange(k))) % 41 - 20) * used
    levels += (levels == 0) & used
    tokens = Tokens(*(x.astype(np.int32) for x in (counts, atoms, levels)))
    data = coded(integer_model(SET), tokens)
    assert hashlib.sha256(data).hexdigest()[:16] == "933523679271bb6a"


def test_scores_equal_exact_integer_arithmetic():
    rng = np.random.default_rng(0)
    units = rng.choice([0, 1, context_model.HIDDEN], (9, 32)).astype(np.int32)
    weights = rng.integers(-(2**12), 2**12, (32, 7), np.int32)
    bias = rng.integers(-3000, 0, 7, np.int32)
    expected = np.int32((units.astype(object) @ weights.astype(object)) // 256) + bias
    weights = np.ascontiguousarray(weights, np.float64)
    np.testing.assert_array_equal(context_model._scores(units, weights, bias), expected)


def test_context_saves_bits_of_each_part_of_held_out_tokens(fitted):
    tokens = smooth_tokens(np.random.default_rng(1), 50)
    parts = [model.bits_by_part(tokens) for model in fitted]
    for part, least in (("counts", 0.05), ("atoms", 0.1), ("levels", 0.1)):
        found, before = (bits[part].sum() for bits in parts)
        assert found < (1 - least) * before, part


def test_order_0_tables_cost_the_entropy_of_independent_symbols():
    rng = np.random.default_rng(6)
    layout = Layout.of_stages(num_atoms=8)
    share = 2.0 ** -np.arange(1, 9)
    atoms = rng.choice(8, (20, 10, 10, 1), p=share / share.sum()).astype(np.int32)
    tokens = Tokens(np.ones(atoms.shape[:3], np.int32), atoms, np.ones_like(atoms))
    model = fit_context_model(tokens, layout, most_steps=0)
    counts = np.bincount(atoms.ravel(), minlength=8)
    entropy = -np.sum(counts * np.log2(counts / counts.sum()))
    assert model.bits(tokens).sum() == pytest.approx(entropy, rel=5e-3)


def test_a_set_costs_the_draws_of_its_atoms_less_their_order():
    m = 64
    layout = Layout.of_set(num_atoms=m, sparsity=2, step=1.0)
    rng = np.random.default_rng(7)
    atoms = np.sort(np.argsort(rng.random((40, 8, 8, m)), -1)[..., :2], -1).astype(np.int32)
    tokens = Tokens(np.full(atoms.shape[:3], 2, np.int32), atoms, np.ones_like(atoms))
    model = fit_context_model(tokens, layout, most_steps=0)
    each = model.bits_by_part(tokens)["atoms"].sum() / atoms[..., 0].size
    assert np.log2(m * (m - 1) / 2) == pytest.approx(each, abs=0.05)


def test_rounded_tables_cost_what_the_floats_do(fitted):
    tokens = smooth_tokens(np.random.default_rng(2), 40)
    data = fitting._data_of([tokens], [None])
    params, fixed = fitting._start(SET, np.eye(12), data, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    params = {x: p + 0.05 * rng.normal(size=p.shape).astype(np.float32) for x, p in params.items()}
    arrays = jax.tree.map(jnp.asarray, data)
    mean = jax.jit(functools.partial(fitting._bits, layout=SET))
    bits = [mean(params, fixed, arrays, jax.random.key(i)) for i in range(30)]
    model = ContextModel(SET, fitting._rounded(dict(params), fixed))
    assert model.bits(tokens).sum() / tokens.counts.size == pytest.approx(np.mean(bits), rel=0.03)


def test_models_come_back_from_bytes(fitted):
    model = fitted[0]
    again = ContextModel.from_bytes(model.to_bytes())
    assert again.layout == model.layout and again.fingerprint == model.fingerprint
    assert (
        ContextModel.from_bytes(integer_model(LAYOUTS["fsq"]).to_bytes()).layout == LAYOUTS["fsq"]
    )
    assert fitted[1].fingerprint != model.fingerprint
    for damaged in (b"", model.to_bytes()[:-30], b"PK" + bytes(200)):
        with pytest.raises(ValueError, match="tables of tokens are damaged"):
            ContextModel.from_bytes(damaged)


@pytest.mark.parametrize("change, reason", [
    ({"sent": None}, "tables .'sent'. are missing or unknown"),
    ({"more": np.zeros(2)}, "tables .'more'. are missing or unknown"),
    ({"atom_bias": np.zeros(11)}, r"table 'atom_bias' of shape \(11,\) does not fit"),
    ({"atom_bias": np.zeros((12, 1))}, r"table 'atom_bias' of shape \(12, 1\) does not fit"),
    ({"product": np.zeros((12, 3))}, "'product_sent' of shape"),
    ({"first": np.zeros((23, 14))}, "'first' of shape"),
    ({"first": np.zeros((24, 13)), "first_bias": np.zeros(13)}, "'first' of shape"),
    ({"layout": np.frombuffer(b"[1, null, 12]", np.uint8)}, "damaged"),
    ({"layout": np.frombuffer(b"[2]", np.uint8)}, "version 2, this code reads 1"),
])  # fmt: skip
def test_tables_that_do_not_fit_together_raise(change, reason):
    with np.load(io.BytesIO(integer_model(SET).to_bytes())) as file:
        arrays = {name: x for name, x in (dict(file) | change).items() if x is not None}
    np.savez(changed := io.BytesIO(), **arrays)
    with pytest.raises(ValueError, match=reason):
        ContextModel.from_bytes(changed.getvalue())


def test_fit_takes_atoms_that_are_not_finite_for_zeros():
    tokens, atoms = smooth_tokens(np.random.default_rng(0), 3), np.eye(12)
    atoms[3] = 0
    expected = fit_context_model(tokens, SET, dictionary=atoms, most_steps=0)
    atoms[3, 2] = np.nan
    found = fit_context_model(tokens, SET, dictionary=atoms, most_steps=0)
    assert found.fingerprint == expected.fingerprint


def test_fits_that_lack_something_raise():
    tokens = smooth_tokens(np.random.default_rng(0), 3)
    none = Tokens(*(x[:0] for x in tokens))
    for nothing in ([], none, [none, none]):
        with pytest.raises(ValueError, match="at least one position"):
            fit_context_model(nothing, SET)
    with pytest.raises(ValueError, match=r"dictionary must have shape \(12, d\), got \(11, 4\)"):
        fit_context_model(tokens, SET, dictionary=np.zeros((11, 4)))
    with pytest.raises(ValueError, match="2 groups of tokens have side information of 1"):
        fit_context_model([tokens, tokens], SET, side=[np.zeros((3, 6, 6, 1), int)])


def test_groups_without_pictures_are_left_out_of_a_fit():
    tokens = smooth_tokens(np.random.default_rng(0), 3)
    none = Tokens(*(x[:0] for x in tokens))
    side = np.ones((3, 6, 6, 1), int)
    expected = fit_context_model(tokens, SET, side=side, most_steps=0)
    found = fit_context_model([none, tokens], SET, side=(side[:0], side), most_steps=0)
    assert found.fingerprint == expected.fingerprint


def test_tokens_of_another_layout_raise():
    model = integer_model(SET)
    tokens = random_tokens(np.random.default_rng(8), LAYOUTS["vq"])
    with pytest.raises(ValueError, match="tokens must have shapes"):
        model.bits(tokens)
    with pytest.raises(ValueError, match="tokens must have shapes"):
        fit_context_model(tokens, SET)


def test_no_pictures_cost_nothing():
    tokens = Tokens(*(np.zeros(s, np.int32) for s in ((0, 2, 2), (0, 2, 2, 5), (0, 2, 2, 5))))
    assert integer_model(SET).bits(tokens).shape == (0,)
