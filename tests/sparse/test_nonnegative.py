"""Nonnegative OMP and dictionaries, against scipy's nnls and a known dictionary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from laser_jax import sparse
from laser_jax.sparse import nonnegative_omp

N, D, M, K = 96, 12, 24, 5


def problem(rng):
    """Signals and atoms of several norms; correlated, so that atoms leave supports."""
    dictionary = np.abs(rng.normal(size=(M, D))) * rng.uniform(0.1, 10, (M, 1))
    return rng.normal(size=(N, D)) + 1, dictionary


def dense(code, m=M):
    return np.asarray(sparse.to_dense(code, m))


def lawson_hanson(signal, dictionary, sparsity):
    """Returns coefficients of greedy nonnegative least squares of at most `sparsity` atoms."""
    norms, support, x = np.linalg.norm(dictionary, axis=-1), [], np.zeros(len(dictionary))
    for _ in range(3 * sparsity):
        correlations = dictionary @ (signal - x @ dictionary) / norms
        index = int(np.argmax(correlations))
        if len(support) == sparsity or correlations[index] <= 1e-10 * np.linalg.norm(signal):
            break
        x = np.zeros(len(dictionary))
        support = [*support, index]
        x[support] = nnls(dictionary[support].T, signal)[0]
        support = [j for j in support if x[j] > 0]
    return x


def test_coefficients_equal_greedy_nonnegative_least_squares_of_scipy(rng, float64):
    signals, dictionary = problem(rng)
    found = dense(nonnegative_omp(signals, dictionary, sparsity=K))
    expected = np.stack([lawson_hanson(y, dictionary, K) for y in signals])
    assert np.all(found >= 0)
    np.testing.assert_allclose(found, expected, atol=1e-9 * expected.max())
    assert np.mean(np.sum(found > 0, -1)) > 2


def test_support_and_coefficients_equal_scipy_in_float32(rng):
    signals, dictionary = (x.astype(np.float32) for x in problem(rng))
    code = map(np.asarray, nonnegative_omp(signals, dictionary, sparsity=K))
    for y, indices, coefficients in zip(signals, *code, strict=True):
        used = indices[coefficients > 0]
        expected = nnls(np.float64(dictionary[used]).T, np.float64(y))[0]
        np.testing.assert_allclose(coefficients[coefficients > 0], expected, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("sparsity", [1, M])
def test_sparsity_of_one_and_of_all_atoms_equal_scipy(sparsity, rng, float64):
    signals, dictionary = problem(rng)
    found = dense(nonnegative_omp(signals, dictionary, sparsity=sparsity))
    if sparsity == 1:
        expected = np.stack([lawson_hanson(y, dictionary, 1) for y in signals])
        np.testing.assert_allclose(found, expected, atol=1e-9)
    else:
        errors = np.linalg.norm(signals - found @ dictionary, axis=-1)
        np.testing.assert_allclose(errors, [nnls(dictionary.T, y)[1] for y in signals], rtol=1e-8)


def test_hard_signals_affect_only_themselves(rng, float64):
    signals, dictionary = problem(rng)
    dictionary[1], dictionary[2], dictionary[3] = dictionary[0], 0, np.nan
    expected = dense(nonnegative_omp(signals, dictionary, sparsity=K))
    signals[0], signals[1], signals[2, 0], signals[3] = 0, -dictionary[0], np.nan, np.inf
    signals[4], signals[5] = 1e200 * signals[4], 1e-200 * signals[5]
    found = dense(nonnegative_omp(signals, dictionary, sparsity=K))
    assert not found[:2].any() and np.isnan(found[2:4]).any(-1).all()
    np.testing.assert_allclose(found[4] / 1e200, expected[4], atol=1e-12)
    np.testing.assert_allclose(found[5] * 1e200, expected[5], atol=1e-12)
    np.testing.assert_allclose(found[6:], expected[6:], atol=1e-12)
    assert not found[6:, 1:4].any()
    alone = dense(nonnegative_omp(signals[7], dictionary, sparsity=K))
    np.testing.assert_allclose(alone, expected[7], atol=1e-12)


def test_signal_with_an_invalid_tolerance_has_no_code(rng, float64):
    signals, dictionary = problem(rng)
    tolerance = jnp.where(jnp.arange(N) == 1, jnp.nan, jnp.where(jnp.arange(N) == 2, -1, 0.1))
    for mask in (None, np.ones((N, D))):
        options = {"sparsity": K, "mask": mask}
        found = nonnegative_omp(signals, dictionary, tolerance=tolerance, **options).coefficients
        assert np.isnan(found[1:3]).all()
        expected = nonnegative_omp(signals, dictionary, tolerance=0.1, **options).coefficients
        np.testing.assert_array_equal(found[3:], expected[3:])


def test_masked_nonnegative_code_equals_scipy_on_visible_entries(rng, float64):
    signals, dictionary = problem(rng)
    mask = rng.random((N, D)) < 0.7
    code = nonnegative_omp(np.where(mask, signals, np.nan), dictionary, sparsity=K, mask=mask)
    expected = [
        lawson_hanson(y[s], dictionary[:, s], K) for y, s in zip(signals, mask, strict=True)
    ]
    np.testing.assert_allclose(dense(code), expected, atol=1e-8 * np.max(expected))


def test_gradient_equals_finite_differences(rng, float64):
    signals, dictionary = problem(rng)
    move = rng.normal(size=(M, D))

    def value(dictionary):
        code = nonnegative_omp(signals, dictionary, sparsity=K)
        return jnp.sum(jnp.sin(code.coefficients))

    slope = np.sum(np.asarray(jax.jit(jax.grad(value))(dictionary)) * move)
    there, back = value(dictionary + 1e-7 * move), value(dictionary - 1e-7 * move)
    np.testing.assert_allclose((there - back) / 2e-7, slope, rtol=1e-4)
