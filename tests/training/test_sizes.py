"""Runs on images that are no squares."""

import functools

import jax
import numpy as np
import pytest

from laser_jax.models import build_model
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state
from laser_jax.training.step import TrainStep
from laser_jax.training.workdir import read_config, write_config


def test_step_of_rectangles_has_their_shapes(tiny_config, tmp_path):
    tiny_config.data.image_size = (16, 32)
    tiny_config.adversarial.update(weight=1.0, start_step=20, warmup_steps=5, num_hiddens=8)
    setup = Setup.from_config(tiny_config)
    images = jax.ShapeDtypeStruct((16, 16, 32, 3), np.uint8)
    step = functools.partial(TrainStep(setup), adversarial=True)
    _, _, found = jax.eval_shape(step, abstract_state(setup), images)
    assert found.shape == images.shape
    write_config(tmp_path, tiny_config)
    assert read_config(tmp_path).data.image_size == (16, 32)


@pytest.mark.parametrize("size, message", [
    ((16, 30), r"image size \(16, 30\) .* not divisible by the downsampling 4"),
    ((16, 40), "latent grid 4x10 is not divisible by patch_size 4x4"),
])  # fmt: skip
def test_sides_that_do_not_divide_raise(tiny_config, size, message):
    tiny_config.data.image_size, tiny_config.model.patch_size = size, 4
    with pytest.raises(ValueError, match=message):
        build_model(tiny_config)
