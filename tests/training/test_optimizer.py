import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.training.setup import Setup


def first_updates(config, scale=1.0):
    """Returns the first updates of both groups for a gradient of `scale` everywhere."""
    optimizer = Setup.from_config(config).optimizer
    params, atoms = {"w": jnp.ones(3)}, jnp.ones((2, 3))
    grads = jax.tree.map(lambda x: scale * jnp.ones_like(x), (params, atoms))
    state = optimizer.init(params, atoms)
    # The warm-up starts at a rate of 0, so the second step is the first that changes anything.
    for _ in range(2):
        new_params, new_atoms, state = optimizer.update(grads, state, params, atoms)
    return new_params["w"] - 1, new_atoms - 1


def test_doubled_dictionary_weight_doubles_the_update_of_the_atoms(tiny_config):
    tiny_config.model.bottleneck = "dl"
    network, atoms = first_updates(tiny_config)
    tiny_config.model.dictionary_weight = 2.0
    network_2, atoms_2 = first_updates(tiny_config)
    np.testing.assert_allclose(atoms_2, 2 * atoms, rtol=1e-3)
    np.testing.assert_array_equal(network_2, network)


def test_atoms_have_no_weight_decay_and_no_gradient_clipping(tiny_config):
    tiny_config.model.bottleneck = "dl"
    tiny_config.optimizer.weight_decay = 0.5
    tiny_config.optimizer.grad_clip_norm = 1e-6
    network, atoms = first_updates(tiny_config, scale=100.0)
    rate = tiny_config.optimizer.learning_rate / tiny_config.optimizer.warmup_steps
    np.testing.assert_allclose(atoms, -rate, rtol=1e-3)
    np.testing.assert_allclose(network, -1.5 * rate, rtol=2e-2)


def test_warm_up_longer_than_the_run_raises(tiny_config):
    tiny_config.optimizer.warmup_steps = 40
    with pytest.raises(ValueError, match=r"in \[0, 40\) \(num_train_steps\), got 40"):
        _ = Setup.from_config(tiny_config).optimizer


def rates(config, *lengths):
    schedule = Setup.from_config(config).with_lengths(lengths or None).optimizer.schedule
    return np.array(schedule(jnp.arange(lengths[-1][1] + 1 if lengths else 41)))


@pytest.mark.parametrize("steps", [21, 30, 60, 400])
@pytest.mark.parametrize("change", [3, 20, 39])
def test_changed_length_stretches_the_remaining_schedule_without_a_jump(change, steps, tiny_config):
    if steps <= change:
        return
    plain, found = rates(tiny_config), rates(tiny_config, (0, 40), (change, steps))
    np.testing.assert_allclose(found[: change + 1], plain[: change + 1], rtol=1e-5, atol=1e-8)
    assert found[-1] == pytest.approx(0, abs=1e-8)
    # A step at some fraction of the new rest has the rate at that fraction of the old rest.
    share = (np.arange(change, steps + 1) - change) / (steps - change)
    expected = np.interp(change + share * (40 - change), np.arange(41), plain)
    np.testing.assert_allclose(found[change:], expected, atol=2e-4)


def test_unchanged_length_leaves_the_schedule_bit_identical(tiny_config):
    plain = rates(tiny_config)
    again = [(0, 40), (30, 25), (30, 40)]
    for lengths in ([(0, 40)], [(0, 40), (20, 40)], [(0, 60), (0, 40)], again):
        np.testing.assert_array_equal(rates(tiny_config, *lengths), plain)


def test_extended_finished_run_repeats_the_schedule_over_the_added_steps(tiny_config):
    plain, found = rates(tiny_config), rates(tiny_config, (0, 40), (40, 80))
    np.testing.assert_allclose(found, [*plain, *plain[1:]], rtol=1e-4, atol=1e-7)
    assert found[40] == pytest.approx(0, abs=1e-8)
    few = rates(tiny_config, (0, 40), (40, 42))  # shorter than the warm-up
    assert few[41] > 0.1 * plain.max() and few[42] == pytest.approx(0, abs=1e-8)


def test_repeated_changes_of_length_have_no_jump(tiny_config):
    found = rates(tiny_config, (0, 40), (20, 80), (50, 60), (60, 100), (90, 95))
    assert np.max(np.abs(np.diff(found))) <= 1.01 * tiny_config.optimizer.learning_rate / 5
    assert found[20] > 0 and found[50] > 0
    np.testing.assert_allclose(found[[60, 95]], 0, atol=1e-8)
    # A run that fell back to a checkpoint before a change, and changes there.
    np.testing.assert_array_equal(
        rates(tiny_config, (0, 40), (20, 80), (10, 60)), rates(tiny_config, (0, 40), (10, 60))
    )
