"""Signals with weights of their entries, against plain algorithms in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax import sparse
from laser_jax.sparse import SparseCode, decode, omp

N, D, M, K = 96, 12, 24, 3


def problem(rng):
    """Signals with hidden entries, a dictionary of atoms of several norms, and weights."""
    dictionary = rng.normal(size=(M, D)) * rng.uniform(0.1, 10, (M, 1))
    weights = rng.choice([0, 0, 0.25, 1, 4], (N, D))
    signals = np.where(weights > 0, rng.normal(size=(N, D)), np.nan)
    return signals, dictionary, weights


def numpy_omp(signal, dictionary, weights, selection):
    """Returns support and coefficients of masked OMP, in float64."""
    seen = weights > 0
    y, atoms = (np.sqrt(weights[seen]) * x[..., seen] for x in (signal, dictionary))
    norms = np.linalg.norm(atoms, axis=-1)
    support, coefficients, residual = [], np.zeros(0), y
    while len(support) < K and residual @ residual > 1e-20 * (y @ y):
        score = np.abs(atoms @ residual) / norms
        if selection == "ols":
            basis = np.linalg.qr(atoms[support].T)[0] if support else np.zeros((len(y), 0))
            rest = np.linalg.norm(atoms - atoms @ basis @ basis.T, axis=-1)
            score = np.where(rest > 1e-6 * norms, np.abs(atoms @ residual) / rest, 0)
        support.append(int(np.argmax(score)))
        coefficients = np.linalg.lstsq(atoms[support].T, y, rcond=None)[0]
        residual = y - coefficients @ atoms[support]
    return support, coefficients


def dense(code):
    return np.asarray(sparse.to_dense(code, M))


@pytest.mark.parametrize("selection", ["correlation", "ols"])
def test_masked_omp_equals_the_plain_algorithm_on_visible_entries(selection, rng, float64):
    signals, dictionary, weights = problem(rng)
    code = omp(signals, dictionary, sparsity=K, selection=selection, mask=weights)
    expected = np.zeros((N, M))
    for row, *signal in zip(expected, signals, weights, strict=True):
        support, coefficients = numpy_omp(signal[0], dictionary, signal[1], selection)
        row[support] = coefficients
    np.testing.assert_allclose(dense(code), expected, atol=1e-9 * np.abs(expected).max())


def test_masked_omp_of_one_signal_equals_that_of_the_batch(rng, float64):
    signals, dictionary, weights = problem(rng)
    together = omp(signals, dictionary, sparsity=K, mask=weights)
    alone = dense(omp(signals[5], dictionary, sparsity=K, mask=weights[5]))
    mapped = jax.vmap(lambda y, w: omp(y, dictionary, sparsity=K, mask=w))(signals, weights)
    np.testing.assert_allclose(dense(mapped), dense(together), atol=1e-12)
    np.testing.assert_allclose(alone, dense(together)[5], atol=1e-12)


@pytest.mark.parametrize("coder", ["omp", "matching_pursuit", "gradient_pursuit", "top_k"])
def test_mask_of_ones_changes_nothing_and_hidden_signals_code_to_zeros(coder, rng, float64):
    signals, dictionary, _ = problem(rng)
    signals, code = np.nan_to_num(signals), getattr(sparse, coder)
    plain = code(signals, dictionary, sparsity=K)
    np.testing.assert_allclose(
        dense(code(signals, dictionary, sparsity=K, mask=np.ones(D, bool))), dense(plain), atol=1e-9
    )
    mask = np.ones((N, D), bool)
    mask[0] = False
    signals[0, 0], signals[0, 1] = np.nan, np.inf
    found = dense(code(signals, dictionary, sparsity=K, mask=mask))
    assert not found[0].any()
    np.testing.assert_allclose(found[1:], dense(plain)[1:], atol=1e-9)


def test_masked_code_is_the_same_at_any_size_of_signals_and_weights(rng, float64):
    signals, dictionary, weights = problem(rng)
    expected = dense(omp(signals, dictionary, sparsity=K, mask=weights))
    sizes = 10.0 ** rng.integers(-150, 150, (N, 1))
    found = dense(omp(sizes * signals, dictionary, sparsity=K, mask=weights / sizes))
    np.testing.assert_allclose(found / sizes, expected, atol=1e-9)


def test_invalid_weights_and_visible_nan_affect_only_their_signal(rng, float64):
    signals, dictionary, weights = problem(rng)
    expected = dense(omp(signals, dictionary, sparsity=K, mask=weights))
    weights[0, 0], weights[1, 0], weights[2, 0], signals[2, 0] = -1, np.inf, 1, np.nan
    found = dense(omp(signals, dictionary, sparsity=K, mask=weights))
    assert np.isnan(found[:3]).any(-1).all()
    np.testing.assert_allclose(found[3:], expected[3:], atol=1e-12)


def test_masked_pursuit_stops_at_the_tolerance_of_the_weighted_error(rng, float64):
    signals, dictionary, weights = problem(rng)
    found = omp(signals, dictionary, sparsity=K, mask=weights, tolerance=2.0)
    rest = np.nan_to_num(signals) - np.asarray(decode(found, dictionary))
    errors = np.sum(weights * rest**2, -1)
    used = np.sum(np.asarray(found.coefficients) != 0, -1)
    assert 0 < np.sum(used < K) < N
    assert np.all(errors[used < K] <= 2)
    assert np.all((used == 0) == (np.sum(weights * np.nan_to_num(signals) ** 2, -1) <= 2))


def test_gradient_of_masked_code_equals_finite_differences(rng, float64):
    signals, dictionary, weights = problem(rng)
    direction = rng.normal(size=(N, K))

    def value(signals, dictionary):
        code = omp(signals, dictionary, sparsity=K, mask=weights)
        return jnp.sum(direction * code.coefficients)

    grads = jax.jit(jax.grad(value, (0, 1)))(signals, dictionary)
    assert not np.any(np.asarray(grads[0])[weights == 0])
    moves = rng.normal(size=(N, D)), rng.normal(size=(M, D))
    slope = sum(np.sum(np.asarray(g) * m) for g, m in zip(grads, moves, strict=True))
    step = 1e-6
    there, back = (value(signals + s * moves[0], dictionary + s * moves[1]) for s in (step, -step))
    np.testing.assert_allclose((there - back) / (2 * step), slope, rtol=1e-5)


def test_masked_least_squares_equals_numpy(rng, float64):
    signals, dictionary, weights = problem(rng)
    indices = np.stack([rng.permutation(M)[:K] for _ in range(N)])
    code = sparse.least_squares(
        signals, dictionary, SparseCode(indices, np.ones((N, K))), mask=weights
    )
    for y, w, chosen, found in zip(signals, weights, indices, code.coefficients, strict=True):
        root, atoms = np.sqrt(w), dictionary[chosen]
        left = np.where(w > 0, y, 0) - np.asarray(found) @ atoms
        # The normal equations, whether or not the visible entries determine the coefficients.
        assert np.max(np.abs((root * atoms) @ (root * left))) < 1e-8 * np.sum(atoms**2)


@pytest.mark.parametrize("mask, match", [
    (np.ones((3, D + 1)), "broadcast"), (np.ones(D, complex), "bool or real"),
])  # fmt: skip
def test_masks_of_wrong_shape_or_type_raise(mask, match):
    with pytest.raises(ValueError, match=match):
        omp(np.ones((N, D), np.float32), np.ones((M, D), np.float32), sparsity=2, mask=mask)


@pytest.mark.parametrize("method", ["approximate", "online"])
def test_masked_update_lowers_the_weighted_error_and_learns_hidden_entries(method, rng, float64):
    truth = rng.normal(size=(M, D))
    truth /= np.linalg.norm(truth, axis=-1, keepdims=True)
    indices = np.stack([rng.permutation(M)[:2] for _ in range(N * 5)])
    code = SparseCode(indices, rng.normal(size=indices.shape))
    signals = np.asarray(decode(code, truth))
    mask = rng.random(signals.shape) < 0.6
    hidden, dictionary = np.where(mask, signals, np.nan), truth + 0.1 * rng.normal(size=truth.shape)
    errors = []
    for _ in range(20):
        if method == "online":
            _, dictionary = sparse.online_update(
                None, hidden, dictionary, code, decay=0.0, mask=mask
            )
        else:
            dictionary, code = sparse.ksvd_sweep(hidden, dictionary, code, method=method, mask=mask)
        code = sparse.least_squares(hidden, dictionary, code, mask=mask)
        rest = signals - np.asarray(decode(code, dictionary))
        errors.append(np.sum(mask * rest**2))
    assert errors[-1] < 1e-2 * errors[0] and np.all(np.diff(errors) <= 1e-9)
    assert np.sum(~mask * rest**2) < 1e-2 * np.sum(~mask * signals**2)
