"""The type and the range of every key of a config.

`SETTINGS` is the only definition: a run checks its config against it before it writes any file,
and docs/configuration.md is generated from it and from the comments of `configs/default.py`
(`python -m docs.configuration`). A new key of `configs/default.py` needs an entry here.
"""

import dataclasses
import math
import sys
from typing import ClassVar

from laser_jax.data.folder import SPLIT_RULES
from laser_jax.data.source import SPLITS
from laser_jax.models.bottlenecks import DICTIONARY_UPDATES, SPARSE_CODERS
from laser_jax.models.bottlenecks.dictionary_learning import RATE_DISTORTION
from laser_jax.models.build import BOTTLENECKS
from laser_jax.models.precision import DTYPES
from laser_jax.pretrained.lpips import PRECISIONS, TRUNKS
from laser_jax.sparse.ksvd import METHODS
from laser_jax.training.checkpoints import BEST_METRICS, WHICH

_INT32 = 2**31 - 1  # steps are counted in int32
_FLOAT = sys.float_info.max  # the largest finite number


class Setting:
    """The type and range of a key: `type`, and `str(setting)` as the docs show it."""

    def check(self, key, value):
        """Raises ValueError unless the value is allowed for the key."""
        fault = self.fault(value)
        if fault:
            raise ValueError(f"{key} {fault}, got {value!r}.")

    def fault(self, value):
        """Returns the error in a value, None if it is allowed."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Integer(Setting):
    """An integer in [least, most], a multiple of `multiple_of`."""

    least: int
    most: int = _INT32
    multiple_of: int = 1
    type: ClassVar = "int"

    def fault(self, value):
        if not isinstance(value, int) or isinstance(value, bool):
            return "must be an integer"
        if value < self.least:
            return f"must be at least {self.least}"
        if value > self.most:
            return f"must be at most {self.most}"
        return f"must be a multiple of {self.multiple_of}" if value % self.multiple_of else None

    def __str__(self):
        bounds = f">= {self.least}" if self.most == _INT32 else f"{self.least} to {self.most}"
        return bounds + f", a multiple of {self.multiple_of}" * (self.multiple_of > 1)


@dataclasses.dataclass(frozen=True)
class Real(Setting):
    """A finite number in [least, most]; `above` and `below` are exclusive bounds."""

    least: float | None = None
    above: float | None = None
    below: float | None = None
    most: float = _FLOAT
    type: ClassVar = "float"

    def fault(self, value):
        if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value):
            return "must be a number"
        if self.least is not None and value < self.least:
            return f"must be at least {self.least:g}" if self.least else "must not be negative"
        if self.above is not None and value <= self.above:
            return f"must be above {self.above:g}"
        if self.below is not None and value >= self.below:
            return f"must be below {self.below:g}"
        if value > self.most:
            return "must be finite" if self.most == _FLOAT else f"must be at most {self.most:g}"
        return None

    def __str__(self):
        low = f"[{self.least:g}" if self.above is None else f"({self.above:g}"
        if self.below is not None:
            return f"{low}, {self.below:g})"
        if self.most < _FLOAT:
            return f"{low}, {self.most:g}]"
        return f">= {self.least:g}" if self.above is None else f"> {self.above:g}"


@dataclasses.dataclass(frozen=True)
class Choice(Setting):
    """One of several values of the same type."""

    values: tuple

    @property
    def type(self):
        """Its name in the docs."""
        return type(self.values[0]).__name__

    def check(self, key, value):
        if type(value).__name__ != self.type or value not in self.values:
            known = ", ".join(sorted(map(str, self.values)))
            raise ValueError(f"unknown {key} {value!r}; choose from {known}.")

    def __str__(self):
        return ", ".join(f"`{x}`" for x in self.values)


@dataclasses.dataclass(frozen=True)
class Flag(Setting):
    """True or False."""

    type: ClassVar = "bool"

    def fault(self, value):
        return None if isinstance(value, bool) else "must be True or False"

    def __str__(self):
        return "True, False"


@dataclasses.dataclass(frozen=True)
class Text(Setting):
    """A string that is not empty."""

    type: ClassVar = "str"

    def fault(self, value):
        return None if isinstance(value, str) and value.strip() else "must be a string, not empty"

    def __str__(self):
        return ""


@dataclasses.dataclass(frozen=True)
class Several(Setting):
    """A tuple of values of one kind; with `or_one`, a single value stands for all of them."""

    kind: Integer
    length: int | None = None
    or_one: bool = False

    @property
    def type(self):
        """Its name in the docs."""
        values = f"{self.length} {self.kind.type}s" if self.length else f"{self.kind.type}s"
        return f"{self.kind.type} or {values}" if self.or_one else values

    def fault(self, value):
        if not isinstance(value, tuple | list):
            return self.kind.fault(value) if self.or_one else f"must be a tuple of {self.type}"
        if len(value) != (self.length or max(len(value), 1)):
            return f"must have {self.length or 'one or more'} values"
        return next((fault for fault in map(self.kind.fault, value) if fault), None)

    def __str__(self):
        return f"{self.kind} each"


@dataclasses.dataclass(frozen=True)
class Optional(Setting):
    """None, or a value that another setting allows."""

    kind: Setting

    @property
    def type(self):
        """Its name in the docs."""
        return f"{self.kind.type} or None"

    def check(self, key, value):
        if value is not None:
            self.kind.check(key, value)

    def __str__(self):
        return str(self.kind)


_COUNT, _COUNT_OR_NONE = Integer(1), Integer(0)
_LEVELS = Integer(1, 16)  # of halvings of an image
_WEIGHT, _SHARE, _RATE = Real(0), Real(0, below=1), Real(above=0)

SETTINGS = {
    "seed": Integer(0, 2**32 - 1),
    "num_train_steps": _COUNT,
    "log_every_steps": _COUNT,
    "eval_every_steps": _COUNT,
    "checkpoint_every_steps": _COUNT,
    "keep_checkpoints": _COUNT,
    "best_metric": Choice(tuple(BEST_METRICS)),
    "not_finite": Choice(("stop", "skip")),
    "max_skipped_steps": _COUNT_OR_NONE,
    "data.name": Text(),
    "data.data_dir": Optional(Text()),
    "data.image_size": Integer(11),  # SSIM's window
    "data.channels": Choice((3, 1)),
    "data.split_rule": Choice(SPLIT_RULES[::-1]),
    "data.batch_size": _COUNT,
    "data.flip": Flag(),
    "data.crop_padding": _COUNT_OR_NONE,
    "data.num_threads": _COUNT,
    "model.bottleneck": Choice(BOTTLENECKS),
    "model.num_hiddens": Integer(2, multiple_of=2),
    "model.num_residual_blocks": _COUNT_OR_NONE,
    "model.num_residual_hiddens": _COUNT,
    "model.num_downsamples": _LEVELS,
    "model.dtype": Choice(DTYPES),
    "model.num_embeddings": _COUNT,
    "model.embedding_dim": _COUNT,
    "model.commitment_cost": _WEIGHT,
    "model.usage_decay": _SHARE,
    "model.min_usage": _SHARE,
    "model.replace_every_steps": _COUNT_OR_NONE,
    "model.num_stages": _COUNT,
    "model.use_ema": Flag(),
    "model.decay": _SHARE,
    "model.fsq_levels": Several(Integer(2)),
    "model.sparsity_level": _COUNT,
    "model.patch_size": Several(Integer(1), length=2, or_one=True),
    "model.sparse_coder": Choice((*SPARSE_CODERS, RATE_DISTORTION)),
    "model.tolerance": Optional(Real(0)),
    "model.bit_price": _WEIGHT,
    "model.coefficient_step": Real(above=0),
    "model.dictionary_update": Optional(Choice(DICTIONARY_UPDATES)),
    "model.dictionary_weight": _WEIGHT,
    "model.coefficient_l1_weight": _WEIGHT,
    "model.coherence_weight": _WEIGHT,
    "model.dict_learning_rate": _RATE,
    "model.ksvd_iterations": _COUNT,
    "model.ksvd_method": Choice(METHODS),
    "model.dictionary_decay": _SHARE,
    "model.update_every_steps": _COUNT,
    "model.normalize_atoms": Flag(),
    "model.max_coherence": Real(above=0, most=1),
    "loss.mse_weight": _WEIGHT,
    "loss.l1_weight": _WEIGHT,
    "loss.perceptual_weight": _WEIGHT,
    "loss.perceptual_net": Choice(tuple(TRUNKS)),
    "loss.perceptual_precision": Choice(tuple(PRECISIONS)),
    "loss.mr_dct_weight": _WEIGHT,
    "loss.mr_dct_levels": _LEVELS,
    "loss.mr_grad_weight": _WEIGHT,
    "loss.mr_grad_levels": _LEVELS,
    "adversarial.weight": _WEIGHT,
    "adversarial.start_step": _COUNT,
    "adversarial.warmup_steps": _COUNT_OR_NONE,
    "adversarial.num_hiddens": _COUNT,
    "adversarial.num_downsamples": _LEVELS,
    "adversarial.learning_rate": _RATE,
    "optimizer.learning_rate": _RATE,
    "optimizer.warmup_steps": _COUNT_OR_NONE,
    "optimizer.b1": _SHARE,
    "optimizer.b2": _SHARE,
    "optimizer.weight_decay": _WEIGHT,
    "optimizer.grad_clip_norm": Real(above=0, most=math.inf),
    "optimizer.ema_decay": _SHARE,
    "eval.batch_size": _COUNT,
    "eval.coefficient_bits": Integer(1, 64),
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
    if padding >= size:
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
