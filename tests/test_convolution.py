"""Convolutions inside loops: the same numbers, in the form that XLA computes fast on CPUs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import vqgan_imagenette, vqvae_photos
from laser_jax.convolution import convolve, inside_loop
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state
from laser_jax.training.step import TrainStep

FAST = "b01f_01io->b01f"
SMALL = {
    "data.batch_size": 4, "optimizer.accumulate_steps": 2, "data.image_size": 32,
    "model.num_hiddens": 8, "model.num_embeddings": 16, "model.dtype": "float32",
    "loss.perceptual_weight": 0.1, "loss.perceptual_net": "alex", "adversarial.weight": 0.1,
    "adversarial.num_hiddens": 4,
}  # fmt: skip


@pytest.mark.parametrize("size, window, stride, padding", [
    ((8, 8), 3, 1, "SAME"), ((9, 7), 3, 2, ((0, 1), (0, 1))), ((16, 12), 4, 2, ((1, 1), (1, 1))),
    ((31, 29), 11, 4, ((2, 2), (2, 2))), ((8, 8), 1, 1, "VALID"), ((12, 10), 5, 3, "VALID"),
    ((13, 11), 3, 2, "SAME"), ((5, 4), 2, 3, "VALID"),
])  # fmt: skip
def test_gradients_inside_a_loop_are_those_of_xla(size, window, stride, padding):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *size, 3)), rng.normal(size=(window, window, 3, 5))
    x, kernel = jnp.float32(x), jnp.float32(kernel)

    def apply(x, kernel):
        return convolve(x, kernel, (stride, stride), padding)

    y, backward = jax.vjp(apply, x, kernel)
    grad = jnp.float32(rng.normal(size=y.shape))
    with inside_loop():
        assert "custom_vjp" in str(jax.make_jaxpr(apply)(x, kernel))
        found, found_backward = jax.vjp(apply, x, kernel)
    for new, expected in zip((found, *found_backward(grad)), (y, *backward(grad)), strict=True):
        np.testing.assert_allclose(new, expected, atol=1e-4)


@pytest.mark.parametrize("config, changes", [
    (vqvae_photos, {}),
    pytest.param(vqgan_imagenette, {
        "model.channel_multipliers": (1, 2), "model.num_downsamples": 1,
        "model.num_residual_blocks": 1, "model.attention_levels": (1,),
    }, marks=pytest.mark.slow),
])  # fmt: skip
def test_no_convolution_of_an_accumulated_step_is_left_to_scalar_loops(config, changes):
    if jax.default_backend() != "cpu":
        pytest.skip("of XLA for CPUs")
    config = config.get_config()
    config.update_from_flattened_dict(SMALL | changes)
    setup, images = Setup.from_config(config), jax.ShapeDtypeStruct((4, 32, 32, 3), np.uint8)
    step = TrainStep(setup).lower(abstract_state(setup), images, adversarial=True)
    lines = [line for line in step.compile().as_text().splitlines() if " convolution(" in line]
    axes = [re.search(r"dim_labels=([^\s,]+)", line).group(1) for line in lines]
    assert len(axes) > 30 and set(axes) == {FAST}
