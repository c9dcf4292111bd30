"""The program as a user starts it, in processes of its own."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import laser_jax
from laser_jax.checkpoint import Checkpoints
from laser_jax.stopping import WorkdirInUse, hold

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def compiled_as_for_users(monkeypatch):
    """Without the flag that saves the other tests LLVM's optimisation (conftest)."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")


def command(workdir, photo_patches_dir, *arguments, config="configs/tiny.py"):
    return [
        sys.executable, "main.py", f"--config={config}", f"--workdir={workdir}",
        f"--config.data.data_dir={photo_patches_dir}", *arguments,
    ]  # fmt: skip


def run(*args, **kwargs):
    return subprocess.run(command(*args, **kwargs), cwd=ROOT, capture_output=True, text=True)


def test_a_killed_run_resumes_to_the_state_of_one_never_killed(photo_patches_dir, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    first = run(whole, photo_patches_dir)
    assert first.returncode == 0, first.stderr

    process = subprocess.Popen(command(killed, photo_patches_dir), cwd=ROOT, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (killed / "checkpoints" / "20").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    again = run(killed, photo_patches_dir)
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stderr
    a, b = (laser_jax.load(path) for path in (whole, killed))
    assert int(b.state.step) == 40
    for x, y in zip(*(jax.tree.leaves(m.state) for m in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (whole, killed)]
    for m in metrics:
        m.pop("images_per_second", None)
    assert metrics[0] == metrics[1]

    # The workdir alone is enough to evaluate.
    arguments = [sys.executable, "main.py", f"--workdir={killed}", "--mode=evaluate"]
    evaluated = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "psnr_pooled" in evaluated.stderr and (killed / "evaluation.json").exists()


def test_a_run_told_to_stop_writes_its_step_and_a_second_trainer_is_refused(
    photo_patches_dir, tmp_path
):
    many = "--config.num_train_steps=100000"
    process = subprocess.Popen(
        command(tmp_path, photo_patches_dir, many), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoints" / "10").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    with pytest.raises(WorkdirInUse, match=f"process {process.pid} on"), hold(tmp_path):
        pass
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    step = int(re.search(r"stopped by SIGTERM after step (\d+); the same command goes", said)[1])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == step > 10


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--config.model.bottleneck=ksv"],
            "unknown model.bottleneck 'ksv'; choose from dl, fsq, ksvd, rvq, vq",
        ),
        (["--config.data.name=cifar"], "unknown data set 'cifar'; choose from"),
        (["--config.model.sparsity_levl=4"], 'Did you mean "sparsity_level"'),
        (["--mode=test"], "should be one of"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_message_before_anything_is_made(
    arguments, message, photo_patches_dir, tmp_path
):
    result = run(tmp_path / "run", photo_patches_dir, *arguments)
    assert result.returncode != 0
    assert message in result.stderr and "Traceback" not in result.stderr.split(message)[-1]
    assert not (tmp_path / "run").exists()


def test_evaluating_where_no_run_is_says_so(photo_patches_dir, tmp_path):
    result = run(tmp_path / "run", photo_patches_dir, "--mode=evaluate")
    assert result.returncode != 0 and "holds no run" in result.stderr
    assert "Traceback" not in result.stderr


def test_prepare_writes_the_data_set_and_nothing_else(tmp_path):
    result = run(tmp_path / "run", tmp_path / "tfds", "--mode=prepare")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "tfds" / "photo_patches").is_dir() and not (tmp_path / "run").exists()
    assert os.listdir(tmp_path / "tfds")
