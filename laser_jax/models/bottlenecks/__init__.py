"""The bottlenecks: each codes latents in a dictionary and knows how the dictionary learns.

A bottleneck is a Flax module. Its collection `dictionary` holds the atoms and what their update
remembers. Applying the module only reads that collection, so an evaluation cannot change it.
`init_dictionary` and `adapt` are pure functions that return a new one:

    bottleneck = DictionaryLearning(num_embeddings=512, embedding_dim=64, sparsity_level=8)
    variables = bottleneck.init(jax.random.key(0), latents)
    approximation, loss, code = bottleneck.apply(variables, latents)
    dictionary = bottleneck.adapt(variables["dictionary"], latents, code, step=1, key=key)
"""

from laser_jax.models.bottlenecks.base import Bottleneck
from laser_jax.models.bottlenecks.dictionary import DictionaryBottleneck
from laser_jax.models.bottlenecks.dictionary_learning import DictionaryLearning
from laser_jax.models.bottlenecks.finite_scalar import FiniteScalarQuantizer
from laser_jax.models.bottlenecks.hybrid import HybridQuantizer
from laser_jax.models.bottlenecks.output import BottleneckOutput
from laser_jax.models.bottlenecks.vector_quantizer import VectorQuantizer

__all__ = [
    "Bottleneck",
    "BottleneckOutput",
    "DictionaryBottleneck",
    "DictionaryLearning",
    "FiniteScalarQuantizer",
    "HybridQuantizer",
    "VectorQuantizer",
]
