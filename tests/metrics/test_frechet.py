import numpy as np
import pytest
from scipy import linalg

from laser_jax.metrics import GaussianStatistics, frechet_distance


def statistics_of(rows, batch=7):
    statistics = GaussianStatistics(rows.shape[1])
    for start in range(0, len(rows), batch):
        statistics.add(rows[start : start + batch])
    return statistics


def covariance(rng, width, rank=None):
    rows = rng.normal(size=(rank or 3 * width, width))
    return rows.T @ rows / len(rows)


def test_diagonal_gaussians_have_a_closed_form():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 2, (2, 9))
    mean_a, mean_b = rng.normal(size=(2, 9))
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    result = frechet_distance(mean_a, np.diag(a), mean_b, np.diag(b))
    assert isinstance(result, float) and result == pytest.approx(expected, rel=1e-12)


def test_it_is_the_form_with_scipys_matrix_root():
    rng = np.random.default_rng(1)
    a, b, mean_a, mean_b = *(covariance(rng, 20) for _ in "ab"), *rng.normal(size=(2, 20))
    root = linalg.sqrtm(a @ b)
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * root.real)
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(expected, rel=1e-8)


def test_distances_of_singular_covariances_are_exact():
    rng = np.random.default_rng(2)
    a, zero = covariance(rng, 50, rank=10), np.zeros(50)
    assert frechet_distance(zero, a, zero, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(zero, a, zero, np.zeros((50, 50))) == pytest.approx(np.trace(a))
    assert frechet_distance(zero, a, zero, 4 * a) == pytest.approx(np.trace(a), rel=1e-6)


def test_streamed_moments_are_numpys():
    # A large mean beside a small spread, as float32 would lose it.
    rows = np.random.default_rng(3).normal(1e6, 1e-2, size=(40, 5))
    mean, covariance = statistics_of(rows).moments()
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(rows, rowvar=False), rtol=1e-6, atol=1e-9)


def test_an_empty_batch_changes_nothing():
    rows = np.random.default_rng(4).normal(size=(10, 3))
    statistics = GaussianStatistics(3)
    for batch in (rows[:0], rows, rows[:0]):
        statistics.add(batch)
    assert statistics.count == 10
    np.testing.assert_allclose(statistics.moments()[1], np.cov(rows, rowvar=False))


def test_a_single_vector_has_no_covariance():
    with pytest.raises(ValueError, match="at least two vectors, got 1"):
        statistics_of(np.ones((1, 3))).moments()


def test_other_shapes_raise():
    with pytest.raises(ValueError, match=r"\(2,\) and \(2,\) do not fit .*\(2, 2\) and \(3, 3\)"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(3))
