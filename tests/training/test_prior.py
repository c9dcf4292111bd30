"""A prior is trained as any run is: its tokens, its results, a resume, and its autoencoder."""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

import laser_jax
from laser_jax import __main__ as command
from laser_jax import evaluate
from laser_jax.data import open_split
from laser_jax.evaluation.codec import fit_codec, write_tables
from laser_jax.tokens import Tokens, check_tokens
from laser_jax.trained_prior import TrainedPrior
from laser_jax.training import loop
from laser_jax.training.preemption import Stopped
from laser_jax.training.prior_setup import PriorSetup
from laser_jax.training.token_set import read_tokens, write_tokens
from laser_jax.training.warm_start import take_weights
from laser_jax.training.workdir import read_config
from tests.faults.evidence import read_curves

ROOT = pathlib.Path(__file__).parents[2]
STORED, FIGURES = ROOT / "tests" / "stored" / "vq.tar.gz", ROOT / "docs" / "img"


def configure(autoencoder):
    from configs import prior_digits

    config = prior_digits.get_config()
    config.autoencoder = str(autoencoder)
    config.data.channels = 3
    config.data.batch_size = 16
    config.num_train_steps, config.checkpoint_every_steps = 6, 3
    config.log_every_steps = config.eval_every_steps = 3
    config.optimizer.warmup_steps = 1
    config.optimizer.ema_decay = 0.5
    config.prior.width, config.prior.num_heads, config.prior.num_layers = 8, 2, 1
    config.prior.copies = 2
    return config


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """A stored run, with tables of its tokens of digits."""
    directory = tmp_path_factory.mktemp("autoencoder")
    with tarfile.open(STORED) as archive:
        archive.extractall(directory, filter="data")
    (workdir,) = (path.parent for path in directory.rglob("config.json"))
    trained = laser_jax.load(workdir)
    images = open_split(configure(workdir).data, "train")
    codec = fit_codec(
        trained.model, trained.variables, images, images=64, batch_size=64, most_steps=0
    )
    write_tables(workdir, int(trained.state.step), codec.tables)
    return workdir


@pytest.fixture(scope="module")
def run(autoencoder, tmp_path_factory):
    """A finished run, its config and its final state."""
    config, workdir = configure(autoencoder), tmp_path_factory.mktemp("prior") / "run"
    return config, workdir, loop.train(config, workdir)


@pytest.fixture(scope="module")
def prior(run):
    return laser_jax.load(run[1])


def test_workdir_has_the_documented_metrics_tokens_and_samples(run, prior):
    _, workdir, _ = run
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["step"] == 6
    bits = metrics["val/bits_per_token"]
    gap = bits - metrics["val/train_bits_per_token"]
    assert metrics["val/gap_bits_per_token"] == pytest.approx(gap)
    assert metrics["val/bits_per_pixel"] == pytest.approx(bits / 16)
    for name in ("context_model", "order_0"):
        assert 0 < metrics[f"val/bits_per_pixel_{name}"] < 1
    assert Image.open(workdir / "samples.png").size == (6 * 18, 6 * 18)
    curves = read_curves(workdir)
    assert {"train/bits_per_token", "train/bits_per_pixel", "val/bits_per_token"} <= curves.keys()


def test_tokens_are_those_of_the_pictures_and_of_shifted_copies(run, prior):
    config, workdir, _ = run
    images = open_split(config.data, "train")
    vocabulary = prior.tokens.model.vocabulary
    tokens = read_tokens(workdir, "train", vocabulary, "")
    assert len(tokens) == 2 * len(images)
    assert [tokens[i][1] for i in range(99)] == [images.label(i) for i in range(99)]
    np.testing.assert_array_equal(tokens.labels[:1297], tokens.labels[1297:])
    found = prior.encode_to_tokens(np.stack([images[i] for i in range(64)]))
    np.testing.assert_array_equal(tokens.symbols[:64], vocabulary.symbols(found))
    assert np.mean(tokens.symbols[:1297] != tokens.symbols[1297:]) > 0.1


def test_tokens_that_a_killed_process_left_are_removed_and_those_of_a_running_one_kept(tmp_path):
    class Pictures(list):
        num_classes = 0

    ended = subprocess.Popen(["true"])
    ended.wait()
    start = f".tokens.partial-{platform.node()}-"
    stale, alive = (tmp_path / f"{start}{pid}-0" for pid in (ended.pid, os.getppid()))
    for path in (stale, alive):
        path.mkdir()
    write_tokens(
        tmp_path, {"train": Pictures([np.zeros((4, 4, 3))])}, lambda images: np.ones((1, 1, 1)), {},
        batch_size=1, copies=1, augmented=None,
    )  # fmt: skip
    assert not stale.exists() and alive.exists() and (tmp_path / "tokens").exists()


def test_resumed_run_is_bit_identical_to_an_uninterrupted_one(run, tmp_path, monkeypatch):
    config, workdir, whole = run
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(
            loop.StopSignal, "reason", lambda self, step: "SIGTERM" if step == 3 else None
        )
        loop.train(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, loop.train(config, tmp_path), whole)
    assert read_curves(tmp_path) == read_curves(workdir)


def test_loaded_prior_samples_images_and_counts_bits(run, prior):
    config, workdir, state = run
    assert isinstance(prior, TrainedPrior)
    jax.tree.map(
        np.testing.assert_array_equal, prior.tokens.variables["params"], state.ema_params["params"]
    )
    images = prior.sample(jax.random.key(0), 70, labels=3, top_k=5)  # more than a batch
    assert images.shape == (70, 16, 16, 3) and images.min() >= 0 and images.max() <= 1
    again = prior.sample_tokens(jax.random.key(0), 70, labels=3, top_k=5)
    check_tokens(again, prior.codec.tables.layout)
    first = Tokens(*(x[:64] for x in again))
    np.testing.assert_array_equal(prior.codec.to_images(first), images[:64])
    source = open_split(config.data, "validation")
    labels = np.array([source.label(i) for i in range(200)])
    bits = prior.bits(np.stack(list(source)), labels=labels)
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert np.mean(bits) / 16 == pytest.approx(metrics["val/bits_per_token"], rel=1e-5)


def test_evaluation_reports_bits_their_gap_and_the_nearest_training_pictures(run):
    config, workdir, _ = run
    config = config.copy_and_resolve_references()
    config.eval.split, config.eval.perceptual = "validation", False
    metrics = evaluate.evaluate(config, workdir)
    found = json.loads((workdir / "metrics.json").read_text())
    names = ("bits_per_pixel", "bits_per_pixel_context_model", "bits_per_pixel_order_0")
    for name in ("bits_per_token", *names):
        assert metrics[name] == pytest.approx(found[f"val/{name}"], rel=1e-5)
    assert metrics["samples_per_second"] > 0
    assert json.loads((workdir / "evaluation-validation.json").read_text()) == metrics
    assert Image.open(workdir / "samples_nearest-validation.png").size == (2 * 4 * 18, 3 * 18)


def test_autoencoder_cannot_start_from_a_prior(run):
    with pytest.raises(ValueError, match="holds a prior; init_from must be"):
        take_weights(None, None, run[1])


def test_trained_prior_needs_no_data_set(run, tmp_path):
    shutil.copytree(run[1], tmp_path / "prior")
    file = tmp_path / "prior" / "config.json"
    file.write_text(file.read_text().replace('"digits"', '"folder:/gone"'))
    prior = laser_jax.load(tmp_path / "prior")
    assert prior.tokens.model.num_classes == 10


def test_sample_command_writes_a_grid_and_replaces_nothing(run, tmp_path, capsys):
    out = tmp_path / "new" / "samples.png"
    arguments = ["sample", f"--workdir={run[1]}", f"--out={out}", "--num=4", "--label=2"]
    assert command.main(arguments) == 0
    assert Image.open(out).size == (36, 36)
    assert "4 pictures" in capsys.readouterr().out
    assert command.main(arguments) == 1
    assert "exists; choose another --out" in capsys.readouterr().err
    arguments[1] = f"--workdir={run[0].autoencoder}"
    assert command.main([*arguments, "--overwrite"]) == 1
    assert "sample needs a prior's run" in capsys.readouterr().err


def test_autoencoder_may_move_and_another_one_raises(run, tmp_path):
    config, workdir, _ = run
    copy = tmp_path / "prior"
    shutil.copytree(workdir, copy)
    moved = shutil.copytree(config.autoencoder, tmp_path / "moved")
    config = config.copy_and_resolve_references()
    config.autoencoder = str(moved)
    loop.train(config, copy)
    assert laser_jax.load(copy).config.autoencoder == str(moved)
    (tables,) = moved.glob("tokens-*.npz")
    trained = laser_jax.load(moved)
    images = open_split(config.data, "train")
    other = fit_codec(
        trained.model, trained.variables, images, images=63, batch_size=64, most_steps=0
    )
    tables.write_bytes(other.tables.to_bytes())
    for call in (lambda: laser_jax.load(copy), lambda: loop.train(config, copy)):
        with pytest.raises(ValueError, match=r"learned the tokens of an autoencoder with the fing"):
            call()
    assert isinstance(laser_jax.load(copy, autoencoder=run[0].autoencoder), TrainedPrior)
    with pytest.raises(FileNotFoundError, match=r"autoencoder of the prior: .* --autoencoder"):
        laser_jax.load(copy, autoencoder=tmp_path / "gone")


@pytest.mark.parametrize("changes, message", [
    ({"data.image_size": 32}, r"pictures of 16x16, and data.image_size gives 32x32"),
    ({"data.name": f"folder:{FIGURES}"}, r"the prior has 10 classes, but .* has none"),
])  # fmt: skip
def test_pictures_that_do_not_suit_a_prior_raise_before_it_is_evaluated(changes, message, run):
    config = run[0].copy_and_resolve_references()
    config.eval.perceptual, config.eval.split = False, "train"
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        evaluate.evaluate(config, run[1])


def test_prior_divides_the_set_of_its_autoencoder_as_the_autoencoder_did(run):
    config = run[0].copy_and_resolve_references()
    other = read_config(config.autoencoder).data
    config.data.name, config.data.split_rule = other.name, 3 - other.split_rule
    PriorSetup.from_config(config)._compare_data()
    assert config.data.split_rule == other.split_rule


@pytest.mark.parametrize("changes, message", [
    ({"autoencoder": None}, r"--config.autoencoder=WORKDIR"),
    ({"best_metric": "psnr"}, r"best_metric .* loss, bits_per_token, got psnr"),
    ({"data.image_size": 18}, r"data.image_size 18 must be divisible .* 4x4"),
    ({"data.channels": 1}, r"data.channels 1 be its 3"),
    ({"data.name": f"folder:{FIGURES}"}, r"prior.use_labels needs classes; folder:.* has none"),
    ({"prior.width": 9}, r"width must be a multiple of 4 num_heads"),
    ({"data.min_crop_area": 0.5}, r"data.min_crop_area is for autoencoders"),
])  # fmt: skip
def test_inconsistent_config_raises_before_the_workdir_is_created(
    changes, message, autoencoder, tmp_path
):
    config = configure(autoencoder)
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        loop.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_run_ends_when_validations_no_longer_improve(autoencoder, tmp_path):
    config = configure(autoencoder)
    config.patience, config.num_train_steps, config.eval_every_steps = 2, 40, 1
    config.optimizer.learning_rate = 3.0  # the first steps make it worse
    state = loop.train(config, tmp_path)
    assert int(state.step) < 40
    again = loop.train(config, tmp_path)  # the same command neither trains on nor fails
    jax.tree.map(np.testing.assert_array_equal, again, state)


@pytest.mark.slow
def test_masked_prior_trains_draws_and_has_no_bits(autoencoder, tmp_path):
    config = configure(autoencoder)
    config.prior.kind, config.best_metric = "masked", "masked_bits_per_token"
    config.num_train_steps, config.checkpoint_every_steps, config.eval.perceptual = 3, 3, False
    loop.train(config, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["val/masked_bits_per_token"] > 0 and "val/bits_per_token" not in metrics
    assert "masked_bits_per_token" not in evaluate.evaluate(config, tmp_path)
    prior = laser_jax.load(tmp_path, checkpoint="best")
    assert prior.sample(jax.random.key(0), 4, labels=1).shape == (4, 16, 16, 3)
    with pytest.raises(ValueError, match="masked prior has no exact likelihood"):
        prior.bits(np.zeros((1, 16, 16, 3), np.uint8), labels=[0])
