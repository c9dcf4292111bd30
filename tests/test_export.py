"""python -m laser_jax export, on a stored run with tables."""

import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

import laser_jax
from laser_jax import data
from laser_jax.__main__ import main
from laser_jax.data.folder import SPLIT_RULE
from laser_jax.training import token_set
from tests.test_compress import ready  # noqa: F401
from tests.test_reconstruct import workdir  # noqa: F401


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for split, number in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
    return tmp_path / "images"


def export(run, images, out, *flags):
    return main(["export", f"--workdir={run}", f"--out={out}", f"--data=folder:{images}", *flags])


def test_tokens_of_a_folder_are_written_with_its_classes(ready, images, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out"
    assert export(ready, images, out, "--splits", "train", "test") == 0
    said = capsys.readouterr().out
    assert "test.array_record  4 pictures" in said and said.count(" pictures\n") == 2, said
    about = json.loads((out / "tokens" / "about.json").read_text())
    assert about["class_names"] == ["cat", "dog"]
    assert about["num_classes"] == 2 and set(about["splits"]) == {"train", "test"}
    assert about["grid"] == [8, 8] and about["symbols"] == 1
    reader = ArrayRecordReader(str(out / "tokens" / "test.array_record"))
    records = np.stack([np.frombuffer(x, np.int32) for x in reader.read_all()])
    reader.close()
    assert records[:, 0].tolist() == [0, 0, 1, 1]
    paths = sorted(images.glob("test/*/*.png"))
    pictures = np.stack([np.asarray(Image.open(path)) for path in paths])
    indices, *_ = laser_jax.load(ready).encode_to_indices(pictures)
    np.testing.assert_array_equal(records[:, 1:], indices)


def test_documented_way_back_gives_the_reconstructions(ready, images, tmp_path, monkeypatch):  # noqa: F811
    page = (pathlib.Path(__file__).parents[1] / "docs" / "large.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert export(ready, images, tmp_path / "out") == 0
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(ready)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/large.md", "exec"), found := {})
    pictures = [np.asarray(Image.open(path)) for path in sorted(images.glob("train/*/*.png"))]
    expected = found["trained"].reconstruct(np.stack(pictures))
    np.testing.assert_allclose(found["images"], expected, atol=1e-5)
    assert found["labels"].tolist() == [0, 0, 0, 1, 1, 1]


def test_set_of_the_run_keeps_its_rule_by_any_path(ready, images, tmp_path, monkeypatch):  # noqa: F811
    run = shutil.copytree(ready, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"name": f"folder:{images}", "split_rule": 1}
    (run / "config.json").write_text(json.dumps(config))
    rules = []
    monkeypatch.setattr(data, "open_split", lambda c, split: rules.append(c.split_rule) or [])
    monkeypatch.setattr(token_set, "export_tokens", lambda *args, **kwargs: None)
    monkeypatch.chdir(tmp_path)
    for name in (f"folder:{images}", "folder:images", "folder:./images", "folder:other"):
        main(["export", f"--workdir={run}", f"--out={tmp_path / 'out'}", f"--data={name}",
              "--splits", "train"])  # fmt: skip
    assert rules == [1, 1, 1, SPLIT_RULE]


def test_only_exported_tokens_are_overwritten(ready, images, tmp_path, capsys):  # noqa: F811
    flags = "--splits", "test", "--overwrite"
    tokens = tmp_path / "out" / "tokens"
    tokens.mkdir(parents=True)
    (tokens / "notes.txt").write_text("mine")
    assert export(ready, images, tmp_path / "out", *flags) == 1
    (tokens / "about.json").write_text('{"autoencoder": "as a prior has it"}')
    assert export(ready, images, tmp_path / "out", *flags) == 1
    assert capsys.readouterr().err.count("something else than exported tokens") == 2
    assert (tokens / "notes.txt").read_text() == "mine"
    tokens.rename(tmp_path / "away")
    for _ in range(2):
        assert export(ready, images, tmp_path / "out", *flags) == 0


def test_existing_tokens_and_empty_splits_are_errors(ready, images, tmp_path, capsys):  # noqa: F811
    (tmp_path / "out" / "tokens").mkdir(parents=True)
    assert export(ready, images, tmp_path / "out") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert export(ready, images, tmp_path / "new", "--splits", "train", "validation") == 1
    assert "too few images for validation" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_splits_without_pictures_are_left_out_by_name(ready, images, tmp_path, capsys):  # noqa: F811
    assert export(ready, images, tmp_path / "out") == 0
    assert "validation is left out: too few images" in capsys.readouterr().err
    found = {path.stem for path in (tmp_path / "out" / "tokens").glob("*.array_record")}
    assert found == {"train", "test"}
    for path in images.rglob("*.png"):
        path.unlink()
    assert export(ready, images, tmp_path / "new") == 1
    assert "too few images for train" in capsys.readouterr().err
