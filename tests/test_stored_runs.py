"""Runs trained by commit c548257: later versions load, evaluate and resume them.

Each archive in `tests/stored` is a workdir of `configs/tiny.py` after 20 steps, with the
`evaluation.json` that the same commit wrote.
"""

import json
import pathlib
import tarfile

import numpy as np
import pytest

import laser_jax
from laser_jax import evaluate
from laser_jax.training import loop
from laser_jax.training.workdir import read_config

STORED = pathlib.Path(__file__).parent / "stored"
# The quick one: each resume compiles a step.
QUICK = ("vq",)
NAMES = sorted(path.name.removesuffix(".tar.gz") for path in STORED.glob("*.tar.gz"))
KINDS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.fixture(params=KINDS)
def stored(request, tmp_path, photo_patches_dir):
    """The workdir of one archive and its config, on this machine's data."""
    with tarfile.open(STORED / f"{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (workdir,) = tmp_path.iterdir()
    config = read_config(workdir)
    config.data.data_dir = str(photo_patches_dir)
    config.eval.table_images = 0
    return workdir, config


def test_stored_run_loads_evaluates_equally_and_resumes(stored):
    workdir, config = stored
    expected = json.loads((workdir / "evaluation.json").read_text())
    images = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    trained = laser_jax.load(workdir)
    assert int(trained.state.step) == 20
    assert trained.reconstruct(images).shape == images.shape

    found = evaluate.evaluate(config, workdir)
    for name in ("psnr", "psnr_pooled", "ssim", "recon_loss", "active_atoms"):
        assert found[name] == pytest.approx(expected[name], rel=1e-4), name

    config.num_train_steps = 22
    assert int(loop.train(config, workdir).step) == 22
