"""Float32 means float32, and the library needs jax alone."""

import inspect
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from laser_jax import sparse
from laser_jax.sparse import codebook, ksvd

N, D, M, K = 40, 6, 12, 3
SIGNALS, DICTIONARY = jnp.ones((N, D)), jnp.ones((M, D))
CODE = sparse.SparseCode(jnp.zeros((N, K), jnp.int32), jnp.ones((N, K)))
ONE = sparse.SparseCode(CODE.indices[:, :1], CODE.coefficients[:, :1])
LEVELS = CODE._replace(coefficients=jnp.ones((N, K), jnp.int32))
RATES = sparse.uniform_rate_model(M, sparsity=K, max_level=7)
KEY = jax.random.key(0)


def gradient(signals, dictionary):
    def loss(y, d):
        return jnp.sum(sparse.decode(sparse.omp(y, d, sparsity=K), d))

    return jax.grad(loss, argnums=(0, 1))(signals, dictionary)


def learner_steps():
    for method in ("online", "residual"):
        learner = sparse.DictionaryLearner(M, K, method=method)
        state = learner.update(learner.init(KEY, SIGNALS), SIGNALS)
        yield learner.mean_error(state, SIGNALS)


# Every public function, and the ways through it that take other products.
CALLS = {
    "SparseCode": lambda: CODE,
    "RateModel": lambda: RATES,
    "OnlineStatistics": lambda: sparse.online_statistics(DICTIONARY),
    "EmaStatistics": lambda: sparse.EmaStatistics(jnp.ones(M), DICTIONARY),
    "FitResult": lambda: sparse.FitResult(DICTIONARY, CODE, jnp.ones(1)),
    "DictionaryLearner": lambda: list(learner_steps()),
    "LearnerState": lambda: sparse.DictionaryLearner(M, K).init(KEY, dictionary=DICTIONARY),
    "code_bits": lambda: sparse.code_bits(LEVELS, RATES),
    "coefficient_l1": lambda: sparse.coefficient_l1(SIGNALS),
    "average_patches": lambda: sparse.average_patches(
        jnp.ones((4, 4)), (3, 3, 1), patch_size=2, weights=jnp.ones(4)
    ),
    "coherence": lambda: sparse.coherence(DICTIONARY),
    "coherence_penalty": lambda: sparse.coherence_penalty(DICTIONARY),
    "dct_dictionary": lambda: sparse.dct_dictionary(4, 5),
    "decode": lambda: sparse.decode(CODE, DICTIONARY),
    "dequantize_coefficients": lambda: sparse.dequantize_coefficients(LEVELS, 0.1),
    "ema_update": lambda: sparse.ema_update(
        sparse.EmaStatistics(jnp.ones(M), DICTIONARY), SIGNALS, ONE, decay=0.9
    ),
    "energy": lambda: sparse.energy(CODE, M),
    "extract_patches": lambda: sparse.extract_patches(jnp.ones((3, 3, 1)), patch_size=2),
    "fit_dictionary": lambda: sparse.fit_dictionary(
        SIGNALS, num_atoms=M, sparsity=K, iterations=2, key=KEY
    ),
    "fit_rate_model": lambda: sparse.fit_rate_model(LEVELS, num_atoms=M, max_level=7),
    "gradient_pursuit": lambda: sparse.gradient_pursuit(SIGNALS, DICTIONARY, sparsity=K),
    "init_from_signals": lambda: sparse.init_from_signals(SIGNALS, M, key=KEY),
    "iterative_hard_thresholding": lambda: sparse.iterative_hard_thresholding(
        SIGNALS, DICTIONARY, sparsity=K
    ),
    "kmeans_init": lambda: sparse.kmeans_init(SIGNALS, M, key=KEY),
    "ksvd_statistics": lambda: sparse.ksvd_statistics(DICTIONARY, method="exact"),
    "ksvd_sweep": lambda: [
        sparse.ksvd_sweep(SIGNALS, DICTIONARY, CODE, method=m) for m in ksvd.METHODS
    ],
    "ksvd_update": lambda: [
        sparse.ksvd_update(
            sparse.ksvd_statistics(DICTIONARY, method=m),
            SIGNALS,
            DICTIONARY,
            CODE,
            method=m,
            decay=0.9,
        )
        for m in ksvd.METHODS
    ],
    "lasso": lambda: jax.grad(lambda y: sparse.lasso(y, DICTIONARY, penalty=0.1).sum())(SIGNALS),
    "least_squares": lambda: sparse.least_squares(SIGNALS, DICTIONARY, CODE),
    "matching_pursuit": lambda: sparse.matching_pursuit(SIGNALS, DICTIONARY, sparsity=K),
    "nearest_atom": lambda: sparse.nearest_atom(SIGNALS, DICTIONARY),
    "nonnegative_omp": lambda: sparse.nonnegative_omp(SIGNALS, DICTIONARY, sparsity=K),
    "omp": lambda: [
        sparse.omp(SIGNALS, DICTIONARY, sparsity=K),
        sparse.omp(SIGNALS, DICTIONARY, sparsity=K, selection="ols"),
        sparse.omp(SIGNALS, DICTIONARY, sparsity=K, mask=jnp.abs(SIGNALS)),
        gradient(SIGNALS, DICTIONARY),
    ],
    "online_statistics": lambda: sparse.online_statistics(DICTIONARY),
    "online_update": lambda: sparse.online_update(
        sparse.online_statistics(DICTIONARY), SIGNALS, DICTIONARY, CODE, decay=0.9
    ),
    "perplexity": lambda: sparse.perplexity(jnp.ones(M)),
    "quantize_coefficients": lambda: sparse.quantize_coefficients(CODE, 0.1, bits=8),
    "rate_distortion_pursuit": lambda: sparse.rate_distortion_pursuit(
        SIGNALS, DICTIONARY, RATES, sparsity=K, step=0.1, bit_price=0.01
    ),
    "rate_distortion_stages": lambda: sparse.rate_distortion_stages(
        SIGNALS, DICTIONARY, RATES, stages=K, bit_price=0.01
    ),
    "replace_atoms": lambda: sparse.replace_atoms(
        SIGNALS, DICTIONARY, CODE, max_coherence=0.9, key=KEY
    ),
    "residual_nearest_atoms": lambda: [
        sparse.residual_nearest_atoms(SIGNALS, DICTIONARY, stages=3),
        codebook.stage_targets(SIGNALS, DICTIONARY, CODE),
        codebook.replace_codes(SIGNALS, DICTIONARY, ONE, jnp.ones(M, bool), key=KEY),
    ],
    "residual_update": lambda: sparse.residual_update(SIGNALS, DICTIONARY, CODE, learning_rate=0.1),
    "simultaneous_omp": lambda: sparse.simultaneous_omp(SIGNALS[None], DICTIONARY, sparsity=K),
    "sparse_bits": lambda: sparse.sparse_bits(M, sparsity=K, coefficient_bits=8),
    "to_dense": lambda: sparse.to_dense(CODE, M),
    "top_k": lambda: sparse.top_k(SIGNALS, DICTIONARY, sparsity=K),
    "uniform_rate_model": lambda: sparse.uniform_rate_model(M, sparsity=K, max_level=7),
    "unit_norm": lambda: sparse.unit_norm(SIGNALS),
    "usage": lambda: sparse.usage(CODE, M),
    "vq_bits": lambda: sparse.vq_bits(M, stages=2),
}


@pytest.mark.parametrize("name", sparse.__all__)
def test_every_product_has_the_highest_precision(name, products):
    highest = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
    for equation in products(CALLS[name]):
        assert equation.params["precision"] == highest, equation


def test_jaxpr_walk_finds_products_in_loops_and_custom_rules(products):
    def loop(x):
        return lax.fori_loop(0, 3, lambda i, x: lax.cond(i > 1, lambda x: x @ x, jnp.sin, x), x)

    (found,) = products(lambda: jax.jit(loop)(jnp.ones((2, 2))))
    assert found.params["precision"] is None
    assert len(products(CALLS["omp"])) >= 6


def test_every_public_name_is_documented():
    for name in sparse.__all__:
        assert inspect.getdoc(getattr(sparse, name)), name


def test_importing_the_library_loads_nothing_heavier_than_jax():
    heavy = ("flax", "optax", "orbax", "tensorflow", "grain", "matplotlib", "clu", "sklearn")
    program = (
        f"import sys, laser_jax.sparse\nprint([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
