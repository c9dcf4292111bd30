"""Every key has a type and a range, checked before a run writes any file."""

import dataclasses
import math

import pytest

from configs import default
from docs import configuration
from laser_jax import evaluate
from laser_jax.losses import ImageLoss
from laser_jax.models import (
    Autoencoder,
    DictionaryLearning,
    FiniteScalarQuantizer,
    HybridQuantizer,
    VectorQuantizer,
    build_model,
)
from laser_jax.models.build import config_keys
from laser_jax.models.discriminator import PatchDiscriminator
from laser_jax.ranges import settings_of
from laser_jax.training import loop
from laser_jax.training.settings import SETTINGS, check_config
from laser_jax.training.setup import Setup
from laser_jax.training.workdir import flat_config

BELOW_1 = (0, -1)
NEGATIVE = (-1, -0.5, math.nan)
NOT_POSITIVE = (0.0, *NEGATIVE)
NOT_A_SHARE = (1.0, *NEGATIVE)
REFUSED = {
    "seed": (-1, 2**32, 0.5, True),
    "num_train_steps": (*BELOW_1, 2**31),
    "log_every_steps": BELOW_1,
    "eval_every_steps": BELOW_1,
    "checkpoint_every_steps": BELOW_1,
    "keep_checkpoints": BELOW_1,
    "best_metric": ("lpips", ""),
    "not_finite": ("ignore",),
    "max_skipped_steps": (-1,),
    "patience": (-1, 0.5),
    "autoencoder": ("", " "),
    "init_from": ("", " "),
    "profile_step": (-1,),
    "data.name": ("", " "),
    "data.data_dir": ("",),
    "data.image_size": (8, 10, 0, -32, (32,), (32, 8)),
    "data.channels": (2, 4, 0, True),
    "data.split_rule": (0, 4, "2"),
    "data.batch_size": BELOW_1,
    "data.flip": (1, "yes"),
    "data.crop_padding": (-1, 32),
    "data.num_threads": BELOW_1,
    "data.num_workers": (-1,),
    "data.min_crop_area": (*NOT_POSITIVE, 1.5),
    "model.bottleneck": ("ksv",),
    "model.network": ("unet",),
    "model.channel_multipliers": ((), (1, 0), (1, 2.0), 4),
    "model.attention_levels": ((-1,), 16),
    "model.z_channels": BELOW_1,
    "model.remat": (1,),
    "model.num_hiddens": (0, -2, 1, 3),
    "model.num_residual_blocks": (-1,),
    "model.num_residual_hiddens": BELOW_1,
    "model.num_downsamples": (*BELOW_1, 10**6),
    "model.dtype": ("float16",),
    "model.num_embeddings": BELOW_1,
    "model.embedding_dim": BELOW_1,
    "model.commitment_cost": (*NEGATIVE, math.inf),
    "model.usage_decay": NOT_A_SHARE,
    "model.min_usage": NOT_A_SHARE,
    "model.replace_every_steps": (-1,),
    "model.num_atoms": BELOW_1,
    "model.num_stages": BELOW_1,
    "model.stage_coder": ("omp",),
    "model.distance": ("l2",),
    "model.gradient_estimator": ("ste",),
    "model.price_warmup_steps": (-1,),
    "model.rate_weight": NEGATIVE,
    "model.use_ema": (0,),
    "model.decay": NOT_A_SHARE,
    "model.fsq_levels": ((), (8, 1), (8, 5.0), 8),
    "model.sparsity_level": BELOW_1,
    "model.patch_size": (0, True, (2,), (2, 2, 2), (2, 0), "2"),
    "model.sparse_coder": ("omg",),
    "model.tolerance": (*NEGATIVE, math.inf),
    "model.bit_price": NEGATIVE,
    "model.coefficient_step": NOT_POSITIVE,
    "model.dictionary_update": ("adam",),
    "model.dictionary_weight": NEGATIVE,
    "model.coefficient_l1_weight": NEGATIVE,
    "model.coherence_weight": NEGATIVE,
    "model.dict_learning_rate": NOT_POSITIVE,
    "model.ksvd_iterations": BELOW_1,
    "model.ksvd_method": ("svd",),
    "model.dictionary_decay": NOT_A_SHARE,
    "model.update_every_steps": BELOW_1,
    "model.normalize_atoms": ("",),
    "model.max_coherence": (*NOT_POSITIVE, 1.5),
    "loss.mse_weight": (*NEGATIVE, math.inf),
    "loss.l1_weight": NEGATIVE,
    "loss.perceptual_weight": NEGATIVE,
    "loss.perceptual_precision": ("high", None),
    "loss.perceptual_net": ("vgg19",),
    "loss.mr_dct_weight": NEGATIVE,
    "loss.mr_dct_levels": (*BELOW_1, 10**6),
    "loss.mr_grad_weight": NEGATIVE,
    "loss.mr_grad_levels": BELOW_1,
    "adversarial.weight": NEGATIVE,
    "adversarial.start_step": BELOW_1,
    "adversarial.warmup_steps": (-1,),
    "adversarial.num_hiddens": BELOW_1,
    "adversarial.num_downsamples": BELOW_1,
    "adversarial.learning_rate": NOT_POSITIVE,
    "prior.kind": ("gpt",),
    "prior.copies": BELOW_1,
    "prior.use_labels": (1,),
    "prior.width": BELOW_1,
    "prior.num_layers": BELOW_1,
    "prior.num_inner_layers": (-1,),
    "prior.num_heads": BELOW_1,
    "prior.dropout": NOT_A_SHARE,
    "prior.remat": (0,),
    "prior.dtype": ("float16",),
    "optimizer.learning_rate": NOT_POSITIVE,
    "optimizer.warmup_steps": (-1,),
    "optimizer.b1": NOT_A_SHARE,
    "optimizer.b2": NOT_A_SHARE,
    "optimizer.weight_decay": NEGATIVE,
    "optimizer.grad_clip_norm": NOT_POSITIVE,
    "optimizer.ema_decay": NOT_A_SHARE,
    "optimizer.accumulate_steps": BELOW_1,
    "eval.batch_size": BELOW_1,
    "eval.coefficient_bits": BELOW_1,
    "eval.table_images": (-1,),
    "eval.checkpoint": ("last",),
    "eval.split": ("last",),
    "eval.perceptual": (1,),
    "weights.lpips": ("",),
    "weights.inception": ("",),
}


def with_values(config, values):
    """Returns the config with values that ml_collections might reject."""
    for key, value in values.items():
        *groups, name = key.split(".")
        group = config
        for part in groups:
            group = group[part]
        with group.ignore_type():
            group[name] = value
    return config


def test_every_key_has_a_type_and_a_range():
    keys = flat_config(default.get_config()).keys()
    assert set(SETTINGS) == set(keys), (
        "configs/default.py and SETTINGS in laser_jax/training/settings.py must have the same "
        "keys: add the type and range of a new key there, values out of its range to REFUSED here, "
        f"and run python -m docs.configuration. They differ in {set(SETTINGS) ^ set(keys)}."
    )
    assert set(REFUSED) == set(SETTINGS), "REFUSED must have the keys of SETTINGS."


def test_configuration_reference_is_the_generated_page():
    found = configuration.PAGE.read_text()
    assert found == configuration.page(), "Run python -m docs.configuration."
    undocumented = [key for key in SETTINGS if not configuration.meanings().get(key)]
    assert not undocumented, f"configs/default.py has no comment for {undocumented}."


@pytest.mark.parametrize("name, module", [
    ("vq", VectorQuantizer()),
    ("rvq", VectorQuantizer(num_stages=4)),
    ("fsq", FiniteScalarQuantizer()),
    ("dl", DictionaryLearning(dictionary_update="gradient")),
    ("ksvd", DictionaryLearning()),
    ("hybrid", HybridQuantizer(num_stages=4, sparse=DictionaryLearning())),
])  # fmt: skip
def test_default_config_builds_modules_with_the_defaults_of_their_constructors(name, module):
    config = default.get_config()
    config.model.bottleneck = name
    assert build_model(config) == Autoencoder(bottleneck=module)
    assert Setup.from_config(config).image_loss == ImageLoss()
    config.adversarial.weight = 1.0
    assert Setup.from_config(config).adversary.discriminator == PatchDiscriminator()


@pytest.mark.parametrize("cls", [
    VectorQuantizer, FiniteScalarQuantizer, DictionaryLearning, HybridQuantizer, Autoencoder,
    ImageLoss, PatchDiscriminator,
])  # fmt: skip
def test_every_field_of_a_constructor_has_a_range_and_a_key(cls):
    others = {"bottleneck", "sparse", "in_channels", "dtype", "parent", "name"}
    assert {field.name for field in dataclasses.fields(cls)} - others == settings_of(cls).keys()
    group = {ImageLoss: "loss", PatchDiscriminator: "adversarial"}.get(cls, "model")
    assert {f"{group}.{key}" for key in config_keys(cls).values()} <= SETTINGS.keys()


@pytest.mark.parametrize("key", REFUSED)
def test_values_out_of_range_raise_before_any_file_is_written(key, tmp_path, refuses):
    for value in REFUSED[key]:
        config = with_values(default.get_config(), {key: value})
        with pytest.raises(ValueError, match=rf"{key} "):
            check_config(config)
        for command in (loop.train, evaluate.evaluate):
            refuses(command, config, tmp_path / "run")
    assert not list(tmp_path.iterdir())
