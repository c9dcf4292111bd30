import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.models import Autoencoder, FiniteScalarQuantizer
from laser_jax.sparse import SparseCode, perplexity, usage


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


def test_gradient_is_that_of_the_squashing_without_rounding(applied):
    model, variables, latents, _ = applied
    grads = jax.grad(lambda z: jnp.sum(model.apply(variables, z).approximation))(latents)
    squashed = jax.grad(lambda z: jnp.sum(model._squash(z) / model._half_widths))(latents)
    np.testing.assert_allclose(grads, squashed, rtol=1e-5)
    assert np.all(np.asarray(grads) >= 0)  # tanh saturates


def test_bits_are_those_of_the_grid():
    assert FiniteScalarQuantizer(levels=(8, 4, 2)).bits_per_signal(16) == 6


def test_indices_number_every_code_once():
    model = FiniteScalarQuantizer(levels=(8, 5, 2))
    indices = jnp.arange(80).reshape(2, 8, 5)
    code = model.from_indices(indices)
    np.testing.assert_array_equal(model.to_indices(code), indices)
    assert len(np.unique(code.coefficients.reshape(80, 3), axis=0)) == model.num_codes == 80
    # As in the paper: the first channel counts fastest, each from its smallest value.
    np.testing.assert_allclose(code.coefficients[0, 0, :2], [[-1, -1, -1], [-0.75, -1, -1]])


def test_indices_of_a_coded_image_decode_to_its_code(applied):
    model, _, _, output = applied
    decoded = model.from_indices(model.to_indices(output.code))
    np.testing.assert_array_equal(decoded.indices, output.code.indices)
    np.testing.assert_allclose(decoded.coefficients, output.code.coefficients, atol=1e-6)


def test_use_is_counted_over_all_codes(applied):
    model, variables, _, output = applied
    points, counts = np.unique(
        np.asarray(output.code.coefficients).reshape(-1, 3), axis=0, return_counts=True
    )
    uses = usage(model.entries(output.code), model.num_entries)
    assert uses.shape == (80,)
    np.testing.assert_array_equal(np.sort(uses[uses > 0]), np.sort(counts))
    shares = counts / counts.sum()
    np.testing.assert_allclose(perplexity(uses), np.exp(-np.sum(shares * np.log(shares))), 1e-5)
    share = model.share_in_use(variables["dictionary"], output.code)
    np.testing.assert_allclose(share, len(points) / 80, 1e-6)


@pytest.mark.parametrize(
    "levels, entries", [((8, 5, 5, 5), 1000), ((16,) * 8, 16**5), ((2**21, 2), 1)]
)
def test_table_of_uses_is_bounded(levels, entries):
    model = FiniteScalarQuantizer(levels=levels)
    assert model.num_entries == entries
    values = jnp.linspace(-1, 1, 2 * len(levels)).reshape(1, 1, 2, -1)
    code = SparseCode(jnp.zeros(values.shape, jnp.int32), values)
    uses = usage(model.entries(code), model.num_entries)
    assert uses.shape == (entries,) and float(jnp.sum(uses)) == 2


def test_more_codes_than_int32_has_are_no_indices():
    model = FiniteScalarQuantizer(levels=(16,) * 8)
    code = SparseCode(jnp.zeros((1, 1, 1, 8), jnp.int32), jnp.zeros((1, 1, 1, 8)))
    with pytest.raises(ValueError, match="4294967296 codes, more than 2.31"):
        model.to_indices(code)


def test_fsq_works_in_an_autoencoder():
    model = Autoencoder(bottleneck=FiniteScalarQuantizer(levels=(8, 5, 5, 5)), num_hiddens=8)
    images = jnp.zeros((1, 32, 32, 3))
    output = jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0]
    assert output.code.indices.shape == (1, 8, 8, 4)


@pytest.mark.parametrize("levels", [(), (8, 1), (8, 2.5)])
def test_invalid_levels_raise(levels):
    with pytest.raises(ValueError, match="levels"):
        FiniteScalarQuantizer(levels=levels)
