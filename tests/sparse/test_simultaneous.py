"""Simultaneous OMP against the plain algorithm in NumPy float64 and a known support."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import omp, simultaneous_omp, to_dense

B, G, D, M, K = 24, 5, 12, 24, 4


def problem(rng):
    dictionary = rng.normal(size=(M, D)) * rng.uniform(0.1, 10, (M, 1))
    return rng.normal(size=(B, G, D)), dictionary


def numpy_somp(group, dictionary, sparsity=K, tolerance=0.0):
    """Returns support and dense coefficients `(g, m)` in float64."""
    atoms = dictionary / np.linalg.norm(dictionary, axis=-1, keepdims=True)
    support, x, rest = [], np.zeros((len(group), len(dictionary))), group
    while len(support) < sparsity and np.sum(rest**2) > tolerance:
        support.append(int(np.argmax(np.sum(np.abs(rest @ atoms.T), 0))))
        x[:, support] = np.linalg.lstsq(dictionary[support].T, group.T, rcond=None)[0].T
        rest = group - x @ dictionary
    return support, x


@jax.jit
def coded(signals, dictionary, tolerance=0.0):
    return simultaneous_omp(signals, dictionary, sparsity=K, tolerance=tolerance)


@pytest.mark.parametrize("tolerance", [0.0, 25.0])
def test_supports_and_coefficients_equal_the_plain_algorithm(tolerance, rng, float64):
    signals, dictionary = problem(rng)
    code = coded(signals, dictionary, tolerance)
    expected = [numpy_somp(y, dictionary, tolerance=tolerance) for y in signals]
    for places, coefficients, (support, _) in zip(*map(np.asarray, code), expected, strict=True):
        assert np.all(places == places[0]) and len(set(places[0])) == K
        assert list(places[0, : len(support)]) == support
        assert not coefficients[:, len(support) :].any()
    np.testing.assert_allclose(to_dense(code, M), [x for _, x in expected], atol=1e-9)
    assert (min(len(s) for s, _ in expected) < K) == (tolerance > 0)


def test_a_shared_support_is_found_where_single_signals_miss_it(rng):
    """Noise as large as the signals hides the support from each of them, not from 40."""
    dictionary = np.float32(rng.normal(size=(M, D)))
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    support = [3, 17]
    clean = rng.normal(size=(40, 2)) @ dictionary[support]
    signals = np.float32(clean + 0.4 * rng.normal(size=clean.shape))
    together = simultaneous_omp(signals, dictionary, sparsity=2)
    alone = np.sort(omp(signals, dictionary, sparsity=2).indices, -1)
    assert np.all(np.sort(together.indices, -1) == support)
    assert np.mean(np.all(alone == support, -1)) < 0.5


def test_a_group_of_one_signal_is_coded_as_by_omp(rng, float64):
    signals, dictionary = problem(rng)
    single = signals[:, 0]
    found = simultaneous_omp(single[:, None], dictionary, sparsity=K)
    expected = omp(single, dictionary, sparsity=K)
    np.testing.assert_array_equal(found.indices[:, 0], expected.indices)
    np.testing.assert_allclose(found.coefficients[:, 0], expected.coefficients, atol=1e-9)


def test_hard_signals_atoms_and_groups_affect_only_themselves(rng, float64):
    signals, dictionary = problem(rng)
    dictionary[1], dictionary[2], dictionary[3] = dictionary[0], 0, np.nan
    expected = np.asarray(to_dense(coded(signals, dictionary), M))
    muted = signals.copy()
    muted[:2, 0] = 0
    without = np.asarray(to_dense(coded(muted, dictionary), M))
    signals[0, 0], signals[1, 0, 2], signals[2] = np.nan, np.inf, 0
    signals[3], signals[4] = 1e200 * signals[3], 1e-200 * signals[4]
    found = np.asarray(to_dense(coded(signals, dictionary), M))
    # The others of the group are coded as if the signal were not there.
    assert np.isnan(found[:2, 0]).any(-1).all() and not found[2].any()
    np.testing.assert_allclose(found[:2, 1:], without[:2, 1:], atol=1e-12)
    np.testing.assert_allclose(found[3] / 1e200, expected[3], atol=1e-12)
    np.testing.assert_allclose(found[4] * 1e200, expected[4], atol=1e-12)
    np.testing.assert_allclose(found[5:], expected[5:], atol=1e-12)
    assert not found[5:, :, 1:4].any()
    mapped = jax.vmap(lambda y: simultaneous_omp(y, dictionary, sparsity=K, block_size=5))
    np.testing.assert_allclose(to_dense(jax.jit(mapped)(signals[5:]), M), expected[5:], atol=1e-12)


def test_gradient_equals_finite_differences(rng, float64):
    signals, dictionary = problem(rng)
    moves = rng.normal(size=signals.shape), rng.normal(size=dictionary.shape)

    def value(signals, dictionary):
        return jnp.sum(jnp.sin(coded(signals, dictionary).coefficients))

    grads = jax.jit(jax.grad(value, (0, 1)))(signals, dictionary)
    slope = sum(np.sum(np.asarray(g) * m) for g, m in zip(grads, moves, strict=True))
    there, back = (value(signals + s * moves[0], dictionary + s * moves[1]) for s in (1e-7, -1e-7))
    np.testing.assert_allclose((there - back) / 2e-7, slope, rtol=1e-4)


def test_a_tolerance_out_of_range_raises_or_gives_nan_to_its_group_alone(rng, float64):
    signals, dictionary = problem(rng)
    for wrong in (-1.0, np.nan, np.full(B, -1.0)):
        with pytest.raises(ValueError, match="tolerance must be at least 0, got"):
            simultaneous_omp(signals, dictionary, sparsity=K, tolerance=wrong)
    each = np.where(np.arange(B) == 2, np.nan, 0.0)
    found, expected = (coded(signals, dictionary, t).coefficients for t in (each, np.zeros(B)))
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(expected, 2, 0))


def test_signals_without_a_group_axis_raise():
    with pytest.raises(ValueError, match=r"groups, \(..., g, d\), got \(12,\)"):
        simultaneous_omp(np.ones(D, np.float32), np.ones((M, D), np.float32), sparsity=2)
