"""Builds a model from a config, and checks all that needs no data."""

import logging
from typing import Any

from laser_jax.checks import check_choice
from laser_jax.models.autoencoder import Autoencoder
from laser_jax.models.bottlenecks import (
    Bottleneck,
    DictionaryLearning,
    FiniteScalarQuantizer,
    HybridQuantizer,
    VectorQuantizer,
)
from laser_jax.models.bottlenecks.coding import RATE_DISTORTION
from laser_jax.models.bottlenecks.output import as_pair
from laser_jax.models.precision import network_dtype
from laser_jax.ranges import as_size, settings_of

log = logging.getLogger("laser_jax")

BOTTLENECKS = {
    "vq": VectorQuantizer,
    "rvq": VectorQuantizer,
    "fsq": FiniteScalarQuantizer,
    "dl": DictionaryLearning,
    "ksvd": DictionaryLearning,
    "hybrid": HybridQuantizer,
}
# Fields that the name of the bottleneck sets: always, or if the key is None.
_FIXED = {"vq": {"num_stages": 1}}
_PRESETS = {"dl": {"dictionary_update": "gradient"}, "ksvd": {"dictionary_update": "ksvd"}}
# Fields whose key in `config.model` has another name.
_KEYS = {"levels": "fsq_levels"}


def build_model(config: Any) -> Autoencoder:
    """Returns the `Autoencoder` that `config.model` describes.

    Args:
      config: the whole config; `data.image_size` is checked against the model.

    Raises:
      ValueError: if the values are inconsistent.
    """
    model = config.model
    check_choice("model.bottleneck", model.bottleneck, BOTTLENECKS)
    if model.num_downsamples < 1:
        raise ValueError(f"num_downsamples must be at least 1, got {model.num_downsamples}.")
    factor, size = 2**model.num_downsamples, config.data.image_size
    if any(side % factor for side in as_size(size)):
        raise ValueError(
            f"image size {size} (data.image_size) is not divisible by the downsampling {factor} "
            "(2^num_downsamples)."
        )
    autoencoder = Autoencoder(
        bottleneck=build_bottleneck(model),
        in_channels=config.data.channels,
        **{field: model[key] for field, key in config_keys(Autoencoder).items()},
        dtype=network_dtype(model.dtype),
    )
    p, q = as_pair(autoencoder.bottleneck.patch_size)
    h, w = (side // factor for side in as_size(size))
    if h % p or w % q:
        raise ValueError(
            f"the latent grid {h}x{w} is not divisible by patch_size {p}x{q}; "
            "change patch_size, image_size or num_downsamples."
        )
    return autoencoder


def config_keys(cls: Any) -> dict[str, str]:
    """Returns field -> key in `config.model` of the fields of a module that the config sets."""
    return {field: _KEYS.get(field, field) for field in settings_of(cls)}


def build_bottleneck(model: Any) -> Bottleneck:
    """Returns the bottleneck that `config.model` describes; its fields are keys of the config."""
    name, cls = model.bottleneck, BOTTLENECKS[model.bottleneck]
    parts = {}
    if name == "hybrid":
        sparse = _fields(model, DictionaryLearning) | {"num_embeddings": model.num_atoms}
        parts["sparse"] = DictionaryLearning(**sparse)
    given = _fields(model, cls)
    bottleneck = cls(**_PRESETS.get(name, {}) | given | _FIXED.get(name, {}), **parts)
    if bottleneck.has_coefficients and model.sparsity_level >= bottleneck.signal_width:
        log.warning(
            "sparsity_level %d is not below the signal width %d (embedding_dim x patch area): "
            "the code is exact by construction and compresses nothing.",
            model.sparsity_level,
            bottleneck.signal_width,
        )
    return bottleneck


def _fields(model, cls):
    """Returns the fields of a bottleneck that `config.model` gives."""
    fields = {field: model[key] for field, key in config_keys(cls).items()}
    given = {field: value for field, value in fields.items() if value is not None}
    if model.bottleneck == "hybrid" and RATE_DISTORTION in (model.stage_coder, model.sparse_coder):
        coder = model.sparse_coder if cls is DictionaryLearning else model.stage_coder
        given["price_warmup_steps"] *= coder == RATE_DISTORTION  # of the part that has a price
    return {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}  # from JSON
