"""One step over one and two devices, and batches over them."""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax import sharding
from laser_jax.sharding import check_batch_size, data_mesh, put_batch, replicated
from laser_jax.training.setup import Setup
from laser_jax.training.state import init_dictionary, initial_state
from laser_jax.training.step import TrainStep


def first_step(config, devices):
    """Returns the results of one step over the first devices."""
    setup = Setup.from_config(config, data_mesh(jax.devices()[:devices]))
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 256, (4, 16, 8, 8, 3)), 4, 2), 4, 3)
    images = iter(smooth.astype(np.uint8))
    state = init_dictionary(setup, initial_state(setup), images)
    return TrainStep(setup)(state, put_batch(smooth[0].astype(np.uint8), setup.mesh))


@pytest.mark.parametrize(  # make faults: all, on 8 devices too
    "bottleneck", ["ksvd", pytest.param("vq", marks=pytest.mark.slow)]
)
def test_step_on_two_devices_equals_that_on_one_and_both_hold_the_same_state(
    tiny_config, bottleneck
):
    tiny_config.model.bottleneck = bottleneck
    (one, metrics_1, _), (two, metrics_2, images) = (first_step(tiny_config, n) for n in (1, 2))
    np.testing.assert_allclose(metrics_1["loss"], metrics_2["loss"], rtol=1e-5)
    np.testing.assert_allclose(one.dictionary["atoms"], two.dictionary["atoms"], atol=1e-4)
    assert len(images.sharding.device_set) == 2 and not images.is_fully_replicated
    for array in jax.tree.leaves(two):
        a, b = (np.asarray(shard.data) for shard in array.addressable_shards)
        np.testing.assert_array_equal(a, b)


def test_step_is_deterministic(tiny_config):
    tiny_config.model.replace_every_steps = 1
    first, again = (first_step(tiny_config, 2) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_batch_is_split_in_order():
    mesh = data_mesh()
    batch = put_batch(np.arange(8).reshape(4, 2), mesh)
    halves = [np.asarray(shard.data) for shard in batch.addressable_shards]
    np.testing.assert_array_equal(np.concatenate(halves), batch)
    assert batch.sharding.spec == jax.sharding.PartitionSpec("data")
    assert jnp.sum(jax.device_put(batch, replicated(mesh))) == 28


def test_batch_size_not_divisible_by_the_devices_raises():
    with pytest.raises(ValueError, match="data.batch_size must be a positive multiple .*2, got 3"):
        check_batch_size("data.batch_size", 3, data_mesh())


@pytest.fixture
def job(monkeypatch):
    """A function that calls `initialize_distributed` with environment variables set.

    It returns the options of each call of `jax.distributed.initialize`.
    """
    calls = []

    def call(initialize, **variables):
        for name in list(os.environ):
            if name.startswith(("SLURM_", "OMPI_", "JAX_COORD", "JAX_NUM_PROC", "JAX_PROCESS_ID")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

        def record(**options):
            calls.append(options)
            initialize()

        monkeypatch.setattr(jax.distributed, "initialize", record)
        sharding.initialize_distributed()
        return calls

    return call


def nothing_detected():
    raise ValueError("coordinator_address should be defined.")


def test_jax_detects_whether_there_is_a_job(job):
    (options,) = job(lambda: None)  # as on a TPU VM, detected by the metadata server
    assert options["num_processes"] is options["process_id"] is None
    job(nothing_detected)  # alone
    job(nothing_detected, SLURM_JOB_ID="1", SLURM_STEP_NODELIST="a")


def test_one_process_can_run_without_its_job(job):
    assert job(nothing_detected, SLURM_NTASKS="4", JAX_NUM_PROCESSES="1") == []


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS=a:1: .* together"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES=2: .* together.*JAX_NUM_PROCESSES=1"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID: invalid literal"),
    ],
)
def test_incomplete_variables_of_a_job_are_named(variables, message, job):
    with pytest.raises(ValueError, match=message):
        job(nothing_detected, **variables)


def test_wait_for_other_processes_is_logged_with_timeout_and_remedy(job, monkeypatch, caplog):
    monkeypatch.setattr(sharding, "_LOG_AFTER", 0.01)
    caplog.set_level("INFO", "laser_jax")

    def wait():
        for _ in range(500):
            if caplog.text:
                raise RuntimeError("DEADLINE_EXCEEDED")
            time.sleep(0.01)

    with pytest.raises(OSError, match="did not connect: DEADLINE_EXCEEDED\n.*JAX_NUM_PROCESSES=1"):
        job(wait, SLURM_NTASKS="4")
    assert (
        "waiting for the other processes of this job (SLURM_NTASKS=4), at most 300 s" in caplog.text
    )
    assert "JAX_NUM_PROCESSES=1" in caplog.text
