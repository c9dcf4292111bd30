import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import coherence, decode, fit_dictionary
from laser_jax.sparse.fit import METHODS, count_iterations

KEY = jax.random.key(0)


def synthetic(seed, snr):
    """The experiment of Aharon, Elad and Bruckstein (2006), section V.A."""
    rng = np.random.default_rng(seed)
    dictionary = rng.normal(size=(50, 20))
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    code = np.zeros((1500, 50))
    for row in code:
        row[rng.choice(50, 3, replace=False)] = rng.normal(size=3)
    signals, noise = code @ dictionary, rng.normal(size=(1500, 20))
    noise *= np.linalg.norm(signals) / np.linalg.norm(noise) * 10 ** (-snr / 20)
    return signals + noise, dictionary


def test_ksvd_recovers_nine_of_ten_atoms_at_20_db():
    recovered = []
    for seed in range(3):
        signals, dictionary = synthetic(seed, snr=20)
        found = fit_dictionary(
            jnp.float32(signals),
            num_atoms=50,
            sparsity=3,
            method="exact",
            iterations=80,
            key=jax.random.key(seed),
        ).dictionary
        recovered.append(np.mean(np.max(np.abs(dictionary @ np.asarray(found).T), -1) > 0.99))
    assert np.mean(recovered) >= 0.9


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_returns_what_belongs_together(method):
    check_fit(method, np.dtype("float32"))


def test_a_dictionary_is_learned_in_float64(float64):
    check_fit("approximate", np.dtype("float64"))


def check_fit(method, dtype):
    signals, _ = synthetic(0, snr=20)
    signals = jnp.asarray(signals[:300].reshape(3, 100, 20), dtype)
    result = fit_dictionary(signals, num_atoms=25, sparsity=3, method=method, iterations=6, key=KEY)
    assert result.errors.shape == (6,)
    assert {x.dtype for x in (result.dictionary, result.code.coefficients)} == {dtype}
    assert result.code.indices.shape == result.code.coefficients.shape == (3, 100, 3)
    assert result.errors[-1] < 0.8 * result.errors[0]
    error = np.mean(np.sum((signals - decode(result.code, result.dictionary)) ** 2, -1))
    np.testing.assert_allclose(result.errors[-1], error, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(result.dictionary, axis=-1), 1, rtol=1e-5)


def test_the_default_method_is_approximate():
    assert inspect.signature(fit_dictionary).parameters["method"].default == "approximate"


def test_a_fit_starts_from_the_dictionary_given():
    signals, _ = synthetic(0, snr=20)
    signals = jnp.float32(signals[:300])
    settings = {"num_atoms": 25, "sparsity": 3, "key": KEY}
    long = fit_dictionary(signals, iterations=6, **settings)
    again = fit_dictionary(signals, iterations=6, dictionary=3 * long.dictionary, **settings)
    assert again.errors[0] <= 1.05 * long.errors[-1]
    np.testing.assert_allclose(np.linalg.norm(again.dictionary, axis=-1), 1, rtol=1e-5)


def test_a_fit_stops_where_the_error_hardly_falls():
    signals, _ = synthetic(0, snr=20)
    signals = jnp.float32(signals[:300])
    settings = {"num_atoms": 25, "sparsity": 3, "key": KEY, "iterations": 6}
    whole, early = (fit_dictionary(signals, tolerance=t, **settings) for t in (0.0, 0.1))
    errors = np.asarray(whole.errors)
    stop = 1 + np.argmax(errors[:-1] - errors[1:] < 0.1 * errors[:-1])
    assert 1 < stop < 5
    np.testing.assert_allclose(early.errors[: stop + 1], errors[: stop + 1], rtol=1e-5)
    np.testing.assert_array_equal(early.errors[stop:], early.errors[stop])
    assert count_iterations(early, 0.1) == stop + 1 and count_iterations(whole, 0.0) == 6
    squares = np.sum((signals - decode(early.code, early.dictionary)) ** 2, -1)
    np.testing.assert_allclose(early.errors[-1], np.mean(squares), rtol=1e-5)


@pytest.mark.parametrize("value, stop", [(0.0, 2), (np.nan, 6)])
def test_a_fit_without_error_stops_and_one_without_finite_signals_has_none(value, stop):
    settings = {"num_atoms": 25, "sparsity": 3, "key": KEY, "iterations": 6, "tolerance": 0.1}
    result = fit_dictionary(np.full((300, 20), value, np.float32), **settings)
    np.testing.assert_array_equal(result.errors, np.full(6, value))
    assert count_iterations(result, 0.1) == stop and count_iterations(result, 0.0) == 6


def test_a_fit_does_not_depend_on_the_scale():
    signals = np.float32(synthetic(0, snr=20)[0][:300])
    settings = {"num_atoms": 25, "sparsity": 3, "key": KEY, "iterations": 6, "tolerance": 0.0}
    plain = fit_dictionary(signals, **settings)
    for scale in np.float32([2.0**-100, 2.0**100]):
        found = fit_dictionary(scale * signals, **settings)
        np.testing.assert_array_equal(found.dictionary, plain.dictionary)
        np.testing.assert_array_equal(found.code.coefficients / scale, plain.code.coefficients)


@pytest.mark.slow
def test_ksvd_on_photo_patches_beats_the_cosine_transform(patches):
    from scipy.fft import dct

    signals = jnp.float32(patches[:2000])
    cosines = dct(np.eye(8), norm="ortho", axis=0)
    best = np.sort((patches[:2000] @ np.kron(cosines, cosines).T) ** 2, -1)[:, :-4].sum(-1).mean()
    result = fit_dictionary(
        signals, num_atoms=64, sparsity=4, method="approximate", iterations=15, key=KEY
    )
    assert result.errors[-1] < 0.8 * best


def test_unused_atoms_are_replaced():
    # Two directions only: of eight atoms at most a few can be in use and incoherent.
    rng = np.random.default_rng(0)
    signals = jnp.float32(rng.normal(size=(200, 2)) @ rng.normal(size=(2, 10)))
    result = fit_dictionary(signals, num_atoms=8, sparsity=1, iterations=10, key=KEY)
    assert np.all(np.isfinite(result.dictionary)) and np.all(np.isfinite(result.errors))
    assert coherence(result.dictionary).max() < 0.9999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "mod"}, "'mod'; choose from approximate, exact, online, parallel"),
        ({"sparsity": 9}, r"\[1, 8\].*got 9"),
        ({"num_atoms": 0}, "num_atoms must be at least 1, got 0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"dictionary": jnp.ones((7, 4))}, r"num_atoms = 8 rows, got \(7, 4\)"),
        ({"dictionary": jnp.ones((8, 3))}, r"\(5, 4\).*\(8, 3\)"),
        ({"tolerance": jnp.ones(2)}, r"tolerance must be a scalar, got shape \(2,\)"),
        ({"signals": jnp.ones((0, 4))}, r"not be empty, got \(0, 4\)"),
        ({"signals": jnp.ones((3, 4), int)}, "floating point, got int32"),
    ],
)
def test_bad_input_is_named_in_the_error(change, message):
    given = {"signals": jnp.ones((5, 4)), "num_atoms": 8, "sparsity": 2, "key": KEY} | change
    with pytest.raises(ValueError, match=message):
        fit_dictionary(given.pop("signals"), **given)
