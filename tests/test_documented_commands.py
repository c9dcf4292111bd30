"""The commands of docs/large.md, from a directory of pictures to a report, run as programs."""

import csv
import json
import os
import pathlib
import shlex
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
SMALL = {
    "num_train_steps": 4, "eval_every_steps": 2, "data.batch_size": 4, "data.image_size": 32,
    "model.num_hiddens": 8, "model.channel_multipliers": "(1,1,2,2)", "model.num_embeddings": 32,
    "model.dtype": "float32", "loss.perceptual_weight": 0.0, "adversarial.weight": 0.0,
    "optimizer.warmup_steps": 1, "eval.perceptual": False,
}  # fmt: skip


def documented_commands():
    """The four commands of the section, as lists of words."""
    section = (ROOT / "docs" / "large.md").read_text().split("## From pictures to a report")[1]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if line.startswith("python ")]


@pytest.mark.slow
def test_four_commands_lead_from_pictures_to_a_report(tmp_path):
    pictures, rng = tmp_path / "my pictures", np.random.default_rng(0)
    sizes = 10 * [(33, 41), (57, 64), (80, 45), (64, 90)]
    for i, (height, width) in enumerate(sizes):
        ramp = np.linspace(0, 255, height)[:, None, None] * np.ones((1, width, 3))
        folder = pictures / ("cats", "dogs")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noisy = np.clip(ramp + 20 * rng.normal(size=ramp.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"a picture {i}.JPG", "JPEG")
    commands = documented_commands()
    assert len(commands) == 4
    commands[0] += [f"--config.{key}={value}" for key, value in SMALL.items()]
    for command in commands:
        words = [word.replace("PICTURES", str(pictures)) for word in command[1:]]
        words = [
            word.replace("configs/", f"{ROOT}/configs/").replace("main.py", f"{ROOT}/main.py")
            for word in words
        ]
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
    with open(tmp_path / "out" / "qualities.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and all(5 < float(row["psnr"]) < 60 for row in rows)
    written = sorted(Image.open(path).size for path in (tmp_path / "out").rglob("*.png"))
    assert written == sorted((2 * width, height) for height, width in sizes)
    tokens = tmp_path / "out" / "tokens"
    about = json.loads((tokens / "about.json").read_text())
    assert about["class_names"] == ["cats", "dogs"] and about["grid"] == [4, 4]
    assert sum(_records(tokens / f"{split}.array_record") for split in about["splits"]) == 40
    page = (tmp_path / "out" / "mine.html").read_text()
    assert "<h2>Metrics</h2>" in page and page.count("<img") >= 4


def _records(path):
    reader = ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()
