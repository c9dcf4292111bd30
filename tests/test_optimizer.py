import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.optimizer import build_optimizer


def first_updates(config, scale=1.0):
    """The first step of both groups, for a gradient of `scale` everywhere."""
    optimizer = build_optimizer(config, learns_by_gradient=True)
    params, atoms = {"w": jnp.ones(3)}, jnp.ones((2, 3))
    grads = jax.tree.map(lambda x: scale * jnp.ones_like(x), (params, atoms))
    state = optimizer.init(params, atoms)
    # The warm-up starts at a rate of 0, so the second step is the first to move.
    for _ in range(2):
        new_params, new_atoms, state = optimizer.update(grads, state, params, atoms)
    return new_params["w"] - 1, new_atoms - 1


def test_twice_the_dictionary_weight_is_twice_the_dictionary_update(tiny_config):
    tiny_config.model.bottleneck = "dl"
    network, atoms = first_updates(tiny_config)
    tiny_config.model.dictionary_weight = 2.0
    network_2, atoms_2 = first_updates(tiny_config)
    np.testing.assert_allclose(atoms_2, 2 * atoms, rtol=1e-3)
    np.testing.assert_array_equal(network_2, network)


def test_atoms_get_no_weight_decay_and_no_clipping(tiny_config):
    tiny_config.optimizer.weight_decay = 0.5
    tiny_config.optimizer.grad_clip_norm = 1e-6
    network, atoms = first_updates(tiny_config, scale=100.0)
    rate = tiny_config.optimizer.learning_rate / tiny_config.optimizer.warmup_steps
    np.testing.assert_allclose(atoms, -rate, rtol=1e-3)
    np.testing.assert_allclose(network, -1.5 * rate, rtol=2e-2)


def test_warm_up_longer_than_the_run_is_refused(tiny_config):
    tiny_config.optimizer.warmup_steps = 40
    with pytest.raises(ValueError, match=r"in \[0, 40\) \(num_train_steps\), got 40"):
        build_optimizer(tiny_config, learns_by_gradient=False)
