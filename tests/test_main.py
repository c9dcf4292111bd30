"""The program as a user starts it, in processes of its own."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def command(workdir, photo_patches_dir, *arguments, config="configs/tiny.py"):
    return [
        sys.executable, "main.py", f"--config={config}", f"--workdir={workdir}",
        f"--config.data.data_dir={photo_patches_dir}", *arguments,
    ]  # fmt: skip


def run(*args, **kwargs):
    return subprocess.run(command(*args, **kwargs), cwd=ROOT, capture_output=True, text=True)


def test_a_workdir_alone_is_enough_to_evaluate(photo_patches_dir, tmp_path):
    trained = run(tmp_path, photo_patches_dir, "--config.num_train_steps=20")
    assert trained.returncode == 0, trained.stderr
    arguments = [sys.executable, "main.py", f"--workdir={tmp_path}", "--mode=evaluate"]
    evaluated = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "psnr_pooled" in evaluated.stderr and (tmp_path / "evaluation.json").exists()


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
