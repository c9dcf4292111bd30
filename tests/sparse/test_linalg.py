import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse.linalg import row_argmax, row_largest, safe_norms


@pytest.mark.parametrize("width", [1, 15, 16, 17, 100])
def test_row_argmax_equals_numpy(rng, width):
    x = rng.integers(-5, 5, size=(40, width)).astype(np.float32)  # many ties
    index, value = row_argmax(jnp.asarray(x))
    np.testing.assert_array_equal(index, np.argmax(x, -1))
    np.testing.assert_array_equal(value, np.max(x, -1))


@pytest.mark.parametrize("width", [5, 70])
def test_largest_sizes_equal_numpys_stable_sort(rng, width):
    x = np.float32(rng.integers(-6, 7, size=(40, width)))  # many ties
    order = np.argsort(-np.abs(x), axis=-1, kind="stable")
    np.testing.assert_array_equal(row_largest(jnp.asarray(x), 5), order[:, :5].T)
    index, size = row_argmax(jnp.asarray(x), of_size=True)
    np.testing.assert_array_equal(index, order[:, 0])
    np.testing.assert_array_equal(size, np.abs(x).max(-1))


def test_norms_of_zero_vectors_are_safe_to_divide_by():
    np.testing.assert_allclose(safe_norms(jnp.array([[3.0, 4.0], [0.0, 0.0]])), [[5], [1]])
