import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import SparseCode, decode
from laser_jax.sparse.atoms import ON_ACCELERATORS, Atoms, choose_form
from laser_jax.sparse.coder import coding_plans


def test_the_form_fits_the_shape_and_the_platform():
    many = {"num_signals": 8192, "sparsity": 8, "rows_a_step": 4}
    assert choose_form(num_atoms=512, width=64, **many) == "gram"
    assert choose_form(num_atoms=16, width=3, **many) == "columns"
    assert choose_form(num_atoms=512, width=12, **many) == "rows"  # a product costs less
    one = many | {"num_signals": 1}
    assert choose_form(num_atoms=512, width=64, **one) == "rows"  # the Gram matrix costs more
    cpu, other = coding_plans(np.zeros((8192, 64)), np.zeros((512, 64)), 8, 4, None)
    assert cpu[0] == "gram" and other[0] == ON_ACCELERATORS


@pytest.mark.parametrize(("dtype", "m"), [(np.float32, 8192), (np.float64, 5792)])
def test_gram_bytes_count_the_gram_matrix_in_its_own_type(dtype, m):
    def form(gram_bytes):
        signals, atoms = np.zeros((8192, 64), dtype), np.zeros((m, 64), dtype)
        return coding_plans(signals, atoms, 8, 4, None, gram_bytes)[0][0]

    size = m**2 * np.dtype(dtype).itemsize
    assert [form(x) for x in (0, size - 1, size, None)] == ["rows", "rows", "gram", "gram"]
    assert (
        coding_plans(np.zeros((10**6, 64), dtype), np.zeros((m + 1, 64), dtype), 8, 4, None)[0][0]
        == "rows"
    )


@pytest.mark.parametrize("form", ["rows", "columns", "gram"])
def test_blocks_of_either_orientation_hold_the_same_numbers(rng, float64, form):
    vectors, signals = rng.normal(size=(12, 5)), rng.normal(size=(7, 5))
    indices = jnp.asarray(np.stack([rng.permutation(12)[:6] for _ in range(7)]).T)
    weights = jnp.asarray(rng.normal(size=(6, 7)))
    atoms = Atoms.in_form(jnp.asarray(vectors), form)

    def block(x):
        return jnp.asarray(x.T if form == "columns" else x)

    np.testing.assert_array_equal(atoms.block(jnp.asarray(signals)), block(signals))
    products = signals @ vectors.T
    np.testing.assert_allclose(atoms.correlations(block(signals)), block(products), rtol=1e-12)
    index, value = atoms.argmax(block(products))
    np.testing.assert_array_equal(index, products.argmax(-1))
    np.testing.assert_array_equal(value, products.max(-1))
    np.testing.assert_array_equal(atoms.take(indices[2]), block(vectors[indices[2]]))
    picked = np.take_along_axis(products, np.asarray(indices).T, 1).T
    np.testing.assert_array_equal(atoms.pick(block(products), indices), picked)
    added = atoms.add_at(block(products), SparseCode(indices, weights))
    dense = np.zeros((7, 12))
    np.put_along_axis(dense, np.asarray(indices).T, np.asarray(weights).T, 1)
    np.testing.assert_allclose(added, block(products + dense), rtol=1e-12)
    for count in (0, 1, 5, 6):
        part = decode(SparseCode(indices[:count].T, weights[:count].T), jnp.asarray(vectors))
        total = atoms.add(block(signals), weights, indices, count)
        np.testing.assert_allclose(total, block(signals + part), rtol=1e-12)


def test_gradients_of_a_sum_whose_length_is_traced(rng, float64):
    vectors, total = jnp.asarray(rng.normal(size=(12, 5))), jnp.asarray(rng.normal(size=(7, 5)))
    weights, indices = (
        jnp.asarray(rng.normal(size=(6, 7))),
        jnp.asarray(rng.integers(12, size=(6, 7))),
    )

    def loss(total, weights, vectors, count):
        return jnp.sum(Atoms(vectors, None, 1).add(total, weights, indices, count) ** 2)

    def plain(total, weights, vectors):
        code = SparseCode(indices[:4].T, weights[:4].T)
        return jnp.sum((total + decode(code, vectors)) ** 2)

    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(total, weights, vectors, 4)
    expected = jax.grad(plain, argnums=(0, 1, 2))(total, weights, vectors)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12)
