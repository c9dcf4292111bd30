"""A signal or atom that is not finite takes no part in what learns from many signals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import (
    EmaStatistics,
    SparseCode,
    decode,
    ema_update,
    energy,
    fit_dictionary,
    init_from_signals,
    kmeans_init,
    ksvd_statistics,
    ksvd_sweep,
    ksvd_update,
    nearest_atom,
    online_statistics,
    online_update,
    perplexity,
    replace_atoms,
    residual_nearest_atoms,
    residual_update,
    usage,
)
from laser_jax.sparse.codebook import replace_codes
from laser_jax.sparse.ksvd import METHODS

N, D, M, K = 60, 6, 12, 3
KEY = jax.random.key(0)
values = pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])


def problem(rng):
    """Signals, unit atoms and a code that uses each atom, as NumPy arrays."""
    dictionary = rng.normal(size=(M, D))
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    indices = (np.arange(N)[:, None] + np.array([0, 1, 5])) % M
    signals, coefficients = rng.normal(size=(N, D)), rng.normal(size=(N, K))
    code = SparseCode(indices.astype(np.int32), coefficients.astype(np.float32))
    return signals.astype(np.float32), dictionary.astype(np.float32), code


def one(code):
    return SparseCode(code.indices[:, :1], np.ones((len(code.indices), 1), np.float32))


UPDATES = {
    "usage": lambda y, d, c: usage(c, M),
    "energy": lambda y, d, c: energy(c, M),
    "ema_update": lambda y, d, c: ema_update(
        EmaStatistics(jnp.ones(M), d), y, one(c), decay=0.5
    ),
    "online_update": lambda y, d, c: online_update(online_statistics(d), y, d, c, decay=0.5),
    "residual_update": lambda y, d, c: residual_update(y, d, c, learning_rate=0.1),
    "replace_atoms": lambda y, d, c: replace_atoms(
        y, d, c, max_coherence=0.999, key=KEY, counts=jnp.arange(M) // 3
    ),
    **{
        f"ksvd_sweep, {method}": lambda y, d, c, method=method: ksvd_sweep(y, d, c, method=method)[
            0
        ]
        for method in METHODS
    },
    **{
        f"ksvd_update, {method}": lambda y, d, c, method=method: ksvd_update(
            ksvd_statistics(d, method=method), y, d, c, method=method, decay=0.5
        )[:2]
        for method in METHODS
    },
}  # fmt: skip
ATOM_UPDATES = {k: v for k, v in UPDATES.items() if k not in ("usage", "energy", "ema_update")}


@values
@pytest.mark.parametrize("name", UPDATES)
def test_a_signal_that_is_not_finite_changes_no_update(name, value, rng):
    signals, dictionary, code = problem(rng)
    signals[7, 2] = value
    code.coefficients[7] = np.nan  # what a coder gives it
    rest = np.arange(N) != 7
    expected = UPDATES[name](signals[rest], dictionary, SparseCode(*(x[rest] for x in code)))
    if name not in ("usage", "energy"):
        finite = code._replace(coefficients=np.nan_to_num(code.coefficients, nan=1))
        found = UPDATES[name](signals, dictionary, finite)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)
    found = UPDATES[name](signals, dictionary, code)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


@values
@pytest.mark.parametrize("name", ATOM_UPDATES)
def test_an_atom_that_is_not_finite_changes_no_other(name, value, rng):
    signals, dictionary, code = problem(rng)
    code.coefficients[code.indices == 4] = 0  # as if no signal used it
    # A running call may still read arrays that change below.
    expected = jax.block_until_ready(ATOM_UPDATES[name](signals, dictionary, code))
    expected = jax.tree.leaves(expected)[-1]
    code.coefficients[code.indices == 4] = 2
    dictionary[4, 1] = value
    found = jax.tree.leaves(ATOM_UPDATES[name](signals, dictionary, code))[-1]
    if name == "replace_atoms":
        np.testing.assert_array_equal(np.isfinite(found), True)
        rest = np.arange(M) > 4  # in use, so kept
    else:
        np.testing.assert_array_equal(found[4], dictionary[4])
        rest = np.arange(M) != 4
    np.testing.assert_allclose(found[rest], expected[rest], atol=1e-4)


def test_statistics_of_one_atom_that_are_nan_change_no_other_centroid(rng):
    signals, dictionary, code = problem(rng)
    broken = EmaStatistics(np.ones(M, np.float32), dictionary.copy())
    broken.counts[3] = broken.sums[3] = np.nan
    _, found = ema_update(broken, signals, one(code), decay=0.5)
    _, expected = ema_update(
        EmaStatistics(np.ones(M, np.float32), dictionary), signals, one(code), decay=0.5
    )
    rest = np.arange(M) != 3
    np.testing.assert_allclose(found[rest], expected[rest], rtol=1e-3)


@values
def test_learned_codebooks_and_dictionaries_hold_finite_signals_alone(value, rng):
    signals, _, _ = problem(rng)
    signals[1::2, 0] = value
    for key in jax.random.split(KEY, 3):
        centroids = np.asarray(kmeans_init(signals, M, key=key, iterations=0))
        assert {tuple(x) for x in centroids} <= {tuple(x) for x in signals[::2]}
        assert len({tuple(x) for x in centroids}) == M
    assert np.all(np.isfinite(kmeans_init(signals, M, key=KEY)))
    atoms = np.asarray(init_from_signals(signals, M, key=KEY, max_coherence=0.999))
    unit = signals[::2] / np.linalg.norm(signals[::2], axis=-1, keepdims=True)
    np.testing.assert_allclose(np.max(atoms @ unit.T, -1), 1, rtol=1e-5)


def test_initial_atoms_are_finite_if_most_signals_are_not(rng):
    signals = np.full((40 * M, D), np.nan, np.float32)
    signals[-3:] = 100 * np.eye(3, D)
    centroids = np.asarray(kmeans_init(signals, M, key=KEY))
    assert {tuple(x) for x in centroids} == {tuple(x) for x in signals[-3:]}
    atoms = np.asarray(init_from_signals(signals, M, key=KEY))
    assert all(np.any(np.all(np.abs(atoms - x) < 1e-6, -1)) for x in np.eye(3, D))
    code = SparseCode(np.zeros((40 * M, 1), np.int32), np.ones((40 * M, 1), np.float32))
    ones, dead = np.ones((M, D), np.float32), np.arange(M) > 0
    new = np.asarray(replace_codes(signals, ones, code, dead, key=KEY))
    assert {tuple(x) for x in new[1:]} == {tuple(x) for x in signals[-3:]}
    new = replace_codes(signals[:-3], ones, SparseCode(*(x[:-3] for x in code)), dead, key=KEY)
    np.testing.assert_array_equal(new, ones)


@values
def test_the_error_of_a_fit_is_that_of_its_finite_signals(value, rng):
    signals, _, _ = problem(rng)
    signals[7, 2] = value
    fit = fit_dictionary(
        signals, num_atoms=M, sparsity=K, method="approximate", iterations=2, key=KEY
    )
    assert np.all(np.isfinite(fit.dictionary))
    rest = np.arange(N) != 7
    part = SparseCode(*(x[rest] for x in fit.code))
    squares = np.sum((signals[rest] - decode(part, fit.dictionary)) ** 2, -1)
    np.testing.assert_allclose(fit.errors[-1], np.mean(squares), rtol=1e-4)


@values
def test_the_nearest_atom_of_a_signal_that_is_not_finite_is_none(value, rng):
    signals, dictionary, _ = problem(rng)
    expected = jax.block_until_ready(nearest_atom(signals, dictionary))
    signals[7, 2] = value
    rest = np.arange(N) != 7
    for code, k in (
        (nearest_atom(signals, dictionary), 1),
        (residual_nearest_atoms(signals, dictionary, stages=3), 3),
    ):
        np.testing.assert_array_equal(np.isnan(code.coefficients[7]), True)
        np.testing.assert_array_equal(code.coefficients[rest], 1)
        assert np.sum(usage(code, M)) == (N - 1) * k
    code = nearest_atom(signals, dictionary)
    np.testing.assert_array_equal(code.indices[rest], expected.indices[rest])


@values
def test_a_weight_that_is_not_finite_leaves_perplexity(value):
    np.testing.assert_allclose(perplexity(np.array([2.0, value, 2.0])), 2, rtol=1e-6)


# Counts and sums over very many signals.

MANY = 2**24 + 2**10


def test_more_signals_than_float32_has_integers_are_counted():
    code = SparseCode(np.zeros((MANY, 1), np.int8), np.ones((MANY, 1), np.float16))
    np.testing.assert_array_equal(usage(code, 2), [MANY, 0])
    np.testing.assert_array_equal(energy(code, 2), [MANY, 0])


def test_the_mean_of_millions_of_signals_is_accurate():
    signals = np.full((2**22, 1), 0.2, np.float32)
    np.testing.assert_allclose(kmeans_init(signals, 1, key=KEY, iterations=1), 0.2, rtol=1e-6)
    code = SparseCode(np.zeros((2**22, 1), np.int8), np.ones((2**22, 1), np.float16))
    statistics = EmaStatistics(jnp.zeros(1), jnp.zeros((1, 1)))
    (counts, sums), new = ema_update(statistics, signals, code, decay=0.0)
    assert counts == 2**22
    np.testing.assert_allclose(sums / counts[:, None], 0.2, rtol=1e-4)
    np.testing.assert_allclose(new, 0.2, rtol=1e-4)
