import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from laser_jax.models.layers import DownConv, ResidualStack, UpConv

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def strided_convolution(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=DIMENSIONS
    )


def transposed_convolution(x, kernel):
    """The gradient's form: output pixel o takes input i with tap o - 2 i + 1."""
    return lax.conv_general_dilated(
        x, kernel[::-1, ::-1], (1, 1), [(2, 2), (2, 2)], lhs_dilation=(2, 2),
        dimension_numbers=DIMENSIONS,
    )  # fmt: skip


@pytest.mark.parametrize(
    "layer, plain", [(DownConv, strided_convolution), (UpConv, transposed_convolution)]
)
@pytest.mark.parametrize("shape", [(2, 8, 12, 3), (1, 2, 2, 5)])
def test_fast_convolution_is_the_plain_one_with_equal_gradients(layer, plain, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    module = layer(7)
    params = module.init(jax.random.key(1), x)["params"]
    params["bias"] = jax.random.normal(jax.random.key(2), (7,))

    def fast_sum(x, params):
        return jnp.sum(jnp.sin(module.apply({"params": params}, x)))

    def plain_sum(x, params):
        return jnp.sum(jnp.sin(plain(x, params["kernel"]) + params["bias"].reshape(1, 1, 1, -1)))

    both = (jax.jit(jax.value_and_grad(f, argnums=(0, 1))) for f in (fast_sum, plain_sum))
    fast, plain = (f(x, params) for f in both)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), fast, plain)


def test_transposed_convolution_is_the_strided_ones_transpose():
    x, y = jax.random.normal(jax.random.key(0), (1, 8, 6, 3)), jnp.ones((1, 4, 3, 5))
    down = DownConv(5)
    params = down.init(jax.random.key(1), x)["params"]
    _, transpose = jax.vjp(lambda x: down.apply({"params": params}, x), x)
    up_params = {"kernel": params["kernel"].swapaxes(2, 3), "bias": jnp.zeros(3)}
    np.testing.assert_allclose(
        UpConv(3).apply({"params": up_params}, y), transpose(y)[0], atol=1e-5
    )


def test_a_layer_keeps_the_scale_of_its_input():
    x = jax.random.normal(jax.random.key(0), (8, 32, 32, 32))
    for module in (DownConv(64), UpConv(64)):
        out, _ = module.init_with_output(jax.random.key(1), x)
        assert 0.8 < float(jnp.std(out)) < 1.25


def test_residual_stack_ends_in_relu_and_is_the_identity_without_blocks():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    out, _ = ResidualStack(0, 3).init_with_output(jax.random.key(1), x)
    np.testing.assert_array_equal(out, jnp.maximum(x, 0))
    out, variables = ResidualStack(2, 3).init_with_output(jax.random.key(1), x)
    assert out.shape == x.shape and float(out.min()) >= 0
    assert len(jax.tree.leaves(variables["params"])) == 4
