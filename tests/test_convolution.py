"""Convolutions: the numbers of XLA's own, in the forms that XLA computes fast on CPUs."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from configs import vqgan_imagenette, vqvae_photos
from laser_jax.convolution import (
    DIMENSIONS,
    Dense,
    convolve,
    convolve_cells,
    convolve_transpose,
    relu,
)
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state
from laser_jax.training.step import TrainStep

FAST = "b01f_01io->b01f"
SMALL = {
    "data.batch_size": 4, "data.image_size": 32, "model.num_hiddens": 8,
    "model.num_embeddings": 16, "model.dtype": "float32", "loss.perceptual_weight": 0.1,
    "loss.perceptual_net": "alex", "adversarial.weight": 0.1, "adversarial.num_hiddens": 4,
}  # fmt: skip
# size, window, stride, padding, channels, features
CASES = [
    ((8, 8), 3, 1, "SAME", 3, 5), ((8, 6), 3, 1, "SAME", 5, 3), ((8, 8), 1, 1, "VALID", 3, 5),
    ((6, 9), 3, 1, ((0, 2), (1, 1)), 5, 4), ((6, 9), 3, 1, ((2, 1), (0, 1)), 5, 4),
    ((8, 8), 2, 1, ((1, 1), (1, 1)), 4, 8), ((9, 9), 2, 1, "VALID", 8, 4),
    ((9, 7), 3, 2, ((0, 1), (0, 1)), 3, 5), ((9, 7), 3, 2, ((0, 1), (1, 0)), 17, 5),
    ((16, 12), 4, 2, ((1, 1), (1, 1)), 3, 5), ((16, 12), 4, 2, ((1, 1), (1, 1)), 20, 5),
    ((31, 29), 11, 4, ((2, 2), (2, 2)), 3, 5), ((12, 10), 5, 3, "VALID", 20, 5),
    ((13, 11), 3, 2, "SAME", 3, 5), ((5, 4), 2, 3, "VALID", 3, 5), ((6, 5), 1, 2, "VALID", 3, 4),
]  # fmt: skip


def arrays(size, window, channels, features):
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.normal(size=(2, *size, channels)),
        rng.normal(size=(window, window, channels, features)),
    )
    return jnp.float32(x), jnp.float32(kernel) / window


def functions(stride, padding):
    def new(x, kernel):
        return convolve(x, kernel, (stride, stride), padding)

    def plain(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
        )

    return new, plain


def assert_close(found, expected):
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-4 * max(1, np.abs(old).max()))


@pytest.mark.parametrize("size, window, stride, padding, channels, features", CASES)
def test_values_and_derivatives_are_those_of_xla(size, window, stride, padding, channels, features):
    x, kernel = point = arrays(size, window, channels, features)
    new, plain = functions(stride, padding)
    assert ("custom_jvp" in str(jax.make_jaxpr(new)(*point))) == (jax.default_backend() == "cpu")

    def derivatives(function):
        y, backward = jax.vjp(function, *point)
        forward = jax.jvp(function, point, (jnp.cos(x), jnp.cos(kernel)))[1]
        return y, backward(jnp.sin(y)), forward

    assert_close(jax.jit(derivatives, static_argnums=0)(new), derivatives(plain))


def test_windows_and_strides_of_two_sizes_and_bfloat16():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 14, 9, 18)), rng.normal(size=(3, 2, 18, 4))
    for strides in ((1, 1), (2, 3)):
        for dtype in (jnp.float32, jnp.bfloat16):
            point = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)

            def derivatives(function, point=point, strides=strides):
                y, backward = jax.vjp(lambda *p: function(*p, strides, ((1, 0), (0, 1))), *point)
                return y, backward(jnp.ones_like(y))

            found = derivatives(convolve)
            expected = derivatives(
                functools.partial(lax.conv_general_dilated, dimension_numbers=DIMENSIONS)
            )
            for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
                assert new.dtype == old.dtype == dtype
                np.testing.assert_allclose(
                    np.float32(new), np.float32(old),
                    atol=(2e-2 if dtype == jnp.bfloat16 else 1e-4) * np.abs(old).max(),
                )  # fmt: skip


def test_empty_results_have_the_derivatives_of_xla():
    x, kernel = jnp.ones((1, 3, 8, 2)), jnp.ones((5, 5, 2, 3))
    y, backward = jax.vjp(lambda x, k: convolve(x, k, (2, 2), "VALID"), x, kernel)
    assert y.shape == (1, 0, 2, 3) and not any(np.any(g) for g in backward(y))


def test_second_derivatives_and_batches_of_kernels_are_those_of_xla():
    point = arrays((8, 6), 3, 5, 4)

    def derivatives(function):
        def gradient(x, kernel):
            return jax.grad(lambda *p: jnp.sum(jnp.sin(function(*p))), (0, 1))(x, kernel)

        batch = jax.tree.map(lambda x: jnp.stack([x, x / 2]), point)
        return jax.jvp(gradient, point, point), jax.vmap(gradient)(*batch)

    new, plain = functions(1, "SAME")
    assert_close(derivatives(new), derivatives(plain))


def test_cells_give_the_convolution_and_its_transpose():
    for size, window, stride, padding, channels, features in CASES:
        if isinstance(padding, str):
            continue
        x, kernel = arrays(size, window, channels, features)
        _, plain = functions(stride, padding)
        y, backward = jax.vjp(lambda x, k=kernel: plain(x, k), x)  # noqa: B023
        strides = stride, stride
        assert_close(convolve_cells(x, kernel, strides, padding), y)
        assert_close(convolve_transpose(y, kernel, strides, padding, size), backward(y)[0])


def test_dense_layers_are_those_of_flax():
    x = jnp.sin(jnp.arange(120.0)).reshape(2, 3, 4, 5)
    layers = Dense(7), nn.Dense(7)
    params = layers[1].init(jax.random.key(0), x)

    def loss(layer, params, x):
        return jnp.sum(jnp.sin(layer.apply(params, x)))

    new, plain = (jax.value_and_grad(loss, (1, 2))(layer, params, x) for layer in layers)
    assert_close(new, plain)


def test_relu_and_its_gradient_are_those_of_jax():
    x = jnp.array([-1.0, -0.0, 0.0, 2.0, jnp.inf, -jnp.inf, jnp.nan])
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    np.testing.assert_array_equal(
        jax.vmap(jax.grad(relu))(x[:-1]), jax.vmap(jax.grad(jax.nn.relu))(x[:-1])
    )
    assert relu(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("config, changes", [
    (vqvae_photos, {}),
    pytest.param(vqgan_imagenette, {
        "model.channel_multipliers": (1, 2), "model.num_downsamples": 1,
        "model.num_residual_blocks": 1, "model.attention_levels": (1,),
    }, marks=pytest.mark.slow),
])  # fmt: skip
def test_no_convolution_of_a_step_is_left_to_scalar_loops(config, changes, parts):
    if jax.default_backend() != "cpu":
        pytest.skip("of XLA for CPUs")
    config = config.get_config()
    config.update_from_flattened_dict(SMALL | changes | {"optimizer.accumulate_steps": parts})
    setup, images = Setup.from_config(config), jax.ShapeDtypeStruct((4, 32, 32, 3), np.uint8)
    step = TrainStep(setup).lower(abstract_state(setup), images, adversarial=True)
    lines = [line for line in step.compile().as_text().splitlines() if " convolution(" in line]
    axes = [re.search(r"dim_labels=([^\s,]+)", line).group(1) for line in lines]
    assert len(axes) > 30 and set(axes) == {FAST}
