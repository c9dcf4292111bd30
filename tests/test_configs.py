import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest
from absl import flags
from ml_collections import config_flags

from laser_jax.models import build_model

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if path.stem not in ("default", "datasets")
)


def load_config(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.fixture
def parse(monkeypatch):
    """The config as the command line gives it."""

    def parse(*arguments):
        argv = ["main.py", f"--config={ROOT}/configs/default.py", *arguments]
        monkeypatch.setattr("sys.argv", argv)  # where config_flags looks for overrides
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        values(argv)
        return values.config

    return parse


def test_every_bottleneck_has_every_data_set():
    names = {
        f"{b}_{d}"
        for b in ("vqvae", "dlvae", "ksvd")
        for d in ("photos", "cifar10", "celeba", "imagenette")
    }
    assert set(CONFIGS) == names | {"tiny"}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_builds_its_model(name):
    config = load_config(name)
    assert config.keys() == load_config("tiny").keys()
    model = build_model(config)
    side = config.data.image_size
    out = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, side, side, 3)))[0]
    )
    assert out.reconstruction.shape == (2, side, side, 3)


def test_patch_size_is_taken_as_a_number_and_as_a_pair(parse):
    assert parse("--config.model.patch_size=4").model.patch_size == 4
    assert parse("--config.model.patch_size=(2, 4)").model.patch_size == (2, 4)


def test_optional_values_are_typed(parse):
    assert parse("--config.model.tolerance=0.5").model.tolerance == 0.5
    assert parse("--config.model.dictionary_update=online").model.dictionary_update == "online"
    assert parse("--config.data.data_dir=/data").data.data_dir == "/data"


def test_a_mistyped_key_names_the_nearest_right_one(parse):
    with pytest.raises(AttributeError, match='Did you mean.*"sparsity_level"'):
        parse("--config.model.sparsity_levl=4")
