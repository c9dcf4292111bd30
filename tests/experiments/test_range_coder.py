import jax.numpy as jnp
import numpy as np
import pytest

from experiments import range_coder, thumbnail
from experiments.picture_codecs import check_same
from laser_jax.sparse import SparseCode, code_bits, fit_rate_model

constriction = pytest.importorskip("constriction")


def random_code(rng, n, k, num_atoms):
    """Supports that favour low indices, levels that favour small ones, lengths from 0 to k."""
    share = 1.0 / np.arange(1, num_atoms + 1)
    indices = np.stack(
        [rng.choice(num_atoms, k, replace=False, p=share / share.sum()) for _ in range(n)]
    )
    levels = rng.geometric(0.4, (n, k)) * rng.choice([-1, 1], (n, k))
    levels[np.arange(k)[None, :] >= rng.integers(0, k + 1, n)[:, None]] = 0
    return SparseCode(jnp.asarray(indices), jnp.asarray(levels))


def test_sparse_code_is_decoded_exactly_and_has_the_size_of_its_tables():
    rng = np.random.default_rng(0)
    code = random_code(rng, 600, 6, 40)
    model = fit_rate_model(code, num_atoms=40, max_level=31)
    words = range_coder.encode_code(code, model)
    check_same(code, range_coder.decode_code(words, model, signals=600))
    estimate = float(jnp.sum(code_bits(code, model)))
    # Draws without repetition cost a little less than draws.
    assert 0.9 * estimate < 32 * len(words) < 1.01 * estimate


def test_residual_code_is_decoded_exactly():
    rng = np.random.default_rng(1)
    indices = jnp.asarray(rng.integers(0, 8, (200, 3)) + 8 * np.arange(3))
    used = jnp.arange(3)[None, :] < jnp.asarray(rng.integers(0, 4, 200))[:, None]
    code = SparseCode(indices, used.astype(jnp.int32))
    model = fit_rate_model(code, num_atoms=24, max_level=1, stages=3)
    words = range_coder.encode_code(code, model, stages=3)
    check_same(code, range_coder.decode_code(words, model, signals=200, stages=3))
    assert 32 * len(words) == pytest.approx(float(jnp.sum(code_bits(code, model))), rel=0.03)


def test_thumbnail_is_decoded_exactly_and_has_the_size_of_its_tables():
    rng = np.random.default_rng(2)
    images = rng.random((2, 96, 96, 3)).cumsum(0).astype(np.float32) / 2
    fitted = thumbnail.fit_thumbnail(images, patch_size=8, step=0.02)
    patches = images[1].reshape(12, 8, 12, 8, 3).swapaxes(1, 2).reshape(12, 12, -1)
    integers = thumbnail.shrink(patches, 0.02)
    words = range_coder.encode_thumbnail(integers, fitted)
    back = range_coder.decode_thumbnail(words, fitted, shape=integers.shape)
    np.testing.assert_array_equal(back, integers)
    assert 32 * len(words) == pytest.approx(
        thumbnail.thumbnail_bits(fitted, integers), rel=0.05, abs=32
    )
    with pytest.raises(ValueError, match="a difference of .* is beyond 64"):
        range_coder.encode_thumbnail(integers + 999, fitted)


def test_code_that_is_not_decoded_exactly_raises():
    code = SparseCode(np.array([[3, 1]]), np.array([[2, -1]]))
    check_same(code, ([[1, 3]], [[-1, 2]]))
    with pytest.raises(AssertionError, match="written"):
        check_same(code, ([[1, 3]], [[2, -1]]))
