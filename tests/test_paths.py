"""Any path works for every file of a run, or raises before any file is written."""

import os
import pathlib

import pytest

import laser_jax
from laser_jax import evaluate
from laser_jax.data import open_source
from laser_jax.evaluation.network_metrics import load_networks
from laser_jax.paths import resolve_config, resolve_path, resolve_workdir
from laser_jax.pretrained.weights import WeightsUnavailable, inception_path, lpips_path
from laser_jax.training import loop
from laser_jax.training.checkpoints import Checkpoints
from laser_jax.training.progress import Progress

NOT_UTF8 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("name", ["[a]", "a*b", "a?b", "a[b", "a\\b", "logs:/gs:", NOT_UTF8])
@pytest.mark.parametrize("use", ["train", "evaluate", "load", "checkpoints"])
def test_workdir_that_libraries_cannot_use_raises(name, use, tiny_config, tmp_path):
    uses = {
        "train": lambda path: loop.train(tiny_config, path),
        "evaluate": lambda path: evaluate.evaluate(tiny_config, path),
        "load": laser_jax.load,
        "checkpoints": lambda path: Checkpoints(path, keep=1),
    }
    with pytest.raises(ValueError, match=r"^workdir .*Choose another"):
        uses[use](tmp_path / name / "run")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("root", ["gs", "s3"])
def test_directory_that_etils_takes_for_a_bucket_raises(root):
    for resolve in (resolve_workdir, lambda path: open_source("cifar10", split="test",
                    image_size=32, data_dir=path)):  # fmt: skip
        with pytest.raises(ValueError, match=f"take /{root}/ for a bucket"):
            resolve(f"/{root}/runs")


def with_path(config, key, path):
    group, name = key.split(".")
    config[group][name] = f"folder:{path}" if key == "data.name" else path
    return config


KEYS = ["data.data_dir", "data.name", "weights.lpips", "weights.inception"]
ENTRY_POINTS = {
    "workdir": resolve_workdir,
    "data_dir": lambda path: open_source("photo_patches", split="test", image_size=32,
                                         data_dir=path),
    "folder": lambda path: open_source(f"folder:{path}", split="test", image_size=32),
    "lpips": lambda path: lpips_path("vgg", path),
    "inception": inception_path,
}  # fmt: skip
REFUSED = {
    "": "is empty|not empty",
    "gs://bucket/run": "is a URL; only local paths",
    "s3:/bucket": "is a URL; only local paths",
    "~nosuchuser/x": "home directory of '~nosuchuser' is unknown",
    "a\0b": "null character",
}


@pytest.mark.parametrize("path, message", REFUSED.items(), ids=map(repr, REFUSED))
def test_invalid_path_raises_for_every_flag_and_key(path, message, tiny_config, home):
    for key in KEYS:
        config = with_path(tiny_config.copy_and_resolve_references(), key, path)
        with pytest.raises(ValueError, match=message):
            resolve_config(config)
        with pytest.raises(ValueError, match=message):
            loop.train(config, "run")
    for entry_point in ENTRY_POINTS.values():
        with pytest.raises(ValueError, match=message):
            entry_point(path)
    assert not any((home.parent / "here").iterdir())


def test_home_and_relative_paths_become_absolute_for_every_key(tiny_config, home):
    here = home.parent / "here"
    for path, absolute in (("~/x", home / "x"), ("x", here / "x"), ("/x", pathlib.Path("/x"))):
        assert resolve_workdir(path) == absolute
        for key in KEYS:
            config = resolve_config(with_path(tiny_config, key, path))
            group, name = key.split(".")
            assert config[group][name].removeprefix("folder:") == str(absolute)
    with pytest.raises(WeightsUnavailable, match=f"{home}/w/vgg16.ckpt does not exist"):
        lpips_path("vgg", "~/w")
    with pytest.raises(WeightsUnavailable, match=f"{home}/w does not exist"):
        inception_path("~/w")
    with pytest.raises(ValueError, match=f"folder {home}/w is not a directory"):
        open_source("folder:~/w", split="test", image_size=32)


def test_parent_of_a_symbolic_link_is_the_parent_of_its_target(tmp_path):
    (tmp_path / "far" / "target").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "target")
    assert resolve_path(tmp_path / "link" / ".." / "run", "workdir") == tmp_path / "far" / "run"
    assert resolve_path(tmp_path / "link", "workdir") == tmp_path / "link"


def test_default_data_dir_expands_the_home_directory(home, monkeypatch):
    from laser_jax.paths import resolve_data_dir

    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert resolve_data_dir(None) == home / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    assert resolve_data_dir(None) == home / "sets"


def test_without_a_home_directory_errors_name_weights_and_paths(tiny_config, monkeypatch):
    # As on systems where neither HOME nor the user is known.
    monkeypatch.setattr("posixpath.expanduser", lambda path: path)
    for name in ("XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    tiny_config.weights.lpips = None
    assert "inception" not in load_networks(tiny_config)
    with pytest.raises(WeightsUnavailable, match="home directory of '~' .* weights.inception"):
        inception_path()
    with pytest.raises(ValueError, match="data_dir's default .* home directory of '~'"):
        open_source("photo_patches", split="test", image_size=32)


def test_progress_works_without_stderr(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    progress = Progress(0, 10)
    progress.advance()
    progress.close()
