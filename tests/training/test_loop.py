"""The training loop: its results, its files, its errors, and resumed runs."""

import itertools
import json
import math
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import laser_jax
from laser_jax import evaluate
from laser_jax.figures.curves import read_scalars
from laser_jax.models import build_model
from laser_jax.pretrained import WeightsUnavailable
from laser_jax.sharding import put_batch, replicated
from laser_jax.sparse import SparseCode
from laser_jax.training import loop, progress, reporter
from laser_jax.training.checkpoints import Checkpoints
from laser_jax.training.reporter import NotFiniteError
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state, initial_state
from laser_jax.training.step import TrainStep
from laser_jax.training.workdir import check_same_run, read_config, write_config
from tests.faults.evidence import read_curves

BOTTLENECKS = {
    "vq": {"bottleneck": "vq"},
    "rvq by gradient": {"bottleneck": "rvq", "use_ema": False},
    "dl": {"bottleneck": "dl", "patch_size": (2, 4)},
    "fsq": {"bottleneck": "fsq", "fsq_levels": (8, 6, 5)},
    "ksvd": {"bottleneck": "ksvd"},
    "parallel, atoms by rate": {
        "bottleneck": "ksvd", "ksvd_method": "parallel", "update_every_steps": 3,
        "sparse_coder": "rate_distortion", "bit_price": 1e-3, "coefficient_step": 0.1,
    },
    "online": {"bottleneck": "ksvd", "dictionary_update": "online"},
    "hybrid": {
        "bottleneck": "hybrid", "num_atoms": 48, "sparsity_level": 2, "patch_size": 2,
        "dictionary_update": "gradient",
    },
    "every loss": {"bottleneck": "dl", "coefficient_l1_weight": 1e-4, "coherence_weight": 1e-2},
}  # fmt: skip
EVERY_LOSS = {
    "loss": {
        "l1_weight": 0.1, "perceptual_weight": 0.05, "perceptual_net": "alex",
        "mr_dct_weight": 0.1, "mr_grad_weight": 0.1,
    },
    "adversarial": {"weight": 0.1, "start_step": 23, "warmup_steps": 5, "num_hiddens": 8},
}  # fmt: skip
# Their true rate is measured, by tables of few images: tokens of stages, of a grid, and of sets.
CODED = ("rvq by gradient", "fsq", "parallel, atoms by rate", "hybrid")

# Quick are atoms that learn by gradient and by sweeps, and a grid. A stored run has VQ.
QUICK = ("dl", "fsq", "ksvd")


def slow_but(*quick):
    """Returns the bottlenecks as parameters; all but these are slow."""
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow)
        for name in BOTTLENECKS
    ]


EVERY = slow_but(*QUICK)


def configure(config, name):
    config.model.update(BOTTLENECKS[name])
    if name == "every loss":
        config.update(EVERY_LOSS)
    return config


def assert_same_state(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def once(function, copy=lambda setup, result: result):
    """Returns `function(setup, *args)` that is called once for equal models, data and schedules."""
    results = {}

    def shared(setup, *args):
        config = setup.config
        groups = ("model", "data", "loss", "adversarial", "optimizer", "seed")
        key = str([config[name] for name in groups] + [config.num_train_steps, setup.lengths])
        if key not in results:
            results[key] = copy(setup, function(setup, *args))
        return copy(setup, results[key])

    return shared


def copy_of_state(setup, state):
    return jax.device_put(jax.device_get(state), replicated(setup.mesh))


@pytest.fixture(scope="module", autouse=True)
def shared_programs():
    """Runs of equal steps share the compiled step, and copies of the start: a step donates it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TrainStep", once(TrainStep))
        patch.setattr(loop, "initial_state", once(initial_state, copy_of_state))
        patch.setattr(Setup, "fit_start", once(Setup.fit_start, copy_of_state))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, photo_patches_dir):
    """A function that returns a finished run of a bottleneck, trained at its first call."""
    from configs import tiny

    finished = {}

    def run(name):
        if name not in finished:
            config = configure(tiny.get_config(), name)
            config.data.data_dir = str(photo_patches_dir)
            config.eval.table_images = 8 if name in CODED else 0
            workdir = tmp_path_factory.mktemp("run")
            finished[name] = (config, workdir, loop.train(config, workdir))
        return finished[name]

    return run


@pytest.mark.parametrize("name", EVERY)
def test_training_reduces_the_error_and_atoms_have_unit_norm(name, runs):
    _, workdir, state = runs(name)
    assert int(state.step) == 40
    events = EventAccumulator(str(workdir)).Reload().Tensors("train/recon_loss")
    loss = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
    assert len(loss) == 4 and loss[-1] < 0.6 * loss[0]
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state) if x.dtype == jnp.float32)
    if BOTTLENECKS[name]["bottleneck"] in ("dl", "ksvd"):
        np.testing.assert_allclose(
            jnp.linalg.norm(state.dictionary["atoms"], axis=-1), 1, rtol=1e-4
        )


def test_workdir_has_the_documented_metrics_figures_and_curves(runs):
    _, workdir, _ = runs("ksvd")
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert metrics["step"] == 40 and metrics["images_per_second"] > 0
    assert metrics["val/active_atoms"] == 4 and metrics["val/sparsity"] == pytest.approx(4 / 32)
    assert (workdir / "reconstructions.png").stat().st_size > 10_000
    events = EventAccumulator(str(workdir), size_guidance={"images": 0}).Reload()
    quantities = {
        "loss",
        "recon_loss",
        "bottleneck_loss",
        "psnr",
        "ssim",
        "sparsity",
        "active_atoms",
    }
    quantities |= {"dictionary_usage", "dictionary_perplexity"}
    tags = {f"{split}/{name}" for split in ("train", "val") for name in quantities}
    tags |= {
        "train/learning_rate",
        "train/images_per_second",
        "train/device_images_per_second",
        "val/psnr_pooled",
        "val/bits_per_pixel_fixed",
    }
    assert tags <= set(events.Tags()["tensors"])
    assert {"val/reconstructions", "atoms"} <= set(events.Tags()["tensors"])
    assert [event.step for event in events.Tensors("train/loss")] == [10, 20, 30, 40]
    assert [event.step for event in events.Tensors("val/loss")] == [20, 40]


@pytest.mark.slow
def test_exactly_the_terms_of_the_loss_are_logged(runs):
    terms = {"perceptual_loss", "mr_dct_loss", "mr_grad_loss"}
    adversarial = {"adversarial_loss", "adversarial_weight", "discriminator_loss"}

    def logged(name):
        events = EventAccumulator(str(runs(name)[1])).Reload()
        return set(events.Tags()["tensors"]), events

    tags, events = logged("every loss")
    assert {f"{split}/{term}" for split in ("train", "val") for term in terms} <= tags
    assert {f"train/{term}" for term in adversarial} <= tags
    # The discriminator is trained from step 18, the adversarial term acts from step 23.
    assert [event.step for event in events.Tensors("train/discriminator_loss")] == [20, 30, 40]
    weights = [
        float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors("train/adversarial_weight")
    ]
    assert weights[0] == 0 and min(weights[1:]) > 0
    assert (
        not {f"{s}/{term}" for s in ("train", "val") for term in terms | adversarial}
        & logged("dl")[0]
    )


@pytest.mark.slow
def test_adversarial_term_costs_less_than_one_decibel_at_its_start(runs):
    psnr = {
        name: json.loads((runs(name)[1] / "metrics.json").read_text())["val/psnr"]
        for name in ("dl", "every loss")
    }
    assert psnr["every loss"] > psnr["dl"] - 1
    params = runs("every loss")[2].extra["discriminator"]["params"]
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params))


def test_term_of_weight_zero_is_not_in_the_program_of_the_step(tiny_config):
    """Other options of a term of weight 0 do not change the lowered program."""
    images = np.zeros((16, 32, 32, 3), np.uint8)

    def program():
        setup = Setup.from_config(tiny_config)
        images_on_mesh = put_batch(images, setup.mesh)
        return TrainStep(setup).lower(abstract_state(setup), images_on_mesh).as_text()

    tiny_config.model.bottleneck = "dl"
    plain = program()
    tiny_config.loss.update(perceptual_net="alex", mr_dct_levels=1, mr_grad_levels=1)
    tiny_config.adversarial.update(num_hiddens=8, num_downsamples=1, start_step=3)
    assert program() == plain
    for group, weight in (
        ("loss", "perceptual_weight"), ("loss", "mr_dct_weight"), ("loss", "mr_grad_weight"),
        ("loss", "l1_weight"), ("model", "coefficient_l1_weight"), ("model", "coherence_weight"),
    ):  # fmt: skip
        tiny_config[group][weight] = 0.1
        assert len(program()) > len(plain)
        tiny_config[group][weight] = 0.0
    assert program() == plain


class Killed(Exception):
    pass


def interrupt(monkeypatch, how, at):
    """Ends the following runs after this step, by a stop signal or as if they were killed."""
    if how == "stopped":
        reason = lambda self, step: "SIGTERM" if step == at else None  # noqa: E731
        monkeypatch.setattr(loop.StopSignal, "reason", reason)
        return

    def kill(self, step, metrics, original=loop.Reporter.step):
        original(self, step, metrics)
        if step == at:
            raise Killed

    monkeypatch.setattr(loop.Reporter, "step", kill)


@pytest.mark.parametrize("name", [EVERY[1], "ksvd", EVERY[-1]])
def test_resumed_run_is_bit_identical_to_an_uninterrupted_one(name, runs, tmp_path):
    config, workdir, whole = runs(name)
    config = config.copy_and_resolve_references()
    config.checkpoint_every_steps = 20
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, "killed", 37)
        loop.train(config, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 20
    assert_same_state(loop.train(config, tmp_path), whole)
    # Step 30 was logged twice. TensorBoard shows it once, and no point is missing.
    assert read_curves(tmp_path) == read_curves(workdir)


@pytest.mark.parametrize("how", ["stopped", pytest.param("killed", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "terminal",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["no terminal", "terminal"],
)
def test_run_resumes_from_every_residue_of_its_intervals(
    terminal, how, tiny_config, tmp_path, monkeypatch
):
    stderr = types.SimpleNamespace(isatty=lambda: terminal)
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=stderr))
    configure(tiny_config, "fsq").update(
        num_train_steps=7, log_every_steps=3, checkpoint_every_steps=2, eval_every_steps=100
    )
    whole = loop.train(tiny_config, tmp_path / "whole")
    for at in range(1, 7):
        with monkeypatch.context() as patch, pytest.raises((loop.Stopped, Killed)):
            interrupt(patch, how, at)
            loop.train(tiny_config, tmp_path / "run")
    assert_same_state(loop.train(tiny_config, tmp_path / "run"), whole)
    # As a set: event files of one second have no order, so step 3 may be there twice.
    logged = {step for step, _ in read_curves(tmp_path / "run")["train/loss"]}
    assert logged == {3, 6, 7}


def test_run_that_failed_at_its_first_step_accepts_a_corrected_config(
    tiny_config, tmp_path, monkeypatch
):
    config = configure(tiny_config, "fsq")
    config.update(num_train_steps=2, best_metric="loss")
    config.optimizer.warmup_steps = 1
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, "killed", 1)
        loop.train(config, tmp_path)
    config.best_metric = "ssim"
    assert int(loop.train(config, tmp_path).step) == 2
    assert read_config(tmp_path).best_metric == "ssim"
    assert read_config(tmp_path / "previous" / "1").best_metric == "loss"
    assert [step for step, _ in read_curves(tmp_path)["train/loss"]] == [2]
    config.best_metric = "psnr"
    with pytest.raises(ValueError, match="best_metric: ssim stored, psnr given"):
        loop.train(config, tmp_path)


def test_run_can_log_every_step(tiny_config, tmp_path, caplog):
    caplog.set_level("INFO", "laser_jax")
    configure(tiny_config, "fsq").update(num_train_steps=3, log_every_steps=1)
    tiny_config.optimizer.warmup_steps = 1
    loop.train(tiny_config, tmp_path)
    lines = [line for line in caplog.text.splitlines() if "step " in line and "/3 " in line]
    assert ["images/s" in line for line in lines] == [False, True, True]


def test_run_that_ends_early_has_tables_and_the_rate_of_a_last_step(
    tiny_config, tmp_path, monkeypatch
):
    config = configure(tiny_config, "fsq")
    config.update(num_train_steps=3, eval_every_steps=1, patience=1)
    config.optimizer.warmup_steps, config.eval.table_images = 1, 2
    monkeypatch.setattr(loop, "stalled", lambda config, saved: saved.latest_step() == 1)
    loop.train(config, tmp_path)
    assert (tmp_path / "tokens-1.npz").exists()
    (tmp_path / "tokens-1.npz").unlink()
    loop.train(config, tmp_path)  # stopped between its last checkpoint and its tables
    assert laser_jax.load(tmp_path).codec.tables.layout.grid


@pytest.mark.slow
def test_a_run_of_changed_length_resumes_bit_identically(tiny_config, tmp_path, monkeypatch):
    config = configure(tiny_config, "fsq")
    config.update(num_train_steps=20, checkpoint_every_steps=5, eval_every_steps=100)
    with monkeypatch.context() as patch, pytest.raises(loop.Stopped):
        interrupt(patch, "stopped", 10)
        loop.train(config, tmp_path / "run")
    config.num_train_steps = 30
    shutil.copytree(tmp_path / "run", tmp_path / "whole")
    whole = loop.train(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        interrupt(patch, "killed", 17)
        loop.train(config, tmp_path / "run")
    assert_same_state(loop.train(read_config(tmp_path / "run"), tmp_path / "run"), whole)
    rates = dict(read_curves(tmp_path / "run")["train/learning_rate"])
    assert rates[10] > rates[20] > rates[30] > 0
    # Step 20 is halfway between the change at step 10 and the new end.
    schedule = Setup.from_config(config).with_lengths(((0, 20), (10, 30))).optimizer.schedule
    assert rates[20] == pytest.approx(float(schedule(19)), rel=1e-5)


def test_finished_run_is_not_trained_again(runs, caplog):
    config, workdir, state = runs("ksvd")
    caplog.set_level("INFO", "laser_jax")
    assert_same_state(loop.train(config, workdir), state)
    assert "resuming from step 40" in caplog.text


def test_evaluation_counts_all_codes_of_fsq_and_no_padding(runs):
    config, workdir, _ = runs("fsq")
    source = evaluate.open_split(config.data, "test")
    assert len(source) % config.eval.batch_size  # the last batch has padding
    tokens = laser_jax.load(workdir).encode_to_indices(np.stack(list(source)))[0]
    _, counts = np.unique(tokens, return_counts=True)
    metrics = evaluate.evaluate(config, workdir)
    assert metrics["dictionary_usage"] == pytest.approx(len(counts) / 240)
    entropy = -np.sum(counts / tokens.size * np.log(counts / tokens.size))
    for name in ("dictionary_perplexity", "dictionary_perplexity_energy"):
        assert metrics[name] == pytest.approx(np.exp(entropy), rel=1e-5)


def test_every_file_of_a_run_is_in_its_workdir_for_unusual_names(runs, home):
    config, workdir, _ = runs("ksvd")
    name = "a b $5_to_$9 \n ü e\u0301 😀 {x} 100% #'\"&;|<>]^~:!=@-"
    path = home / name / "run"
    kept = shutil.ignore_patterns("events*", "*.png", "metrics.json", "evaluation*", "40", ".lock")
    shutil.copytree(workdir, path, ignore=kept)
    assert int(loop.train(config, f"~/{name}/run").step) == 40
    evaluate.evaluate(config, f"~/{name}/run")
    assert int(laser_jax.load(f"~/{name}/run").state.step) == 40
    files = {"config.json", ".lock", "metrics.json", "evaluation.json", "reconstructions.png",
             "test_reconstructions.png", "checkpoints"}  # fmt: skip
    found = {entry.name for entry in path.iterdir()}
    assert files <= found and any(name.startswith("events.out.tfevents") for name in found)
    assert list(read_scalars(path)["train/loss"][0]) == [40]
    assert not any((home.parent / "here").iterdir())


def test_evaluation_averages_over_exactly_the_test_images(runs):
    config, workdir, _ = runs("ksvd")
    metrics = evaluate.evaluate(config, workdir)
    assert metrics == json.loads((workdir / "evaluation.json").read_text())
    source = evaluate.open_split(config.data, "test")
    assert len(source) % config.eval.batch_size  # the last batch is masked
    assert metrics["images"] == len(source)
    images = np.stack([source[i] for i in range(len(source))]) / 255
    reconstruction = laser_jax.load(workdir).reconstruct(images.astype(np.float32))
    errors = np.mean((images - reconstruction) ** 2, axis=(1, 2, 3))
    assert metrics["psnr_pooled"] == pytest.approx(-10 * np.log10(errors.mean()), abs=1e-4)
    assert metrics["psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)), abs=1e-4)
    assert metrics["protocol"] == source.description
    assert metrics["dictionary_unused"] == 1 - metrics["dictionary_usage"]
    assert 1 < metrics["dictionary_perplexity_energy"] < metrics["dictionary_perplexity"] <= 32
    bits = np.log2(math.comb(32, 4)) + 4 * 16
    assert metrics["bits_per_signal"] == pytest.approx(bits)
    assert metrics["bits_per_pixel_fixed"] == pytest.approx(bits / 16)
    assert "lpips" not in metrics  # as eval.perceptual is off


@pytest.fixture
def folder(tmp_path):
    """A folder data set of two images, both in the training split by their names."""
    path = tmp_path / "my $5 caf\udce9"
    path.mkdir()
    images = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    for name, image in zip("ab", images, strict=True):
        Image.fromarray(image).save(path / f"{name}.png")
    return path


def test_other_data_sizes_splits_and_checkpoints_have_evaluations_of_their_own(
    runs, folder, tmp_path
):
    config, workdir, _ = runs("ksvd")
    workdir = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("eval*"))
    source, size = config.data.name, config.data.image_size
    config = config.copy_and_resolve_references()
    moved = shutil.copytree(folder, tmp_path / "other" / folder.name)
    found = {}
    for name, pixels, split, checkpoint in (
        (f"folder:{folder}", size, "train", "newest"),
        (f"folder:{moved}", 2 * size, "train", "best"),
        (source, size, "validation", "newest"),
        (source, size, "validation", "best"),
    ):
        config.data.name, config.data.image_size = name, pixels
        config.eval.split, config.eval.checkpoint = split, checkpoint
        before = {path.name for path in workdir.glob("*evaluation*")}
        metrics = evaluate.evaluate(config, workdir)
        (written,) = {path.name for path in workdir.glob("*evaluation*")} - before
        assert json.loads((workdir / written).read_text()) == metrics
        found[written] = metrics["images"]
        figure = written.replace("evaluation", f"{split}_reconstructions").replace("json", "png")
        assert (workdir / figure).stat().st_size > 1000
    first, second, third, fourth = found
    assert re.fullmatch(r"evaluation-train-my_5_caf_-[0-9a-f]{8}\.json", first)
    assert re.fullmatch(r"evaluation-train-my_5_caf_-[0-9a-f]{8}-64px-best\.json", second)
    assert (third, fourth) == ("evaluation-validation.json", "evaluation-validation-best.json")
    assert found[first] == found[second] == 2
    config.eval.split = "all"
    with pytest.raises(ValueError, match="unknown eval.split 'all'; choose from"):
        evaluate.evaluate(config, workdir)


def test_moved_folder_data_set_continues_the_same_run(runs, tmp_path):
    config = runs("ksvd")[0].copy_and_resolve_references()
    config.data.name = "folder:/old/photos"
    write_config(tmp_path, config)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    config.data.name = "folder:/new/place"
    check_same_run(tmp_path, config)
    config.data.name = "cifar10"
    with pytest.raises(ValueError, match="data.name: folder:.* stored, cifar10 given"):
        check_same_run(tmp_path, config)
    with pytest.raises(ValueError, match=r"is not a directory.*--config.data.name=folder:PATH"):
        loop.train(read_config(tmp_path), tmp_path)


def test_data_set_names_that_are_not_utf8_are_logged(runs, tmp_path):
    config, _, state = runs("ksvd")
    config = config.copy_and_resolve_references()
    config.data.name = "folder:/caf\udce9"
    state = state.replace(step=0)
    with reporter.Reporter(Setup.from_config(config), tmp_path, None, None, state):
        pass
    assert b"folder:/caf\\udce9" in next(tmp_path.glob("events*")).read_bytes()


def test_figure_error_does_not_prevent_the_metrics(runs, tmp_path, monkeypatch, caplog):
    config, workdir, _ = runs("ksvd")
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    for name in ("metrics.json", "evaluation.json"):
        (tmp_path / name).unlink(missing_ok=True)

    def fail(*args, **kwargs):
        raise RuntimeError("no font")

    for module in (evaluate, reporter):
        monkeypatch.setattr(module, "reconstruction_figure", fail)
    caplog.set_level("INFO", "laser_jax")
    loop.train(config, tmp_path)
    evaluate.evaluate(config, tmp_path)
    for name, figure in (("metrics", "/"), ("evaluation", "/test_")):
        assert f"{figure}reconstructions.png was not written: RuntimeError: no font" in caplog.text
        assert (tmp_path / f"{name}.json").exists()
    assert caplog.text.count("  psnr_pooled ") == 2


@pytest.mark.slow
def test_evaluation_uses_moving_averages_that_forget_the_initial_weights(
    tiny_config, tmp_path, runs
):
    configure(tiny_config, "dl").optimizer.ema_decay = 0.999
    state = loop.train(tiny_config, tmp_path)
    psnr = [
        json.loads((workdir / "metrics.json").read_text())["val/psnr"]
        for workdir in (tmp_path, runs("dl")[1])
    ]
    assert psnr[0] > psnr[1] - 1.5  # 40 steps of 0.999 alone: far below
    variables = laser_jax.load(tmp_path).variables
    jax.tree.map(np.testing.assert_array_equal, variables["params"], state.ema_params["params"])
    atoms = variables["dictionary"]["bottleneck"]["atoms"]
    np.testing.assert_array_equal(atoms, state.ema_params["atoms"])
    assert np.max(np.abs(np.asarray(atoms) - np.asarray(state.dictionary["atoms"]))) > 1e-4


def test_exploding_loss_stops_the_run_and_keeps_the_checkpoint(tiny_config, tmp_path):
    configure(tiny_config, "dl").optimizer.learning_rate = 1e6
    tiny_config.optimizer.grad_clip_norm = 1e6
    tiny_config.optimizer.warmup_steps = 15
    message = r"step \d+ is not finite \(loss \S+, norm of the gradient \S+\).*learning_rate"
    with pytest.raises(NotFiniteError, match=message):
        loop.train(tiny_config, tmp_path)
    state = laser_jax.load(tmp_path).state
    assert all_finite(state)


@pytest.fixture
def nan_batches(monkeypatch):
    """A function that makes the batches of the given steps NaN."""

    def set_steps(steps):
        batches = itertools.count(1)

        def put(batch, mesh):
            if isinstance(batch, tuple):  # of an evaluation
                return put_batch(batch, mesh)
            batch = batch.astype(np.float32) / 255
            return put_batch(np.nan * batch if next(batches) in steps else batch, mesh)

        monkeypatch.setattr(loop, "put_batch", put)

    return set_steps


def all_finite(state):
    return all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


@pytest.mark.parametrize("name", ["dl", pytest.param("rvq by gradient", marks=pytest.mark.slow)])
def test_replaced_atom_resets_its_average_and_its_moments(name, tiny_config):
    config = configure(tiny_config, name)
    config.optimizer.ema_decay = 0.9
    config.model.update(usage_decay=0.5, min_usage=0.5, replace_every_steps=3)
    setup = Setup.from_config(config)
    train_step, state = TrainStep(setup), initial_state(setup)
    images = np.random.default_rng(0).integers(256, size=(16, 32, 32, 3), dtype=np.uint8)
    for _ in range(3):
        state, _, _ = train_step(state, put_batch(images, setup.mesh))
    state = jax.device_get(state)
    replaced = state.dictionary["usage"] == 1  # an atom starts with the mean use
    assert 0 < np.sum(replaced) < len(replaced)
    average, atoms = state.ema_params["atoms"], state.dictionary["atoms"]
    np.testing.assert_array_equal(average[replaced], atoms[replaced])
    assert np.all(np.any(average[~replaced] != atoms[~replaced], axis=-1))
    moments = [x for x in jax.tree.leaves(state.opt_state["dictionary"]) if x.ndim == 2]
    assert len(moments) == 2 and not np.any([moment[replaced] for moment in moments])
    used = ~replaced & np.any(moments[0] != 0, axis=-1)
    assert np.any(used) and np.all(np.any(moments[1][used] > 0, axis=-1))


@pytest.mark.parametrize(
    "name", ["dl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vq", "ksvd"))]
)
def test_nan_batch_changes_nothing_but_the_step(name, tiny_config):
    configure(tiny_config, name)
    setup = Setup.from_config(tiny_config)
    train_step, state = TrainStep(setup), initial_state(setup)
    images = np.random.default_rng(0).random((16, 32, 32, 3), np.float32)
    state, metrics, _ = train_step(state, put_batch(images, setup.mesh))
    before = jax.device_get(state)
    assert metrics["finite"] and all_finite(before)
    images[3, 4, 5, 1] = np.nan
    state, metrics, _ = train_step(state, put_batch(images, setup.mesh))
    assert not metrics["finite"] and int(state.step) == 2
    assert_same_state(jax.device_get(state.replace(step=before.step)), before)


@pytest.mark.parametrize("name", slow_but(*QUICK)[:-1])
def test_float64_step_is_float64_throughout(name, tiny_config):
    configure(tiny_config, name).model.dtype = "float64"
    with jax.enable_x64(True):
        setup = Setup.from_config(tiny_config)
        state = abstract_state(setup)
        images = jax.ShapeDtypeStruct((16, 32, 32, 3), np.uint8)
        new, metrics, _ = jax.eval_shape(TrainStep(setup), state, images)
        tiny_config.model.dtype = "float32"
        with pytest.raises(ValueError, match="model.dtype float32 needs .* JAX_ENABLE_X64=0"):
            build_model(tiny_config)
    assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
    floats = [x.dtype for x in jax.tree.leaves(new) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {*floats, metrics["loss"].dtype} == {np.dtype("float64")}


def test_nan_batches_are_skipped_counted_and_logged(tiny_config, tmp_path, nan_batches, caplog):
    configure(tiny_config, "ksvd").not_finite = "skip"
    tiny_config.log_every_steps = 5
    nan_batches({10, *range(21, 26)})  # including all steps between two points of the curves
    caplog.set_level("WARNING", "laser_jax")
    state = loop.train(tiny_config, tmp_path)
    assert int(state.step) == 40 and all_finite(state)
    first = "step 10 is not finite (loss nan, norm of the gradient nan) and is skipped"
    assert f"{first} (1 of at most 10)" in caplog.text
    assert "step 25 is not finite" in caplog.text and "(6 of at most 10)" in caplog.text
    curves = read_curves(tmp_path)
    assert [value for _, value in curves["train/skipped_steps"]] == [0, 1, 1, 1, 6, 6, 6, 6]
    assert [step for step, _ in curves["train/loss"]] == [5, 10, 15, 20, 30, 35, 40]
    assert [step for step, _ in curves["train/ssim"]] == [5, 15, 20, 30, 35, 40]
    assert all(np.isfinite(value) for curve in curves.values() for _, value in curve)


@pytest.mark.parametrize(
    "policy, message",
    [
        ("stop", r"step 7 is not finite \(loss nan.*nan\)\. The last .*not_finite=skip"),
        (
            "skip",
            r"step 9 is not finite .*, after 2 skipped steps \(max_skipped",
        ),
    ],
)
def test_run_stops_at_the_limit_of_skipped_steps(
    policy, message, tiny_config, tmp_path, nan_batches
):
    configure(tiny_config, "ksvd").not_finite = policy
    tiny_config.max_skipped_steps = 2
    nan_batches({7, 8, 9})
    with pytest.raises(NotFiniteError, match=message):
        loop.train(tiny_config, tmp_path)
    assert int(laser_jax.load(tmp_path).state.step) == 0


def test_best_checkpoint_is_kept_and_can_be_evaluated(runs, tmp_path):
    config, workdir, _ = runs("ksvd")
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    config = config.copy_and_resolve_references()
    config.eval.checkpoint, config.best_metric = "best", "psnr"
    best = laser_jax.load(tmp_path, checkpoint="best").state
    assert int(best.step) in (20, 40)  # the validated ones
    assert evaluate.evaluate(config, tmp_path)["step"] == int(best.step)
    with pytest.raises(ValueError, match="unknown checkpoint 'last'; choose from best, newest"):
        laser_jax.load(tmp_path, checkpoint="last")


def test_workdir_of_another_architecture_raises_and_is_unchanged(runs, tmp_path):
    config, workdir, state = runs("ksvd")
    stored = (workdir / "config.json").read_text()
    other = config.copy_and_resolve_references()
    other.model.num_embeddings = 64
    other.model.sparsity_level = 2
    with pytest.raises(ValueError, match="num_embeddings: 32 stored, 64 given(.|\n)*--workdir"):
        loop.train(other, workdir)
    assert (workdir / "config.json").read_text() == stored
    other = config.copy_and_resolve_references()
    other.optimizer.ema_decay = 0.5
    other.adversarial.update(weight=0.1, start_step=20, warmup_steps=10)
    with pytest.raises(ValueError, match=r"ema_decay: 0.0 stored, 0.5") as caught:
        loop.train(other, workdir)
    assert "adversarial" not in str(caught.value)  # a discriminator may be added
    assert_same_state(laser_jax.load(workdir).state, state)


def test_run_stored_before_newer_keys_resumes(runs, tmp_path):
    config, workdir, state = runs("ksvd")
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    stored = json.loads((tmp_path / "config.json").read_text())
    later = ("adversarial", "weights", "best_metric", "not_finite", "max_skipped_steps")
    stored = {key: value for key, value in stored.items() if key not in later}
    keys = {
        "model": ("coefficient_l1_weight", "coherence_weight"),
        "eval": ("perceptual", "checkpoint"),
        "loss": ("perceptual_weight",),
    }
    for group, added in keys.items():
        for key in added:
            del stored[group][key]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert_same_state(laser_jax.load(tmp_path).state, state)
    assert_same_state(loop.train(read_config(tmp_path), tmp_path), state)
    assert_same_state(loop.train(config, tmp_path), state)


def test_invalid_batch_sizes_and_intervals_raise_before_workdir_is_created(tiny_config, tmp_path):
    tiny_config.data.batch_size = 15
    with pytest.raises(
        ValueError, match=r"data.batch_size must be a positive multiple .* 2, got 15"
    ):
        loop.train(tiny_config, tmp_path)
    tiny_config.data.batch_size = 16
    tiny_config.log_every_steps = 0
    with pytest.raises(ValueError, match="log_every_steps must be at least 1, got 0"):
        loop.train(tiny_config, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "group, values, message",
    [
        ("loss", {"mr_dct_weight": -1.0}, "mr_dct_weight must not be negative, got -1"),
        ("loss", {"mr_grad_weight": 1.0, "mr_grad_levels": 6}, "got 6 levels for 32x32"),
        (
            "loss",
            {"perceptual_weight": 1.0, "perceptual_net": "vgg19"},
            "perceptual_net 'vgg19'",
        ),
        ("adversarial", {"weight": 1.0}, "must hold, got 200, 501 and 40"),
        ("model", {"coherence_weight": 1.0}, "needs a dictionary that learns by gradient"),
    ],
)
def test_invalid_losses_raise_before_workdir_is_created(
    group, values, message, tiny_config, tmp_path
):
    tiny_config[group].update(values)
    with pytest.raises(ValueError, match=message):
        loop.train(tiny_config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_missing_weights_raise_before_workdir_is_created(tiny_config, tmp_path):
    tiny_config.loss.perceptual_weight = 1.0
    tiny_config.weights.lpips = str(tmp_path / "weights")
    with pytest.raises(WeightsUnavailable, match="vgg16.ckpt does not exist"):
        loop.train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unwritable_workdir_raises(tiny_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the workdir .*file/run cannot be written"):
        loop.train(tiny_config, tmp_path / "file" / "run")


codes_of_one_index = pytest.mark.parametrize(
    "name, vocabulary",
    [pytest.param("vq", 32, marks=pytest.mark.slow), ("fsq", 8 * 6 * 5)],
)


class TestLoad:
    @pytest.fixture
    def images(self, photo_patches_dir):
        from laser_jax.data import open_source

        source = open_source(
            "photo_patches", split="test", image_size=32, data_dir=photo_patches_dir
        )
        return np.stack([source[i] for i in range(5)])

    @pytest.mark.parametrize("name", EVERY)
    def test_decoded_code_equals_the_reconstruction(self, name, runs, images):
        model = laser_jax.load(runs(name)[1])
        code = model.encode(images)
        assert code.indices.shape[:1] == (5,) and code.indices.ndim == 4
        np.testing.assert_allclose(model.decode(code), model.reconstruct(images), atol=1e-5)

    def test_float_and_uint8_images_have_the_same_reconstruction(self, runs, images):
        model = laser_jax.load(runs("ksvd")[1])
        out = model.reconstruct(images)
        assert out.shape == images.shape and 0 <= out.min() and out.max() <= 1
        np.testing.assert_allclose(model.reconstruct(images / 255.0), out, atol=1e-4)

    @codes_of_one_index
    def test_decoded_tokens_equal_the_reconstruction(self, name, vocabulary, runs):
        images = np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8)
        model = laser_jax.load(str(runs(name)[1]))
        indices, h, w = model.encode_to_indices(images)
        assert indices.shape == (5, 64) and indices.dtype == np.int32 and (h, w) == (8, 8)
        assert 0 <= indices.min() and indices.max() < vocabulary
        np.testing.assert_allclose(
            model.decode_from_indices(indices, h, w), model.reconstruct(images), atol=1e-5
        )

    def test_tokens_of_a_sparse_code_raise(self, runs, images):
        with pytest.raises(ValueError, match="got 'ksvd'"):
            laser_jax.load(runs("ksvd")[1]).encode_to_indices(images)

    @codes_of_one_index
    def test_invalid_token_indices_raise(self, name, vocabulary, runs):
        model, right = laser_jax.load(runs(name)[1]), np.zeros((2, 16), int)
        assert model.decode_from_indices(right + vocabulary - 1, 4, 4).shape == (2, 16, 16, 3)
        for value in (vocabulary, -1, 2**32):
            with pytest.raises(
                ValueError, match=rf"must be in \[0, {vocabulary}\), got 0 to|got -1"
            ):
                model.decode_from_indices(np.where(np.arange(16) == 3, value, right), 4, 4)
        for dtype in (float, bool):
            with pytest.raises(ValueError, match="indices must be integers"):
                model.decode_from_indices(right.astype(dtype), 4, 4)
        for shape in ((2, 64), (1, 32), (2, 4, 4), (32,)):
            with pytest.raises(ValueError, match="shape .b, h w. with h, w = 4, 4"):
                model.decode_from_indices(np.zeros(shape, int), 4, 4)
        with pytest.raises(ValueError, match="both at least 1"):
            model.decode_from_indices(right, -4, -4)

    @pytest.mark.parametrize(
        "name, atoms", [pytest.param("vq", 32, marks=pytest.mark.slow), ("fsq", 3), ("ksvd", 32)]
    )
    def test_invalid_codes_raise(self, name, atoms, runs):
        model = laser_jax.load(runs(name)[1])
        indices, ones = np.zeros((2, 4, 4, 1), int), np.ones((2, 4, 4, 1), np.float32)
        assert model.decode(SparseCode(indices + atoms - 1, ones)).shape == (2, 16, 16, 3)
        flaws = {
            rf"indices of the code must be in \[0, {atoms}\)": (indices + atoms, ones),
            r"got -1 to -1": (indices - 1, ones),
            "coefficients of the code must be finite": (indices, ones * np.nan),
            "integer indices and real coefficients": (ones, ones),
            "one shape": (indices, ones[..., 0]),
            r"shape \(b, h, w, k\), got \(4, 4, 1\)": (indices[0], ones[0]),
        }
        for message, code in flaws.items():
            with pytest.raises(ValueError, match=message):
                model.decode(SparseCode(*code))

    def test_images_out_of_range_raise(self, runs, images):
        with pytest.raises(ValueError, match=r"float in \[0, 1\], got float32 in \[3.0, 44.0\]"):
            laser_jax.load(runs("ksvd")[1]).reconstruct(images.astype(np.float32))

    def test_directory_without_a_run_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no run"):
            laser_jax.load(tmp_path)

    @pytest.mark.parametrize(
        "text", [b"", b"{", b"[]", b"null", b'{"model_type": "bert"}', b'{"model": 3}', b"\xff"]
    )
    def test_config_file_of_another_program_is_named(self, text, tmp_path):
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(ValueError, match="config.json is not the config of a run: .*\\.$"):
            laser_jax.load(tmp_path)
