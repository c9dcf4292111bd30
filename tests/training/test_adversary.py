"""The adversarial term: the steps it is active in, its adaptive weight, its discriminator."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from laser_jax.training.adversary import build_adversary


@pytest.fixture
def config(tiny_config):
    tiny_config.adversarial.update(weight=0.5, start_step=21, warmup_steps=10, num_hiddens=8)
    return tiny_config


@pytest.fixture
def images():
    smooth = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3))
    return jnp.asarray(smooth.repeat(4, 1).repeat(4, 2), jnp.float32)


def test_adversary_is_off_by_default(tiny_config):
    assert build_adversary(tiny_config) is None


def test_adversary_is_active_from_the_start_of_its_warm_up(config):
    assert next(step for step in range(1, 41) if build_adversary(config).is_active(step)) == 11


def test_discriminator_has_one_logit_per_patch(config, images):
    adversary = build_adversary(config)
    params = jax.eval_shape(adversary.init, jax.random.key(0), images)["params"]
    logits = jax.eval_shape(adversary.discriminator.apply, {"params": params}, images)
    assert logits.shape == (8, 8, 8, 1)


@pytest.mark.parametrize("step, growth", [(11, 0), (20, 0), (21, 0.1), (30, 1), (40, 1)])
def test_gradient_norm_at_the_last_layer_is_weight_times_that_of_the_other_losses(
    config, images, step, growth
):
    adversary = build_adversary(config)
    state = jax.jit(adversary.init)(jax.random.key(0), images)
    image_grad = jax.random.normal(jax.random.key(1), images.shape)
    norm = lambda grad: optax.global_norm(100 * jnp.sum(grad, axis=(1, 2)))  # noqa: E731
    _, grad = jax.jit(adversary.generator_loss)(state, images)
    weight = adversary.term_weight(step, norm(image_grad), norm(grad))
    np.testing.assert_allclose(norm(weight * grad), 0.5 * growth * norm(image_grad), rtol=1e-2)
    assert (weight > 0) == (growth > 0)


def test_discriminator_learns_to_distinguish_noisy_images(config, images):
    config.adversarial.learning_rate = 2e-3
    adversary = build_adversary(config)
    state = adversary.init(jax.random.key(0), images)
    noisy = images + 0.3 * jax.random.normal(jax.random.key(1), images.shape)
    update, losses = jax.jit(adversary.update), []
    for _ in range(60):
        state, loss = update(state, images, noisy)
        losses.append(float(loss))
    assert losses[0] > 0.8 and losses[-1] < 0.5


def test_inconsistent_values_raise(config):
    config.adversarial.warmup_steps = 21
    with pytest.raises(ValueError, match="must hold, got 21, 21 and 40"):
        build_adversary(config)
    config.adversarial.warmup_steps = 10
    config.adversarial.num_downsamples = 6
    with pytest.raises(ValueError, match=r"image size 32 .*2\^adversarial.num_downsamples"):
        build_adversary(config)
    config.adversarial.weight = -1.0
    with pytest.raises(ValueError, match="adversarial.weight must not be negative, got -1"):
        build_adversary(config)
