import json

import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.models import FiniteScalarQuantizer
from laser_jax.sparse import SparseCode, dequantize_coefficients
from laser_jax.tokens import Layout, Tokens, check_tokens, code_of, tokens_of

LAYOUTS = {
    "vq": Layout.of_stages(num_atoms=12),
    "rvq": Layout.of_stages(num_atoms=12, stages=3),
    "stages by rate": Layout.of_stages(num_atoms=12, stages=3, full=False),
    "fsq": Layout.of_grid((8, 5, 2)),
    "sparse": Layout.of_set(num_atoms=12, sparsity=5, step=0.25),
    "all atoms": Layout.of_set(num_atoms=4, sparsity=4, step=1.0),
}


def random_tokens(rng, layout, shape=(2, 3, 4)):
    """Valid tokens of a layout, with small and very large levels."""
    k = layout.width
    counts = np.full(shape, k) if layout.full else rng.integers(0, k + 1, shape)
    if layout.alphabets:
        atoms = layout.starts + rng.integers(0, layout.alphabets, (*shape, k))
        levels = np.ones_like(atoms)
    else:
        every = rng.permuted(
            np.broadcast_to(np.arange(layout.num_atoms), (*shape, layout.num_atoms)), axis=-1
        )
        atoms = every[..., :k]
        levels = rng.choice([1, -1, 3, -40, 123_456, -(2**30)], atoms.shape)
    used = np.arange(k) < counts[..., None]
    atoms = np.sort(np.where(used, atoms, 10**6), -1) * used
    return Tokens(*(x.astype(np.int32) for x in (counts, atoms, levels * used)))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_tokens_to_codes_and_back_are_the_same(layout):
    tokens = random_tokens(np.random.default_rng(0), layout)
    code = code_of(tokens, layout)
    for found, given in zip(tokens_of(code, layout), tokens, strict=True):
        np.testing.assert_array_equal(found, given)
        assert found.dtype == np.int32
    again = code_of(tokens_of(code, layout), layout)
    for found, given in zip(again, code, strict=True):
        np.testing.assert_array_equal(found, given)
    ordered = np.sort(code.indices, -1)
    assert np.all(np.diff(ordered, axis=-1) > 0), "padding is at distinct indices"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_steps_make_floats_of_levels_and_tokens_of_floats(layout):
    tokens = random_tokens(np.random.default_rng(1), layout)
    tokens = tokens._replace(levels=np.clip(tokens.levels, -1000, 1000))
    code = dequantize_coefficients(code_of(tokens, layout), jnp.asarray(layout.steps))
    for found, given in zip(tokens_of(code, layout), tokens, strict=True):
        np.testing.assert_array_equal(found, given)


def test_order_of_atoms_is_no_part_of_tokens():
    layout = Layout.of_set(num_atoms=9, sparsity=3, step=0.5)
    code = SparseCode(np.array([[[[7, 2, 4]]]]), np.array([[[[1.6, -0.9, 0.2]]]]))
    tokens = tokens_of(code, layout)
    assert tokens.counts.tolist() == [[[2]]]
    assert tokens.atoms.tolist() == [[[[2, 7, 0]]]]
    assert tokens.levels.tolist() == [[[[-2, 3, 0]]]]


def test_tokens_of_residual_codes_are_their_indices():
    indices = np.array([[[[3, 4, 8], [0, 7, 11]]]])
    tokens = tokens_of(SparseCode(indices, np.ones(indices.shape)), LAYOUTS["rvq"])
    np.testing.assert_array_equal(tokens.atoms, indices)


def test_tokens_of_a_grid_are_the_values_of_its_channels():
    grid = FiniteScalarQuantizer((8, 5, 2))
    layout = Layout.of_grid(grid.levels)
    indices = jnp.arange(80).reshape(1, 8, 10)
    tokens = tokens_of(grid.from_indices(indices), layout)
    digits = tokens.atoms - layout.starts
    np.testing.assert_array_equal(digits @ np.array([1, 8, 40]), indices)
    code = dequantize_coefficients(code_of(tokens, layout), jnp.asarray(layout.steps))
    np.testing.assert_array_equal(grid.to_indices(code), indices)


@pytest.mark.parametrize("counts, atoms, levels, message", [
    (6, [0, 1, 2, 3, 4], [1] * 5, r"counts must be in \[0, 5\]"),
    (2, [4, 3, 0, 0, 0], [1, 1, 0, 0, 0], "distinct and in ascending order"),
    (2, [3, 3, 0, 0, 0], [1, 1, 0, 0, 0], "distinct and in ascending order"),
    (2, [3, 12, 0, 0, 0], [1, 1, 0, 0, 0], r"atoms must be in \[0, 12\)"),
    (2, [3, 4, 0, 0, 0], [1, 0, 0, 0, 0], "and not 0"),
    (1, [3, 4, 0, 0, 0], [1, 0, 0, 0, 0], "unused places must be 0"),
])  # fmt: skip
def test_tokens_out_of_order_raise(counts, atoms, levels, message):
    tokens = Tokens(*(np.array(x)[None, None] for x in ([counts], [atoms], [levels])))
    with pytest.raises(ValueError, match=message):
        check_tokens(tokens, LAYOUTS["sparse"])


def test_layouts_of_numpy_integers_are_those_of_ints():
    for make in (
        lambda x: Layout.of_set(num_atoms=x(12), sparsity=x(5), step=np.float32(0.25)),
        lambda x: Layout.of_stages(num_atoms=x(12), stages=x(3), full=x(1)),
        lambda x: Layout.of_grid(map(x, (8, 5, 2))),
    ):
        assert json.dumps(make(np.int64)) == json.dumps(make(int))


def test_codes_that_do_not_fit_a_layout_raise():
    layout = LAYOUTS["sparse"]
    indices = np.zeros((1, 1, 1, 5), int) + np.arange(5)
    with pytest.raises(ValueError, match=r"shape \(b, h, w, 5\), got \(1, 1, 1, 4\)"):
        tokens_of(SparseCode(indices[..., :4], np.ones((1, 1, 1, 4))), layout)
    for wrong in (np.nan, 2**32 + 1, -(2**31)):  # in int32 the second is 1
        with pytest.raises(ValueError, match="must be finite and at most 2"):
            tokens_of(SparseCode(indices, np.full(indices.shape, wrong)), layout)
    with pytest.raises(ValueError, match="their place"):
        tokens_of(SparseCode(indices[..., :3], np.ones((1, 1, 1, 3))), LAYOUTS["rvq"])
    for wrong in (indices - 1, indices + 8):
        with pytest.raises(ValueError, match=r"indices must be in \[0, 12\)"):
            tokens_of(SparseCode(wrong, np.ones(wrong.shape)), layout)
    for channels in ([1, 0, 2], [0, 1, 1], [0, 1, 3]):
        code = SparseCode(np.array(channels)[None, None, None], np.zeros((1, 1, 1, 3)))
        with pytest.raises(ValueError, match="channels 0 to 2, in this order"):
            tokens_of(code, LAYOUTS["fsq"])
    with pytest.raises(ValueError, match=r"shape \(3, d\), got \(15, 2\)"):
        LAYOUTS["fsq"].vectors(np.zeros((15, 2)))
    with pytest.raises(ValueError, match="levels must be an integer, got 5.5"):
        Layout.of_grid((8, 5.5))
    with pytest.raises(ValueError, match="multiple of stages"):
        Layout.of_stages(num_atoms=10, stages=3)
    with pytest.raises(ValueError, match="step must be a positive number, got nan"):
        Layout.of_set(num_atoms=10, sparsity=3, step=float("nan"))
