"""Weights of a run that other runs start from, and that are exported without the rest."""

import pathlib
import tarfile

import jax
import numpy as np
import pytest

import laser_jax
from laser_jax.training import warm_start
from laser_jax.training.checkpoints import Checkpoints, DamagedCheckpoints
from laser_jax.training.loop import start_or_resume, train
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state, with_discriminator
from laser_jax.training.warm_start import take_weights
from laser_jax.training.workdir import check_same_run, read_config, write_config

STORED = pathlib.Path(__file__).parent.parent / "stored"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that unpacks a stored run, once; nothing may change it."""
    found = {}

    def unpack(name):
        if name not in found:
            with tarfile.open(STORED / f"{name}.tar.gz") as archive:
                archive.extractall(path := tmp_path_factory.mktemp(name), filter="data")
            (found[name],) = path.iterdir()
        return found[name]

    return unpack


def blank(setup):
    """Returns a state of zeros, which compiles nothing."""
    return jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), abstract_state(setup)
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize("name", ["dl_ema", "vq_adversarial"])
def test_saved_weights_load_without_optimizer_averages_and_discriminator(name, run, tmp_path):
    trained = laser_jax.load(run(name))
    trained.save(tmp_path / "weights")
    again = laser_jax.load(tmp_path / "weights")
    assert_same(again.variables, trained.variables)
    assert int(again.state.step) == 20 and again.config == trained.config
    assert not (again.state.opt_state or again.state.ema_params or again.state.extra)
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {
        "config.json", "weights.npz",
    }  # fmt: skip
    with pytest.raises(ValueError, match="is not empty; choose another directory"):
        trained.save(tmp_path / "weights")


def test_interrupted_save_can_be_made_again(run, tmp_path, monkeypatch):
    trained = laser_jax.load(run("vq"))
    with monkeypatch.context() as broken:
        broken.setattr(np, "savez", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained.save(tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []
    trained.save(tmp_path / "weights")
    assert_same(laser_jax.load(tmp_path / "weights").variables, trained.variables)


def test_source_that_gives_nothing_raises_before_the_workdir_exists(run, tmp_path):
    (tmp_path / "empty").mkdir()
    config = read_config(run("vq"))
    write_config(tmp_path / "no_checkpoint", config)
    config.model.num_hiddens, config.model.embedding_dim = 12, 20
    config.model.num_residual_hiddens = config.model.num_residual_hiddens + 2
    config.data.channels, config.data.name = 1, f"folder:{tmp_path / 'nowhere'}"
    for source, error, message in (
        (tmp_path / "empty", FileNotFoundError, "holds no run"),
        (tmp_path / "no_checkpoint", FileNotFoundError, "holds no checkpoint yet"),
        (run("vq"), ValueError, "no array of the network fits: init_from .* num_hiddens 12"),
    ):
        config.init_from = str(source)
        with pytest.raises(error, match=message):
            train(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_damaged_weights_raise_and_cannot_be_trained_further(run, tmp_path):
    laser_jax.load(run("vq")).save(tmp_path)
    with pytest.raises(ValueError, match="holds exported weights.* --config.init_from="):
        train(read_config(tmp_path), tmp_path)
    path = tmp_path / "weights.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpoints, match=r"weights.npz cannot be read"):
        laser_jax.load(tmp_path)


def test_new_run_takes_what_fits_and_names_the_rest(run, caplog):
    caplog.set_level("INFO", "laser_jax")
    config = read_config(run("vq"))
    config.model.num_residual_blocks += 1
    config.data.channels = 1
    config.optimizer.ema_decay = 0.9
    setup = Setup.from_config(config)
    start = blank(setup)
    state, has_atoms = take_weights(setup, start, run("vq"))
    source = laser_jax.load(run("vq")).state
    assert has_atoms
    assert_same(state.dictionary, source.dictionary)
    old, new = source.params["encoder"], state.params["encoder"]
    assert_same(new["Conv_0"], old["Conv_0"])
    assert_same(new["DownConv_0"]["kernel"], start.params["encoder"]["DownConv_0"]["kernel"])
    assert_same(state.ema_params["params"], state.params)
    assert "params/encoder/DownConv_0/kernel (4, 4, 1, 8) is new, there it is (4, 4, 3, 8)" in (
        caplog.text
    )
    assert "params/decoder/ResidualStack_0/Conv_2/kernel (3, 3, 16, 8) is new\n" in caplog.text
    assert jax.tree.structure(state) == jax.tree.structure(start)


def test_other_atoms_are_not_taken_and_unused_arrays_are_named(run, caplog):
    caplog.set_level("INFO", "laser_jax")
    config = read_config(run("ksvd"))
    config.model.num_embeddings *= 2
    config.model.num_residual_blocks = 0
    setup = Setup.from_config(config)
    start = blank(setup)
    state, has_atoms = take_weights(setup, start, run("ksvd"))
    assert not has_atoms
    assert_same(state.dictionary, start.dictionary)
    assert "params/encoder/ResidualStack_0/Conv_0/kernel (3, 3, 16, 8) is not used" in caplog.text


def test_arrays_beyond_the_named_ones_are_counted_by_group(run, caplog, monkeypatch):
    caplog.set_level("INFO", "laser_jax")
    monkeypatch.setattr(warm_start, "_MOST_NAMES", 1)
    config = read_config(run("vq"))
    config.model.num_residual_blocks += 3
    setup = Setup.from_config(config)
    take_weights(setup, blank(setup), run("vq"))
    assert "params/decoder/ResidualStack_0/...: 5 more are new" in caplog.text
    assert "params/encoder/ResidualStack_0/...: 6 more are new" in caplog.text


def test_atoms_of_another_learning_rule_get_statistics_of_their_own(run):
    config = read_config(run("dl"))
    config.model.dictionary_update = "online"
    setup = Setup.from_config(config)
    state, has_atoms = take_weights(setup, blank(setup), run("dl"))
    atoms = laser_jax.load(run("dl")).state.dictionary["atoms"]
    assert has_atoms
    assert_same(state.dictionary["atoms"], atoms)
    assert_same(state.dictionary["statistics"], setup.model.bottleneck.memory(atoms)["statistics"])


def test_discriminator_can_be_added_to_a_run_and_trains_after_its_warm_up(run, tmp_path, caplog):
    caplog.set_level("INFO", "laser_jax")
    workdir, config = run("vq"), read_config(run("vq"))
    config.num_train_steps = 60
    config.adversarial.update(weight=0.5, start_step=30, warmup_steps=10, num_hiddens=8)
    check_same_run(workdir, config)
    setup = Setup.from_config(config)
    with Checkpoints(workdir) as checkpoints:
        without = checkpoints.restore(abstract_state(setup))
    assert without.extra == {}
    with pytest.raises(ValueError, match=r"warmup_steps = 30, got 30"):
        with_discriminator(setup, without)
    config.adversarial.start_step = 31
    state = with_discriminator(Setup.from_config(config), without)
    assert "a discriminator is added after step 20" in caplog.text
    assert jax.tree.structure(state) == jax.tree.structure(abstract_state(setup))
    # The next checkpoint has it, those before stay readable.
    write_config(tmp_path, config)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        checkpoints.save(without)
        checkpoints.save(state.replace(step=state.step + 1))
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        found = start_or_resume(setup, tmp_path, checkpoints, None, None)
    assert int(found.step) == 21
    assert_same(found.extra, state.extra)
