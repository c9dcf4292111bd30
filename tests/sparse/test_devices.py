"""Every public function on two devices: inside `shard_map`, and on either type of mesh."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax import sparse
from laser_jax.sparse import EmaStatistics, OnlineStatistics, RateModel, SparseCode

N, M, D, K = 8, 12, 6, 2  # signals a device, atoms, width, sparsity
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def indices(num_atoms, k):
    picks = [RNG.permutation(num_atoms)[:k] for _ in range(2 * N)]
    return np.array(picks, np.int32)


KEY = jax.random.key(0)
SIGNALS, ATOMS = normal(2 * N, D), normal(M, D)
ATOMS /= np.linalg.norm(ATOMS, axis=-1, keepdims=True)
CODE = SparseCode(indices(M, K), normal(2 * N, K))
LEVELS = CODE._replace(coefficients=RNG.integers(-3, 4, (2 * N, K)).astype(np.int32))
SINGLE = SparseCode(indices(M, 1), np.ones((2 * N, 1), np.float32))
RATES = RateModel(normal(M) ** 2, normal(4) ** 2, np.arange(K + 1, dtype=np.float32))
IMAGES = normal(2 * N, 3, 4, 1)
# The arguments that hold one row a signal, all others, and what is static.
CODER = {"signals": SIGNALS}, {"dictionary": ATOMS}, {"sparsity": K}
CODED = {"signals": SIGNALS, "code": CODE}, {"dictionary": ATOMS}, {}
OF_CODE = {"code": CODE}, {}, {"num_atoms": M}
LEARNER = {"signals": SIGNALS}, {"key": KEY}, {"num_atoms": M}


def with_(call, others=(), **static):
    return call[0], call[1] | dict(others), call[2] | static


def memory(method):
    shape = (M, D) if method == "approximate" else (M, D, D)
    return {"statistics": np.zeros(shape, np.float32), "decay": 0.5}


CALLS = {
    "ksvd_statistics": ({}, {"dictionary": ATOMS}, {"method": "exact"}),
    "online_statistics": ({}, {"dictionary": ATOMS}, {}),
    "ksvd_sweep": with_(CODED, method="exact"),
    "ksvd_sweep-parallel": with_(CODED, method="parallel"),
    "ksvd_update": with_(CODED, memory("approximate"), method="approximate"),
    "omp": CODER,
    "omp-ols": with_(CODER, selection="ols"),
    "omp-masked": with_(({"signals": SIGNALS, "mask": SIGNALS**2}, *CODER[1:])),
    "nonnegative_omp": CODER,
    "simultaneous_omp": ({"signals": normal(2 * N, 3, D)}, *CODER[1:]),
    "lasso": ({"signals": SIGNALS}, {"dictionary": ATOMS, "penalty": 0.1}, {"iterations": 500}),
    "matching_pursuit": CODER,
    "gradient_pursuit": CODER,
    "iterative_hard_thresholding": with_(CODER, iterations=3),
    "top_k": CODER,
    "nearest_atom": ({"signals": SIGNALS}, {"dictionary": ATOMS}, {}),
    "residual_nearest_atoms": ({"signals": SIGNALS}, {"dictionary": ATOMS}, {"stages": 2}),
    "decode": ({"code": CODE}, {"dictionary": ATOMS}, {}),
    "to_dense": OF_CODE,
    "usage": OF_CODE,
    "energy": OF_CODE,
    "perplexity": ({}, {"counts": np.arange(M, dtype=np.float32)}, {}),
    "least_squares": CODED,
    "ema_update": (
        {"signals": SIGNALS, "code": SINGLE},
        {"statistics": EmaStatistics(np.ones(M, "f"), np.ones((M, D), "f")), "decay": 0.5},
        {},
    ),
    "online_update-first": with_(CODED, {"statistics": None, "decay": 0.5}),
    "online_update": with_(
        CODED, {"statistics": OnlineStatistics(np.eye(M, dtype="f"), ATOMS), "decay": 0.5}
    ),
    "residual_update": with_(CODED, {"learning_rate": 0.5}),
    "coherence": ({}, {"dictionary": ATOMS}, {}),
    "coherence_penalty": ({}, {"dictionary": ATOMS}, {}),
    "coefficient_l1": ({"coefficients": CODE.coefficients}, {}, {}),
    "vq_bits": ({}, {}, {"num_atoms": M, "stages": 2}),
    "sparse_bits": ({}, {}, {"num_atoms": M, "sparsity": K, "coefficient_bits": 8}),
    "extract_patches": ({"images": IMAGES}, {}, {"patch_size": 2}),
    "average_patches": (
        {"patches": normal(2 * N, 6, 4), "weights": normal(2 * N, 6) ** 2},
        {},
        {"patch_size": 2, "image_shape": (3, 4, 1)},
    ),
    "unit_norm": ({"vectors": SIGNALS}, {}, {}),
    "dct_dictionary": ({}, {}, {"patch_size": 2, "num_frequencies": 3}),
    "kmeans_init": with_(LEARNER, iterations=2),
    "init_from_signals": LEARNER,
    "replace_atoms": with_(CODED, {"max_coherence": 0.9, "key": KEY}),
    "fit_dictionary": with_(LEARNER, sparsity=K, iterations=2, method="online"),
    "quantize_coefficients": ({"code": CODE}, {"scales": np.full(M, 0.1, "f")}, {"bits": 8}),
    "dequantize_coefficients": ({"code": LEVELS}, {"scales": np.full(M, 0.1, "f")}, {}),
    "uniform_rate_model": ({}, {}, {"num_atoms": M, "sparsity": K, "max_level": 4}),
    "fit_rate_model": with_(({"code": LEVELS}, {}, {}), num_atoms=M, max_level=4),
    "code_bits": ({"code": LEVELS}, {"model": RATES}, {}),
    "rate_distortion_pursuit": with_(CODER, {"model": RATES, "step": 0.1, "bit_price": 0.01}),
    "rate_distortion_stages": (
        {"signals": SIGNALS},
        {"dictionary": ATOMS, "model": RATES, "bit_price": 0.01},
        {"stages": K},
    ),
}
ROWS, ALL = PartitionSpec("data"), PartitionSpec()
# Each compiles for half a second and more, and runs the loops of a quick one: pursuits those of
# `omp`, sweeps those of the exact one, stages those of `nearest_atom`, fits those of their steps.
SLOW = {
    "omp-ols", "omp-masked", "matching_pursuit", "gradient_pursuit", "top_k",
    "iterative_hard_thresholding",
    "ksvd_sweep-parallel", "ksvd_update", "residual_nearest_atoms", "rate_distortion_stages",
    "kmeans_init", "fit_dictionary", "online_update-first",
}  # fmt: skip
every_call = pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x for x in CALLS]
)


def of(name):
    """The function and its arguments: rows of signals, others, and it with the static ones."""
    rows, others, static = CALLS[name]
    function = getattr(sparse, name.split("-")[0])
    return rows, others, lambda rows, others: function(**rows, **others, **static)


def is_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_every_public_function_is_called():
    functions = {x for x in sparse.__all__ if not inspect.isclass(getattr(sparse, x))}
    assert functions == {name.split("-")[0] for name in CALLS}


def half(rows, device):
    return jax.tree.map(lambda x: x[device * N : (device + 1) * N], rows)


@pytest.mark.usefixtures("two_devices")
@every_call
def test_a_function_in_shard_map_gives_each_device_the_result_of_its_signals(name):
    rows, others, call = of(name)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    each = jax.shard_map(
        lambda rows, others: jax.tree.map(lambda x: jnp.asarray(x)[None], call(rows, others)),
        mesh=mesh,
        in_specs=(ROWS, PartitionSpec()),
        out_specs=ROWS if rows else PartitionSpec(),
    )
    found = jax.jit(each)(rows, others)
    for device in range(2 if rows else 1):
        own = jax.tree.map(lambda x, i=device: x[i], found)
        is_same(own, call(half(rows, device), others))


@pytest.mark.usefixtures("two_devices")
@every_call
def test_a_function_on_a_mesh_of_explicit_axes_gives_the_result_of_one_device(name):
    """It computes as on one of Auto axes, which the tests of coders and sweeps cover."""
    rows, others, call = of(name)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
    rows, expected = half(rows, 0), call(half(rows, 0), others)  # compiled by the test above
    placed = jax.device_put((rows, others), (NamedSharding(mesh, ROWS), NamedSharding(mesh, ALL)))
    is_same(jax.jit(call)(*placed), expected)
