import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse.penalties import coefficient_l1, coefficient_rate, coherence_penalty


def test_coefficient_l1_is_the_mean_norm_of_a_signal():
    assert coefficient_l1(jnp.array([[[1.0, -2.0]], [[0.5, 0.0]]])) == pytest.approx(1.75)


def test_coefficient_rate_is_the_mean_logarithm_of_a_signals_levels():
    coefficients = jnp.array([[0.5, -1.5, 0.0], [3.5, 0.0, 0.0]])  # log2 of 2, 4 and 8
    assert coefficient_rate(coefficients, 0.5) == pytest.approx((1 + 2 + 3) / 2)
    spoilt = coefficients.at[1, 0].set(jnp.nan)
    assert coefficient_rate(spoilt, 0.5) == pytest.approx(3)


def test_coherence_penalty_of_known_dictionaries():
    np.testing.assert_allclose(coherence_penalty(3 * jnp.eye(5)), 0, atol=1e-12)
    assert coherence_penalty(jnp.ones((4, 3))) == pytest.approx(1)
    # The simplex: d + 1 vectors whose cosines are all -1 / d, which is Welch's bound.
    d = 6
    simplex = jnp.eye(d + 1) - 1 / (d + 1)
    assert coherence_penalty(simplex) == pytest.approx(1 / d**2, rel=1e-5)


def test_coherence_penalty_ignores_norms_and_survives_a_zero_atom():
    atoms = jnp.asarray(np.random.default_rng(0).normal(size=(7, 4)), jnp.float32)
    scaled = atoms * jnp.arange(1, 8.0)[:, None]
    np.testing.assert_allclose(coherence_penalty(scaled), coherence_penalty(atoms), rtol=1e-5)
    assert jnp.isfinite(coherence_penalty(atoms.at[0].set(0)))
