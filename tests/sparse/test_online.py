import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from laser_jax.sparse import (
    EmaStatistics,
    SparseCode,
    decode,
    ema_update,
    ksvd_statistics,
    ksvd_update,
    nearest_atom,
    omp,
    online_statistics,
    online_update,
    residual_update,
    to_dense,
)
from laser_jax.sparse.ksvd import METHODS

N, D, M, K = 300, 12, 30, 4


def coded_problem(rng, dtype):
    """Signals, unit atoms and their OMP code; atom 5 is used by none."""
    dictionary = rng.normal(size=(M, D))
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    signals, dictionary = (
        jnp.asarray(rng.normal(size=(N, D)), dtype),
        jnp.asarray(dictionary, dtype),
    )
    code = omp(signals, dictionary, sparsity=K)
    coefficients = jnp.where(code.indices == 5, 0, code.coefficients)
    return signals, dictionary, code._replace(coefficients=coefficients)


def test_online_update_equals_algorithm_2_of_mairal_on_decayed_moments(rng, float64):
    statistics, decay = online_statistics(jnp.zeros((M, D))), 0.7
    a, b = np.zeros((M, M)), np.zeros((M, D))
    for _ in range(3):
        signals, dictionary, code = coded_problem(rng, np.float64)
        dense = np.asarray(to_dense(code, M))
        a, b = decay * a + dense.T @ dense, decay * b + dense.T @ np.asarray(signals)
        expected = np.array(dictionary)
        for j in range(M):
            if a[j, j] > 0:
                moved = (b[j] - a[j] @ expected) / a[j, j] + expected[j]
                expected[j] = moved / np.linalg.norm(moved)
        statistics, new = online_update(statistics, signals, dictionary, code, decay=decay)
        np.testing.assert_allclose(statistics.code_moment, a, atol=1e-10)
        np.testing.assert_allclose(statistics.cross_moment, b, atol=1e-10)
        np.testing.assert_allclose(new, expected, atol=1e-10)
    np.testing.assert_array_equal(new[5], dictionary[5])


def test_online_error_falls_when_coding_and_update_take_turns(rng, dtype):
    signals, dictionary, _ = coded_problem(rng, dtype)
    errors = []
    for _ in range(8):
        code = omp(signals, dictionary, sparsity=K)
        errors.append(float(jnp.sum((signals - decode(code, dictionary)) ** 2)))
        _, dictionary = online_update(
            online_statistics(dictionary), signals, dictionary, code, decay=0.0
        )
        assert dictionary.dtype == dtype
    assert errors[-1] < 0.85 * errors[0]
    np.testing.assert_allclose(np.linalg.norm(dictionary, axis=-1), 1, rtol=1e-5)


def test_decay_may_be_traced(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    statistics = online_statistics(dictionary)
    update = jax.jit(lambda d: online_update(statistics, signals, dictionary, code, decay=d))
    update(0.5), update(0.9)
    assert update._cache_size() == 1


def test_the_first_online_update_needs_no_statistics(rng):
    problem = coded_problem(rng, np.float32)
    expected = online_update(online_statistics(problem[1]), *problem, decay=0.9)
    found = online_update(None, *problem, decay=0.9)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("name", ["online", "residual", "ema", *METHODS])
def test_float64_scalars_change_no_dtype_of_a_scan(rng, float64, name):
    signals, dictionary, code = coded_problem(rng, np.float32)
    decay = np.float64(0.9)

    def update(state, _):
        statistics, atoms = state
        if name == "online":
            state = online_update(statistics, signals, atoms, code, decay=decay)
        elif name == "residual":
            state = None, residual_update(signals, atoms, code, learning_rate=decay)
        elif name == "ema":
            code_of_one = nearest_atom(signals, atoms)
            state = ema_update(statistics, signals, code_of_one, decay=decay)
        else:
            state = ksvd_update(statistics, signals, atoms, code, method=name, decay=decay)[:2]
        return state, None

    if name in METHODS:
        empty = ksvd_statistics(dictionary, method=name)
    else:
        empty = {
            "online": online_statistics(dictionary),
            "residual": None,
            "ema": EmaStatistics(jnp.ones(M, np.float32), dictionary),
        }[name]
    state, _ = lax.scan(update, (empty, dictionary), length=2)
    assert {x.dtype for x in jax.tree.leaves(state)} == {np.dtype("float32")}


def test_residual_update_equals_its_formula(rng, dtype):
    signals, dictionary, code = coded_problem(rng, dtype)
    dense = np.asarray(to_dense(code, M))
    residual = np.asarray(signals) - dense @ np.asarray(dictionary)
    uses = np.maximum(np.sum(dense != 0, axis=0), 1)
    expected = np.asarray(dictionary) + 0.3 * dense.T @ residual / uses[:, None]
    new = residual_update(signals, dictionary, code, learning_rate=0.3)
    np.testing.assert_allclose(new, expected, atol=1e-5)
    np.testing.assert_array_equal(new[5], dictionary[5])


def test_leading_axes_do_not_change_the_update(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    shaped = (
        signals.reshape(10, 30, D),
        dictionary,
        SparseCode(*(x.reshape(10, 30, K) for x in code)),
    )
    statistics = online_statistics(dictionary)
    for update in (
        lambda *p: online_update(statistics, *p, decay=0.5)[1],
        lambda *p: residual_update(*p, learning_rate=0.1),
    ):
        np.testing.assert_allclose(update(*shaped), update(signals, dictionary, code), atol=1e-5)


def test_a_signal_that_is_not_finite_takes_no_part(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    broken = signals.at[7].set(jnp.inf)
    rest = jnp.arange(N) != 7
    part = signals[rest], dictionary, SparseCode(*(x[rest] for x in code))
    statistics = online_statistics(dictionary)
    for update in (
        lambda *p: online_update(statistics, *p, decay=0.5),
        lambda *p: residual_update(*p, learning_rate=0.1),
    ):
        got, expected = update(broken, dictionary, code), update(*part)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), got, expected)


def test_bfloat16_signals_keep_float32_statistics(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    statistics, new = online_update(
        online_statistics(dictionary), signals.astype(jnp.bfloat16), dictionary, code, decay=0.5
    )
    assert {x.dtype for x in jax.tree.leaves((statistics, new))} == {np.dtype("float32")}


def test_widths_that_differ_are_named_in_the_error(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    with pytest.raises(ValueError, match=r"\(300, 11\).*\(30, 12\)"):
        residual_update(signals[:, 1:], dictionary, code, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"\(300, 11\).*\(30, 12\)"):
        online_update(online_statistics(dictionary), signals[:, 1:], dictionary, code, decay=0.5)
