"""Masked and nonnegative dictionary learning, against NumPy float64 and known dictionaries."""

import jax
import numpy as np
import pytest

from laser_jax.sparse import SparseCode, decode, fit_dictionary, ksvd_sweep, online_update

N, D, M, K = 96, 12, 24, 3


def problem(rng, nonnegative):
    """Returns signals, unit atoms, a code and weights; atom 0 is not used."""
    sign = np.abs if nonnegative else np.asarray
    atoms = sign(rng.normal(size=(M, D)))
    indices = np.stack([1 + rng.permutation(M - 1)[:K] for _ in range(N)])
    code = SparseCode(indices, sign(rng.normal(size=(N, K))))
    weights = np.ones((N, D)) if nonnegative else rng.choice([0, 0.25, 1, 4], (N, D))
    return rng.normal(size=(N, D)), unit(atoms), code, weights


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def dense(code):
    x = np.zeros((N, M))
    np.put_along_axis(x, np.asarray(code.indices), np.asarray(code.coefficients), -1)
    return x


def numpy_sweep(signals, atoms, code, weights, *, parallel, nonnegative):
    """Returns atoms and dense coefficients after one sweep."""
    x, new = dense(code), atoms.copy()
    bounded = (lambda a: np.maximum(a, 0)) if nonnegative else np.asarray
    rest = signals - x @ atoms
    for j in range(M):
        users = np.flatnonzero(x[:, j])
        error, w = rest[users] + x[users, j, None] * atoms[j], weights[users]
        squares = x[users, j] ** 2 @ w
        seen = np.where(squares > 0, squares, 1)
        best = bounded(np.where(squares > 0, x[users, j] @ (w * error) / seen, atoms[j]))
        if len(users) and best.any():
            new[j] = unit(best) * (1 if nonnegative or best @ atoms[j] >= 0 else -1)
        if not parallel:
            x[users, j] = bounded((w * error) @ new[j] / (w @ new[j] ** 2))
            rest[users] = error - x[users, j, None] * new[j]
    if parallel:
        for row, y, w, support in zip(x, signals, np.sqrt(weights), code.indices, strict=True):
            row[support] = np.linalg.lstsq((w * new[support]).T, w * y, rcond=None)[0]
    return new, x


@pytest.mark.parametrize("method, nonnegative", [
    ("approximate", False), ("parallel", False), ("approximate", True),
])  # fmt: skip
def test_masked_and_nonnegative_sweeps_equal_numpy(method, nonnegative, rng, float64):
    signals, atoms, code, weights = problem(rng, nonnegative)
    expected, x = numpy_sweep(
        signals, atoms, code, weights, parallel=method == "parallel", nonnegative=nonnegative
    )
    hidden = np.where(weights > 0, signals, np.nan)
    options = {"nonnegative": True} if nonnegative else {"mask": weights}
    new, found = ksvd_sweep(hidden, atoms, code, method=method, **options)
    np.testing.assert_allclose(new, expected, atol=1e-9)
    np.testing.assert_allclose(dense(found), x, atol=1e-8)
    assert not nonnegative or (np.min(new) == 0 and np.min(found.coefficients) == 0)


def test_nonnegative_online_update_equals_numpy(rng, float64):
    signals, atoms, code, _ = problem(rng, True)
    x, expected = dense(code), atoms.copy()
    grams, products = x.T @ x, x.T @ signals
    for j in range(1, M):
        best = expected[j] + (products[j] - grams[j] @ expected) / grams[j, j]
        expected[j] = unit(np.maximum(best, 0)) if np.any(best > 0) else expected[j]
    _, new = online_update(None, signals, atoms, code, decay=0.0, nonnegative=True)
    np.testing.assert_allclose(new, expected, atol=1e-9)
    assert np.min(new) == 0


@pytest.mark.parametrize("constraint", ["mask", "nonnegative"])
def test_fit_recovers_a_known_dictionary(constraint, rng):
    """The hidden third of the entries is found too; nonnegative atoms have zeros."""
    positive = constraint == "nonnegative"
    truth = rng.normal(size=(M, 2 * D))
    truth = unit(np.maximum(truth, 0) if positive else truth)
    indices = np.stack([rng.permutation(M)[:2] for _ in range(1000)])
    sizes = rng.uniform(0.5, 1.5, indices.shape)
    sizes *= 1 if positive else rng.choice([-1, 1], indices.shape)
    clean = np.float32(np.asarray(decode(SparseCode(indices, sizes), truth)))
    seen = rng.random(clean.shape) < (1 if positive else 2 / 3)
    options = {"nonnegative": True} if positive else {"mask": seen}
    fit = fit_dictionary(
        np.where(seen, clean, np.nan), num_atoms=M, sparsity=2, iterations=40,
        key=jax.random.key(0), **options,
    )  # fmt: skip
    cosines = np.max(np.abs(truth @ np.asarray(fit.dictionary).T), -1)
    assert np.mean(cosines > 0.99) >= 0.9
    if positive:
        assert np.min(fit.dictionary) >= 0 and np.min(fit.code.coefficients) >= 0
    else:
        left = np.asarray(decode(fit.code, fit.dictionary)) - clean
        assert np.sum(left[~seen] ** 2) < 0.1 * np.sum(clean[~seen] ** 2)
