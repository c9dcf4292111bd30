import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.models import Autoencoder, FiniteScalarQuantizer


@pytest.fixture
def applied():
    levels = (8, 5, 2)
    model = FiniteScalarQuantizer(levels=levels)
    latents = 4 * jax.random.normal(jax.random.key(0), (40, 6, 6, 3))
    variables = model.init(jax.random.key(1), latents)
    return model, variables, latents, model.apply(variables, latents)


def test_every_channel_takes_all_its_values_and_no_other(applied):
    model, _, _, output = applied
    for channel, levels in enumerate(model.levels):
        values = np.unique(np.asarray(output.code.coefficients[..., channel]))
        expected = (np.arange(levels) - levels // 2) / (levels // 2)
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_the_code_decodes_to_the_approximation(applied):
    model, variables, _, output = applied
    decoded = model.decode(variables["dictionary"]["atoms"], output.code)
    np.testing.assert_allclose(decoded, output.approximation, atol=1e-6)
    assert float(output.loss) == 0


def test_the_nearest_value_is_taken():
    model = FiniteScalarQuantizer(levels=(5,))
    latents = jnp.array([0.0, 0.2, 0.3, 5.0, -5.0])[None, None, :, None]
    variables = model.init(jax.random.key(0), latents)
    found = model.apply(variables, latents).code.coefficients.ravel()
    # Squashed: 2.002 tanh(z) = 0, 0.395, 0.583, 2, -2.
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, -1])


def test_gradients_pass_through_the_rounding_as_the_squashing_has_them(applied):
    model, variables, latents, _ = applied
    grads = jax.grad(lambda z: jnp.sum(model.apply(variables, z).approximation))(latents)
    squashed = jax.grad(lambda z: jnp.sum(model._squash(z) / model._half_widths))(latents)
    np.testing.assert_allclose(grads, squashed, rtol=1e-5)
    assert np.all(np.asarray(grads) >= 0)  # tanh saturates


def test_bits_are_those_of_the_grid():
    assert FiniteScalarQuantizer(levels=(8, 4, 2)).bits_per_signal(16) == 6


def test_it_stands_in_an_autoencoder():
    model = Autoencoder(bottleneck=FiniteScalarQuantizer(levels=(8, 5, 5, 5)), num_hiddens=8)
    images = jnp.zeros((1, 32, 32, 3))
    output = jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0]
    assert output.code.indices.shape == (1, 8, 8, 4)


@pytest.mark.parametrize("levels", [(), (8, 1), (8, 2.5)])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(ValueError, match="levels"):
        FiniteScalarQuantizer(levels=levels)
