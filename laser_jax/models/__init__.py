"""Flax modules: encoder, decoder, bottlenecks, and the autoencoder that consists of them."""

from laser_jax.models.autoencoder import Autoencoder, AutoencoderOutput
from laser_jax.models.bottlenecks import (
    BottleneckOutput,
    DictionaryLearning,
    FiniteScalarQuantizer,
    HybridQuantizer,
    VectorQuantizer,
)
from laser_jax.models.build import build_model
from laser_jax.models.encoder import Decoder, Encoder

__all__ = [
    "Autoencoder",
    "AutoencoderOutput",
    "BottleneckOutput",
    "Decoder",
    "DictionaryLearning",
    "Encoder",
    "FiniteScalarQuantizer",
    "HybridQuantizer",
    "VectorQuantizer",
    "build_model",
]
