import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import SparseCode, decode, omp, perplexity, to_dense, usage


def make_code(rng, shape=(6, 5), k=3, m=7, dtype=np.float32):
    indices = rng.permuted(np.tile(np.arange(m), (*shape, 1)), axis=-1)[..., :k]
    return SparseCode(
        jnp.asarray(indices, jnp.int32), jnp.asarray(rng.normal(size=indices.shape), dtype)
    )


def test_decode_is_the_dense_code_times_the_dictionary(rng, dtype):
    code = make_code(rng, dtype=dtype)
    dictionary = jnp.asarray(rng.normal(size=(7, 4)), dtype)
    decoded = decode(code, dictionary)
    assert decoded.shape == (6, 5, 4) and decoded.dtype == dtype
    expected = np.asarray(to_dense(code, 7)) @ np.asarray(dictionary)
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-6)


def test_dense_code_adds_up_an_index_that_occurs_twice():
    code = SparseCode(jnp.array([[1, 1, 0]]), jnp.array([[2.0, 3.0, 0.0]]))
    np.testing.assert_array_equal(to_dense(code, 3), [[0, 5, 0]])


def test_a_single_signal_needs_no_leading_axis(rng):
    code = make_code(rng, shape=())
    dictionary = jnp.asarray(rng.normal(size=(7, 4)), jnp.float32)
    assert decode(code, dictionary).shape == (4,)
    assert to_dense(code, 7).shape == (7,)


def test_usage_counts_nonzero_coefficients_only():
    code = SparseCode(jnp.array([[0, 1], [1, 2]]), jnp.array([[1.0, -2.0], [0.5, 0.0]]))
    np.testing.assert_array_equal(usage(code, 4), [1, 2, 0, 0])


def test_perplexity_is_one_for_one_atom_and_m_for_uniform_use():
    np.testing.assert_allclose(perplexity(jnp.array([5.0, 0.0, 0.0])), 1, rtol=1e-6)
    np.testing.assert_allclose(perplexity(jnp.full(8, 3.0)), 8, rtol=1e-6)
    np.testing.assert_allclose(perplexity(jnp.zeros(8)), 1)  # nothing used: no NaN


def test_a_code_is_a_pytree_that_jit_and_vmap_pass_through(rng):
    code = make_code(rng)
    dictionary = jnp.asarray(rng.normal(size=(7, 4)), jnp.float32)
    whole = decode(code, dictionary)
    mapped = jax.jit(jax.vmap(decode, in_axes=(0, None)))(code, dictionary)
    np.testing.assert_allclose(mapped, whole, rtol=1e-6)


def test_gradient_of_decode_is_that_of_the_product(rng, float64):
    code = make_code(rng, dtype=np.float64)
    dictionary = jnp.asarray(rng.normal(size=(7, 4)))
    target = jnp.asarray(rng.normal(size=(6, 5, 4)))
    gradient = jax.grad(lambda d: jnp.sum(decode(code, d) * target))(dictionary)
    expected = np.einsum("abm,abd->md", to_dense(code, 7), target)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)


def test_no_signal_decodes_to_no_signal():
    code = omp(jnp.zeros((0, 4)), jnp.eye(4), sparsity=2)
    assert decode(code, jnp.eye(4)).shape == (0, 4)
    assert to_dense(code, 4).shape == (0, 4)
    np.testing.assert_array_equal(usage(code, 4), 0)


def test_a_code_that_does_not_fit_its_signals_is_an_error(rng):
    from laser_jax.sparse import ksvd_sweep

    signals = jnp.ones((5, 4))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(5, 4\)"):
        ksvd_sweep(signals, jnp.eye(4), SparseCode(jnp.zeros((3, 2), int), jnp.ones((3, 2))))
