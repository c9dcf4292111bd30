import pathlib

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from laser_jax.models import build_model
from laser_jax.training.command_line import load_config, override, split_overrides

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if path.stem not in ("default", "datasets")
)


def parse(*arguments):
    """Returns the default config with overrides from the command line."""
    _, overrides = split_overrides(arguments)
    config = load_config(ROOT / "configs" / "default.py")
    override(config, overrides, template=config)
    return config


def test_every_bottleneck_has_every_data_set():
    names = {
        f"{b}_{d}"
        for b in ("vqvae", "dlvae", "ksvd")
        for d in ("photos", "cifar10", "celeba", "imagenette")
    } | {"hybrid_photos", "hybrid_cifar10"}
    names |= {"tiny", "laser_photos", "vqvae_digits", "prior_digits", "prior_photos"}
    names |= {"vqgan_imagenette", "laser_imagenette"}
    assert set(CONFIGS) == names | {"prior_cifar10", "prior_imagenette"}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_builds_its_model(name):
    config = load_config(ROOT / "configs" / f"{name}.py")
    assert config.keys() == load_config(ROOT / "configs" / "tiny.py").keys()
    model = build_model(config)
    side, channels = config.data.image_size, config.data.channels
    out = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, side, side, channels)))[0]
    )
    assert out.reconstruction.shape == (2, side, side, channels)


def test_patch_size_can_be_a_number_or_a_pair():
    assert parse("--config.model.patch_size=4").model.patch_size == 4
    assert parse("--config.model.patch_size=(2, 4)").model.patch_size == (2, 4)


def test_optional_values_have_their_type():
    assert parse("--config.model.tolerance=0.5").model.tolerance == 0.5
    assert parse("--config.model.dictionary_update=online").model.dictionary_update == "online"
    assert parse("--config.data.data_dir=/data").data.data_dir == "/data"


def test_mistyped_key_names_the_nearest_key():
    with pytest.raises(ValueError, match='Did you mean.*"sparsity_level"'):
        parse("--config.model.sparsity_levl=4")


@pytest.mark.parametrize(
    "arguments, key, value",
    [
        (["--config.model.patch_size", "2"], "model.patch_size", 2),
        (["--config.model.patch_size", "(2, 4)"], "model.patch_size", (2, 4)),
        (["-config.model.sparsity_level", "2"], "model.sparsity_level", 2),
        (["--config.optimizer.weight_decay", "-1e-3"], "optimizer.weight_decay", -1e-3),
        (["--config.data.data_dir=None"], "data.data_dir", None),
        (["--config.weights.lpips", "None"], "weights.lpips", None),
        (["--config.model.tolerance=None"], "model.tolerance", None),
        (["--config.model.use_ema=false"], "model.use_ema", False),
        (["--config.model.use_ema", "false"], "model.use_ema", False),
        (["--noconfig.model.use_ema"], "model.use_ema", False),
        (["--config.data.flip=false", "--config.data.flip"], "data.flip", True),
        (["--config.data.flip", "--config.seed=3"], "data.flip", True),
        (["--config.model.fsq_levels=(8, 6)"], "model.fsq_levels", (8, 6)),
        (["--config.model.fsq_levels=8"], "model.fsq_levels", (8,)),
        (["--config.data.name=folder:a=b c\nd"], "data.name", "folder:a=b c\nd"),
        (["--config.data.name="], "data.name", ""),
    ],
)
def test_every_form_of_an_override_works(arguments, key, value):
    group, name = key.split(".")
    assert parse(*arguments)[group][name] == value


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config.model.patch_size"], "patch_size without a value: a value is needed"),
        (["--config.model.patch_size", "--mode=train"], "without a value: a value is needed"),
        (["--config.data.data_dir"], "without a value: a value is needed"),
        (["--config.model.patch_size=two"], "'two': it must be a number, or numbers such as"),
        (["--config.seed=None"], "invalid literal for int"),
        (["--config.seed=1.5"], "invalid literal for int"),
        (["--config.model.use_ema=2"], "model.use_ema = .2.: it must be true or false"),
        (["--noconfig.model.use_ema=1"], "--noconfig.model.use_ema=1 takes no value"),
        (["--noconfig.seed"], "'false': invalid literal for int"),
        (["--config.model=3"], "a group of keys, not a key"),
        (["--config.nothing.at=3"], "config.nothing.at is not a key of the config"),
        (["--config.seed.at=3"], "config.seed.at is not a key of the config"),
    ],
)
def test_override_of_wrong_key_or_type_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        parse(*arguments)


def test_overrides_are_split_from_other_flags_and_end_at_two_dashes():
    words = ["main.py", "--config=a.py", "--config.seed", "1", "--workdir", "w", "--", "--config.b"]
    rest = ["main.py", "--config=a.py", "--workdir", "w", "--", "--config.b"]
    assert split_overrides(words) == (rest, {"seed": "1"})


def test_stored_config_takes_overrides_with_the_types_of_the_default():
    default = load_config(ROOT / "configs" / "default.py")
    values = default.to_dict() | {"own": 3}
    values["data"]["data_dir"], values["model"]["patch_size"] = None, 1
    stored = ConfigDict(values)  # as from JSON: the types are those of the values
    texts = {"data.data_dir": "/data", "model.patch_size": "(2, 4)", "own": "4"}
    override(stored, texts, template=default)
    override(stored, {"model.tolerance": "0.5"}, template=default)
    found = stored.data.data_dir, stored.model.patch_size, stored.own, stored.model.tolerance
    assert found == ("/data", (2, 4), 4, 0.5)
    override(stored, {"data.data_dir": "None"}, template=default)
    assert stored.data.data_dir is None


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "config.py does not exist"),
        ("def get_config(:", r"cannot be used: SyntaxError: .*line 1\)"),
        ("", "cannot be used: AttributeError: module .* has no attribute 'get_config'"),
        ("def get_config(): return {}['a']", "cannot be used: KeyError: 'a'"),
        ("def get_config(): pass", "cannot be used: .*get_config.* returned None"),
    ],
)
def test_config_file_without_a_config_is_named(text, message, tmp_path):
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=f"{path.parent}.*{message}"):
        load_config(path)
