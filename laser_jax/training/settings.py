"""The type and the range of every key of a config.

`SETTINGS` is the only definition: a run checks its config against it before it writes any file,
and docs/configuration.md is generated from it and from the comments of `configs/default.py`
(`python -m docs.configuration`). A key that is a field of a constructor has its default and range
there (`laser_jax.ranges`); another key of `configs/default.py` needs an entry here.
"""

import math

from laser_jax.data.folder import SPLIT_RULES
from laser_jax.data.source import SPLITS
from laser_jax.losses import ImageLoss
from laser_jax.models.autoencoder import Autoencoder
from laser_jax.models.bottlenecks import DictionaryLearning
from laser_jax.models.build import BOTTLENECKS, config_keys
from laser_jax.models.discriminator import PatchDiscriminator
from laser_jax.models.precision import DTYPES
from laser_jax.priors import KINDS, TokenTransformer
from laser_jax.ranges import (
    COUNT,
    COUNT_OR_NONE,
    RATE,
    SHARE,
    WEIGHT,
    Choice,
    Flag,
    Integer,
    Optional,
    Real,
    Several,
    Text,
    as_size,
    settings_of,
)
from laser_jax.training.checkpoints import BEST_METRICS, WHICH


def _ranges(group, cls):
    """Returns key -> range of the keys of a group that are fields of a class."""
    ranges = settings_of(cls)
    return {f"{group}.{key}": ranges[field] for field, key in config_keys(cls).items()}


SETTINGS = {
    "seed": Integer(0, 2**32 - 1),
    "num_train_steps": COUNT,
    "log_every_steps": COUNT,
    "eval_every_steps": COUNT,
    "checkpoint_every_steps": COUNT,
    "keep_checkpoints": COUNT,
    "best_metric": Choice(tuple(BEST_METRICS)),
    "not_finite": Choice(("stop", "skip")),
    "max_skipped_steps": COUNT_OR_NONE,
    "patience": COUNT_OR_NONE,
    "autoencoder": Optional(Text()),
    "init_from": Optional(Text()),
    "profile_step": COUNT_OR_NONE,
    "data.name": Text(),
    "data.data_dir": Optional(Text()),
    "data.image_size": Several(Integer(11), length=2, or_one=True),  # 11: SSIM's window
    "data.channels": Choice((3, 1)),
    "data.split_rule": Choice(SPLIT_RULES[::-1]),
    "data.batch_size": COUNT,
    "data.flip": Flag(),
    "data.crop_padding": COUNT_OR_NONE,
    "data.num_threads": COUNT,
    "data.num_workers": COUNT_OR_NONE,
    "data.min_crop_area": Real(above=0, most=1),
    "model.bottleneck": Choice(tuple(BOTTLENECKS)),
    "model.dtype": Choice(DTYPES),
    **_ranges("model", Autoencoder),
    **{key: range for cls in BOTTLENECKS.values() for key, range in _ranges("model", cls).items()},
    "model.num_atoms": COUNT,
    # None: as the name of the bottleneck says.
    "model.dictionary_update": Optional(settings_of(DictionaryLearning)["dictionary_update"]),
    **_ranges("loss", ImageLoss),
    **_ranges("adversarial", PatchDiscriminator),
    "adversarial.weight": WEIGHT,
    "adversarial.start_step": COUNT,
    "adversarial.warmup_steps": COUNT_OR_NONE,
    "adversarial.learning_rate": RATE,
    "prior.kind": Optional(Choice(tuple(KINDS))),
    "prior.copies": COUNT,
    "prior.use_labels": Flag(),
    "prior.dtype": Choice(DTYPES),
    **_ranges("prior", TokenTransformer),
    "optimizer.learning_rate": RATE,
    "optimizer.warmup_steps": COUNT_OR_NONE,
    "optimizer.b1": SHARE,
    "optimizer.b2": SHARE,
    "optimizer.weight_decay": WEIGHT,
    "optimizer.grad_clip_norm": Real(above=0, most=math.inf),
    "optimizer.ema_decay": SHARE,
    "optimizer.accumulate_steps": COUNT,
    "eval.batch_size": COUNT,
    "eval.coefficient_bits": Integer(1, 64),
    "eval.table_images": COUNT_OR_NONE,
    "eval.checkpoint": Choice(WHICH),
    "eval.split": Choice(SPLITS),
    "eval.perceptual": Flag(),
    "weights.lpips": Optional(Text()),
    "weights.inception": Optional(Text()),
}


def check_config(config):
    """Checks the type and the range of every key of a config.

    Raises:
      ValueError: if a key is missing, unknown, of a wrong type or out of its range.
    """
    values = flat_config(config)
    if values.keys() != SETTINGS.keys():
        missing, unknown = SETTINGS.keys() - values.keys(), values.keys() - SETTINGS.keys()
        raise ValueError(
            f"the config has missing keys {sorted(missing)} or unknown keys {sorted(unknown)}. Its "
            "keys must be those of SETTINGS in laser_jax/training/settings.py."
        )
    for key, setting in SETTINGS.items():
        setting.check(key, values[key])
    padding, size = config.data.crop_padding, config.data.image_size
    if padding >= min(as_size(size)):
        raise ValueError(
            f"data.crop_padding must be below data.image_size {size}, got {padding}: there are no "
            "more pixels to reflect."
        )


def flat_config(config):
    """Returns the values of a config by dotted key."""

    def walk(values, prefix):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(walk(config.to_dict(), ""))
