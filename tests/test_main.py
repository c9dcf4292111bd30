"""main.py, called in this process and started as a program."""

import os
import pathlib
import subprocess
import sys

import pytest

import main as program
from laser_jax.training import command_line

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def error_of(monkeypatch):
    """A function that runs main.py with these arguments and returns its final error line."""
    # JAX must detect other processes before it has devices; here it has devices already.
    monkeypatch.setattr("laser_jax.sharding.initialize_distributed", lambda: None)

    def end(*arguments):
        with pytest.raises(SystemExit) as ended:
            program.main(["main.py", *arguments])
        text = str(ended.value.code)
        assert "\n" not in text
        return text

    return end


@pytest.mark.slow
def test_workdir_alone_is_enough_to_evaluate(photo_patches_dir, tmp_path):
    command = [sys.executable, "main.py", f"--workdir={tmp_path}"]
    data = f"--config.data.data_dir={photo_patches_dir}"
    trained = subprocess.run(
        [*command, "--config=configs/tiny.py", data, "--config.num_train_steps", "20"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    evaluated = subprocess.run(
        [*command, "--mode=evaluate", "--config.eval.batch_size=32"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert "psnr_pooled" in evaluated.stderr and (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--config.model.bottleneck=ksv"],
            "unknown model.bottleneck 'ksv'; choose from dl, fsq, hybrid, ksvd, rvq, vq",
        ),
        (["--config.data.name=cifar"], "unknown data set 'cifar'; choose from"),
        (["--config.data.name=folder:"], "folder: is empty; give a path"),
        (["--config.model.sparsity_levl=4"], 'Did you mean "sparsity_level"'),
        (["--config.model.patch_size"], "patch_size without a value"),
        (["--config.data.flip=maybe"], "flip = 'maybe': it must be true or false"),
        (["--config=~/nowhere.py"], "the config file ~/nowhere.py does not exist"),
        (["--mode=test"], "should be one of"),
        (["--mode=evaluate"], "holds no run"),
        (["--workdri=x"], "Unknown command line flag 'workdri'. Did you mean: workdir ?"),
        (["train"], "unexpected argument 'train'"),
        (["--noconfig.seed=1"], "--noconfig.seed=1 takes no value"),
        (["--workdir=gs://b/run"], "workdir 'gs://b/run' is a URL"),
        (["--workdir="], "workdir is empty"),
        (["--workdir=~nosuchuser/run"], "home directory of '~nosuchuser' is unknown"),
        (["--workdir=exp [a]/run"], "orbax cannot read checkpoints there"),
        (["--config=nowhere.py"], "the config file nowhere.py does not exist"),
        (["--workdir"], "Missing value for flag --workdir"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line_before_any_file_is_written(
    arguments, message, photo_patches_dir, tmp_path, monkeypatch, error_of
):
    monkeypatch.chdir(tmp_path)
    data = f"--config.data.data_dir={photo_patches_dir}"
    config = f"--config={ROOT / 'configs' / 'tiny.py'}"
    assert message in error_of(config, "--workdir=run", data, *arguments)
    assert not any(tmp_path.iterdir())


def test_config_file_may_be_in_the_home_directory(home):
    (home / "mine.py").write_bytes((ROOT / "configs" / "tiny.py").read_bytes())
    assert command_line.load_config("~/mine.py").num_train_steps == 40


def test_missing_config_and_workdir_is_one_clear_line(error_of, tmp_path):
    assert "give --config=configs/NAME.py, or the --workdir" in error_of()
    assert "holds no run" in error_of(f"--workdir={tmp_path}", "--mode=evaluate")


def test_wrong_flag_exits_with_an_error_and_help_does_not(capsys):
    command = [sys.executable, "main.py", "--mode=test"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    program.main(["main.py", "--help"])
    printed = capsys.readouterr()
    assert "--workdir" in printed.out and "--config.model.sparsity_level=4" in printed.out
    assert not printed.err


def test_closed_streams_become_the_null_device():
    script = "import os, sys, main; main.open_standard_streams(); print('\\udce9', file=sys.stderr)"
    script += "; assert os.fstat(2) == os.stat(os.devnull); assert open('main.py').fileno() > 2"
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, script]
    assert subprocess.run(command, cwd=ROOT, timeout=300).returncode == 0


def test_prepare_writes_only_the_data_set(tmp_path):
    program.main(
        ["main.py", f"--config={ROOT / 'configs' / 'tiny.py'}", f"--workdir={tmp_path / 'run'}",
         f"--config.data.data_dir={tmp_path / 'tfds'}", "--mode=prepare"]
    )  # fmt: skip
    assert (tmp_path / "tfds" / "photo_patches").is_dir() and not (tmp_path / "run").exists()
    assert os.listdir(tmp_path / "tfds")
