import jax.numpy as jnp
import numpy as np

from laser_jax.sparse.blocks import map_blocks, sum_blocks
from laser_jax.sparse.linalg import matmul


def test_blocks_give_what_one_call_gives(rng):
    x = jnp.asarray(rng.normal(size=(3, 10, 4)), jnp.float32)
    y = jnp.asarray(rng.integers(5, size=(3, 10, 2)))
    for block_size in (1, 7, 10, 100):
        a, b = map_blocks(lambda p: (2 * p[0], p[1].sum(-1)), (x, y), block_size)
        np.testing.assert_array_equal(a, 2 * x)
        np.testing.assert_array_equal(b, y.sum(-1))
        total = sum_blocks(lambda p: matmul(p[0].T, p[0]), (x, y), block_size)
        flat = np.asarray(x).reshape(-1, 4)
        np.testing.assert_allclose(total, flat.T @ flat, rtol=1e-4, atol=1e-4)


def test_blocks_of_empty_arrays_are_empty():
    assert map_blocks(lambda x: x[:, :1], jnp.zeros((2, 0, 4)), 7).shape == (2, 0, 1)
    np.testing.assert_array_equal(sum_blocks(lambda x: x.sum(0), jnp.zeros((0, 4)), 7), 0)
