"""A batch that is computed in parts makes the update of the whole batch."""

import jax
import numpy as np
import pytest

from laser_jax.sharding import put_batch, replicated
from laser_jax.training.gradients import over_parts
from laser_jax.training.loop import train
from laser_jax.training.setup import Setup
from laser_jax.training.state import initial_state
from laser_jax.training.step import TrainStep

# Real coefficients, and atoms that move by their update alone.
SPARSE = {
    "bottleneck": "ksvd", "ksvd_method": "approximate", "sparsity_level": 2,
    "replace_every_steps": 0,
}  # fmt: skip


@pytest.fixture
def config(tiny_config):
    tiny_config.data.update(image_size=16, batch_size=8)
    tiny_config.model.update(num_hiddens=4, num_residual_hiddens=2, num_embeddings=8)
    tiny_config.model.update(bottleneck="vq", embedding_dim=4, replace_every_steps=1)
    tiny_config.optimizer.update(warmup_steps=0, learning_rate=1e-3)
    return tiny_config


def stepped(config, start, parts):
    """Returns the results of one step from a state over two devices."""
    config.optimizer.accumulate_steps = parts
    setup = Setup.from_config(config)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 4, 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    step, batch = TrainStep(setup), put_batch(images, setup.mesh)
    state = jax.device_put(start, replicated(setup.mesh))
    return jax.device_get(step(state, batch, adversarial=setup.adversary is not None))


@pytest.mark.parametrize("changes, adversarial", [
    ({}, 0.5),
    (SPARSE, 0.0),
    pytest.param(
        SPARSE | {"sparse_coder": "rate_distortion", "bit_price": 1e-4, "coefficient_step": 0.05},
        0.0, marks=pytest.mark.slow,
    ),
])  # fmt: skip
def test_update_in_parts_is_that_of_the_whole_batch(changes, adversarial, config):
    config.model.update(changes)
    config.adversarial.update(weight=adversarial, start_step=1, warmup_steps=0, num_hiddens=4)
    start = jax.device_get(initial_state(Setup.from_config(config)))
    whole, again = (stepped(config, start, parts) for parts in (1, 4))
    moved = np.abs(whole[0].dictionary["atoms"] - start.dictionary["atoms"])
    assert np.sum(moved.max(-1) > 1e-4) >= 4  # of 8 atoms
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), whole, again)


def test_parts_keep_the_order_of_rows_and_average_means():
    x = np.arange(12.0).reshape(6, 2)
    for parts in (1, 2, 3):
        mean, rows = over_parts(lambda x: (x.mean(), 2 * x), parts, jax.numpy.asarray(x))
        assert float(mean) == x.mean()
        np.testing.assert_array_equal(rows, 2 * x)


def test_batch_that_does_not_divide_into_parts_raises(config, tmp_path):
    config.optimizer.accumulate_steps = 3
    with pytest.raises(ValueError, match="devices, 2, times optimizer.accumulate_steps 3, got 8"):
        train(config, tmp_path / "run")
