"""Masked and nonnegative dictionary learning, against NumPy float64 and known dictionaries."""

import dataclasses

import jax
import numpy as np
import pytest

from laser_jax.sparse import (
    DictionaryLearner,
    SparseCode,
    decode,
    fit_dictionary,
    ksvd_sweep,
    ksvd_update,
    nonnegative_omp,
    omp,
    online_update,
    top_k,
)

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


def known_parts(rng, positive):
    """Atoms, those nonnegative with zeros, and signals of two of them each."""
    truth = rng.normal(size=(M, 2 * D))
    truth = unit(np.maximum(truth, 0) if positive else truth)
    indices = np.stack([rng.permutation(M)[:2] for _ in range(1000)])
    sizes = rng.uniform(0.5, 1.5, indices.shape)
    sizes *= 1 if positive else rng.choice([-1, 1], indices.shape)
    return truth, np.float32(np.asarray(decode(SparseCode(indices, sizes), truth)))


def share_found(truth, atoms):
    return np.mean(np.max(np.abs(truth @ np.asarray(atoms).T), -1) > 0.99)


@pytest.mark.parametrize("constraint", ["mask", "nonnegative"])
def test_fit_recovers_a_known_dictionary(constraint, rng):
    """The hidden third of the entries is found too."""
    positive = constraint == "nonnegative"
    truth, clean = known_parts(rng, positive)
    seen = rng.random(clean.shape) < (1 if positive else 2 / 3)
    options = {"nonnegative": True} if positive else {"mask": seen}
    fit = fit_dictionary(
        np.where(seen, clean, np.nan), num_atoms=M, sparsity=2, iterations=40,
        key=jax.random.key(0), **options,
    )  # fmt: skip
    assert share_found(truth, fit.dictionary) >= 0.9
    if positive:
        assert np.min(fit.dictionary) >= 0 and np.min(fit.code.coefficients) >= 0
    else:
        left = np.asarray(decode(fit.code, fit.dictionary)) - clean
        assert np.sum(left[~seen] ** 2) < 0.1 * np.sum(clean[~seen] ** 2)


@pytest.mark.parametrize("method", ["approximate", "online", "residual"])
def test_learner_recovers_a_known_nonnegative_dictionary(method, rng):
    truth, signals = known_parts(rng, positive=True)
    learner = DictionaryLearner(
        M, 2, method=method, batch_size=250, decay=0.9, learning_rate=0.5, nonnegative=True
    )
    state = learner.fit(40 * [signals], jax.random.key(0))
    # Gradient steps without moments find fewer atoms in as many batches.
    assert share_found(truth, state.dictionary) >= (0.75 if method == "residual" else 0.9)
    assert np.min(state.dictionary) == 0
    assert np.min(learner.used_coder(signals, state.dictionary, sparsity=2).coefficients) >= 0


@pytest.mark.parametrize("method", ["approximate", "online", "residual"])
@pytest.mark.parametrize("nonnegative", ["dictionary", "code", False])
def test_learner_keeps_what_it_is_told_to(nonnegative, method, rng):
    """Of signals with both signs, from atoms with both."""
    signals = np.float32(rng.normal(size=(128, D)))
    learner = DictionaryLearner(M, 2, method=method, nonnegative=nonnegative, replace_every=2)
    state = learner.init(jax.random.key(0), signals, dictionary=signals[:M])
    for _ in range(4):
        state = learner.update(state, signals)
        assert (np.min(state.dictionary) >= 0) == (nonnegative == "dictionary")
    code = learner.used_coder(signals, state.dictionary, sparsity=2)
    assert (np.min(code.coefficients) >= 0) == (nonnegative == "code")


@pytest.mark.parametrize("method", ["exact", "parallel"])
def test_updates_that_cannot_stay_nonnegative_raise(method, rng):
    signals, atoms, code, _ = problem(rng, True)
    what = f"method '{method}' does not take nonnegative"
    with pytest.raises(ValueError, match=what):
        ksvd_sweep(signals, atoms, code, method=method, nonnegative=True)
    with pytest.raises(ValueError, match=what):
        ksvd_update(None, signals, atoms, code, method=method, decay=0.5, nonnegative="code")
    with pytest.raises(ValueError, match=what):
        DictionaryLearner(4, 2, method=method, nonnegative="dictionary")


def test_changed_learner_has_the_coder_of_its_new_options():
    learner = DictionaryLearner(4, 2)
    assert learner.used_coder is omp
    assert dataclasses.replace(learner, nonnegative=True).used_coder is nonnegative_omp
    assert dataclasses.replace(learner, coder=top_k, nonnegative="code").used_coder is top_k


@pytest.mark.parametrize("options, message", [
    ({"nonnegative": "code", "atoms_axis": "atoms"}, "nonnegative='code' does not take atoms_axis"),
    ({"nonnegative": "both"}, "nonnegative must be True, False"),
])  # fmt: skip
def test_learners_without_such_an_option_raise(options, message):
    with pytest.raises(ValueError, match=message):
        DictionaryLearner(4, 2, **options)
