"""From a config to a model, with every check that needs no data."""

import logging

from laser_jax.checks import check_choice
from laser_jax.models.autoencoder import Autoencoder
from laser_jax.models.bottlenecks import (
    DictionaryLearning,
    FiniteScalarQuantizer,
    VectorQuantizer,
)
from laser_jax.models.bottlenecks.output import as_pair
from laser_jax.models.precision import network_dtype
from laser_jax.sparse.codebook import check_stages

log = logging.getLogger("laser_jax")

BOTTLENECKS = ("vq", "rvq", "fsq", "dl", "ksvd")


def build_model(config):
    """Returns the `Autoencoder` that `config.model` describes.

    Args:
      config: the whole config; `data.image_size` is checked against the model.

    Raises:
      ValueError: if the values do not fit each other.
    """
    model = config.model
    check_choice("model.bottleneck", model.bottleneck, BOTTLENECKS)
    if model.num_downsamples < 1:
        raise ValueError(f"num_downsamples must be at least 1, got {model.num_downsamples}.")
    factor, size = 2**model.num_downsamples, config.data.image_size
    if size % factor:
        raise ValueError(
            f"image size {size} (data.image_size) is not divisible by the downsampling {factor} "
            "(2^num_downsamples)."
        )
    autoencoder = Autoencoder(
        bottleneck=build_bottleneck(model),
        in_channels=config.data.channels,
        num_hiddens=model.num_hiddens,
        num_residual_blocks=model.num_residual_blocks,
        num_residual_hiddens=model.num_residual_hiddens,
        num_downsamples=model.num_downsamples,
        dtype=network_dtype(model.dtype),
    )
    p, q = as_pair(autoencoder.bottleneck.patch_size)
    grid = size // factor
    if grid % p or grid % q:
        raise ValueError(
            f"the latent grid {grid}x{grid} is not divisible by patch_size {p}x{q}; "
            "change patch_size, image_size or num_downsamples."
        )
    return autoencoder


def build_bottleneck(model):
    """Returns the bottleneck that `config.model` describes."""
    if model.bottleneck == "fsq":
        return FiniteScalarQuantizer(levels=tuple(model.fsq_levels))
    shared = {
        "num_embeddings": model.num_embeddings,
        "embedding_dim": model.embedding_dim,
        "commitment_cost": model.commitment_cost,
        "usage_decay": model.usage_decay,
        "min_usage": model.min_usage,
        "replace_every_steps": model.replace_every_steps,
    }
    if model.bottleneck in ("vq", "rvq"):
        stages = model.num_stages if model.bottleneck == "rvq" else 1
        check_stages(stages, model.num_embeddings, "num_embeddings")
        return VectorQuantizer(
            **shared, num_stages=stages, use_ema=model.use_ema, decay=model.decay
        )
    bottleneck = DictionaryLearning(
        **shared,
        sparsity_level=model.sparsity_level,
        patch_size=model.patch_size,
        sparse_coder=model.sparse_coder,
        tolerance=model.tolerance,
        bit_price=model.bit_price,
        coefficient_step=model.coefficient_step,
        dictionary_update=model.dictionary_update or PRESETS[model.bottleneck],
        dictionary_weight=model.dictionary_weight,
        coefficient_l1_weight=model.coefficient_l1_weight,
        coherence_weight=model.coherence_weight,
        dict_learning_rate=model.dict_learning_rate,
        ksvd_iterations=model.ksvd_iterations,
        ksvd_method=model.ksvd_method,
        dictionary_decay=model.dictionary_decay,
        update_every_steps=model.update_every_steps,
        normalize_atoms=model.normalize_atoms,
        max_coherence=model.max_coherence,
    )
    if model.sparsity_level >= bottleneck.signal_width:
        log.warning(
            "sparsity_level %d is not below the signal width %d (embedding_dim x patch area): "
            "the code is exact by construction and compresses nothing.",
            model.sparsity_level,
            bottleneck.signal_width,
        )
    return bottleneck


PRESETS = {"dl": "gradient", "ksvd": "ksvd"}
