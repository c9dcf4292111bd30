"""Sparse coding and dictionary learning in JAX.

    import jax, jax.numpy as jnp
    from laser_jax.sparse import omp, decode

    dictionary = jax.random.normal(jax.random.key(0), (512, 64))   # 512 atoms of width 64
    signals = jax.random.normal(jax.random.key(1), (1000, 64))
    code = omp(signals, dictionary, sparsity=8)                    # (1000, 8) atoms, coefficients
    approximation = decode(code, dictionary)                       # (1000, 64)

Atoms are rows, signals are rows. Everything works under jit, vmap and sharding, in
float32 (true float32 on every device) and float64.
"""

from jax import export as _export

from laser_jax.sparse.bits import sparse_bits, vq_bits
from laser_jax.sparse.code import SparseCode, decode, energy, perplexity, to_dense, usage
from laser_jax.sparse.codebook import (
    EmaStatistics,
    ema_update,
    kmeans_init,
    nearest_atom,
    residual_nearest_atoms,
)
from laser_jax.sparse.dictionary import (
    coherence,
    dct_dictionary,
    init_from_signals,
    replace_atoms,
    unit_norm,
)
from laser_jax.sparse.fit import FitResult, fit_dictionary
from laser_jax.sparse.greedy import gradient_pursuit, matching_pursuit
from laser_jax.sparse.ksvd import ksvd_statistics, ksvd_sweep, ksvd_update
from laser_jax.sparse.lasso import lasso
from laser_jax.sparse.learner import DictionaryLearner
from laser_jax.sparse.learner_state import LearnerState
from laser_jax.sparse.nonnegative import nonnegative_omp
from laser_jax.sparse.omp import omp
from laser_jax.sparse.online import (
    OnlineStatistics,
    online_statistics,
    online_update,
    residual_update,
)
from laser_jax.sparse.patches import average_patches, extract_patches
from laser_jax.sparse.penalties import coefficient_l1, coherence_penalty
from laser_jax.sparse.quantization import dequantize_coefficients, quantize_coefficients
from laser_jax.sparse.rate import RateModel, code_bits, fit_rate_model, uniform_rate_model
from laser_jax.sparse.rate_pursuit import rate_distortion_pursuit, rate_distortion_stages
from laser_jax.sparse.simultaneous import simultaneous_omp
from laser_jax.sparse.support import least_squares
from laser_jax.sparse.thresholding import iterative_hard_thresholding, top_k

# So that an exported function that takes or returns one can be serialised.
for _type in (EmaStatistics, FitResult, LearnerState, OnlineStatistics, RateModel, SparseCode):
    _export.register_namedtuple_serialization(
        _type, serialized_name=f"laser_jax.sparse.{_type.__name__}"
    )

__all__ = [
    "DictionaryLearner",
    "EmaStatistics",
    "FitResult",
    "LearnerState",
    "OnlineStatistics",
    "RateModel",
    "SparseCode",
    "average_patches",
    "code_bits",
    "coefficient_l1",
    "coherence",
    "coherence_penalty",
    "dct_dictionary",
    "decode",
    "dequantize_coefficients",
    "ema_update",
    "energy",
    "extract_patches",
    "fit_dictionary",
    "fit_rate_model",
    "gradient_pursuit",
    "init_from_signals",
    "iterative_hard_thresholding",
    "kmeans_init",
    "ksvd_statistics",
    "ksvd_sweep",
    "ksvd_update",
    "lasso",
    "least_squares",
    "matching_pursuit",
    "nearest_atom",
    "nonnegative_omp",
    "omp",
    "online_statistics",
    "online_update",
    "perplexity",
    "quantize_coefficients",
    "rate_distortion_pursuit",
    "rate_distortion_stages",
    "replace_atoms",
    "residual_nearest_atoms",
    "residual_update",
    "simultaneous_omp",
    "sparse_bits",
    "to_dense",
    "top_k",
    "uniform_rate_model",
    "unit_norm",
    "usage",
    "vq_bits",
]
