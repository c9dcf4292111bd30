"""Options of the bottlenecks that learn: rotation trick, cosine distance, codes by rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from laser_jax.models import DictionaryLearning, VectorQuantizer
from laser_jax.models.bottlenecks.output import to_patches
from laser_jax.models.bottlenecks.rotation import rotation
from laser_jax.sparse import residual_nearest_atoms, to_dense
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state
from laser_jax.training.step import TrainStep

RNG = np.random.default_rng(0)
LATENTS = RNG.normal(size=(2, 4, 4, 6)).astype(np.float32)
ATOMS = RNG.normal(size=(24, 6)).astype(np.float32)
RVQ = {"num_embeddings": 24, "embedding_dim": 6, "num_stages": 3}
SPARSE = {"num_embeddings": 24, "embedding_dim": 6, "sparsity_level": 3}
BY_RATE = {"stage_coder": "rate_distortion"}
SPARSE_BY_RATE = {"sparse_coder": "rate_distortion", "coefficient_step": 0.5}


def collection(module, atoms=ATOMS):
    atoms = jnp.asarray(atoms)
    return {"atoms": atoms, **module.memory(atoms)}


def apply(module, latents, atoms=ATOMS, step=None):
    return module.apply({"dictionary": collection(module, atoms)}, latents, step)


def turned_back(signal, approximation, gradient):
    """The gradient of the rotation trick in float64, by the matrix of the paper."""
    e, q, g = (np.asarray(x, np.float64) for x in (signal, approximation, gradient))
    start, end = e / np.linalg.norm(e), q / np.linalg.norm(q)
    middle = (start + end) / np.linalg.norm(start + end)
    matrix = np.eye(len(e)) - 2 * np.outer(middle, middle) + 2 * np.outer(end, start)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(e)), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    scale = np.linalg.norm(q) / np.linalg.norm(e)
    np.testing.assert_allclose(scale * matrix @ e, q)
    return scale * matrix.T @ g


def cosine(a, b):
    return np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)


def test_rotation_returns_the_approximation_and_turns_its_gradient_back():
    e, q, g = RNG.normal(size=(3, 7, 5)).astype(np.float32)
    e[1] *= 1e3
    value, backward = jax.vjp(rotation, e, q)
    np.testing.assert_array_equal(value, q)
    found, others = (np.asarray(x) for x in backward(jnp.asarray(g)))
    assert not others.any()
    for i in range(7):
        expected = turned_back(e[i], q[i], g[i])
        np.testing.assert_allclose(found[i], expected, atol=1e-5 * np.linalg.norm(expected))
        assert cosine(found[i], e[i]) == pytest.approx(cosine(g[i], q[i]), abs=1e-5)


def test_rotation_of_zero_opposite_and_equal_vectors_is_finite():
    q = np.array([[0, 0, 0], [1, 2, 2], [1, 2, 2], [1, 2, 2]], np.float32)
    e = np.array([[1, 2, 2], [0, 0, 0], [-2, -4, -4], [1, 2, 2]], np.float32)
    g = np.array([[3, -1, 2]] * 4, np.float32)
    value, backward = jax.vjp(rotation, e, q)
    np.testing.assert_array_equal(value, q)
    found = np.asarray(backward(jnp.asarray(g))[0])
    np.testing.assert_array_equal(found[:2], g[:2])  # straight through
    reflected = g[2] - 2 * (g[2] @ q[2]) / 9 * q[2]
    np.testing.assert_allclose(found[2], reflected / 2, rtol=1e-5)
    np.testing.assert_allclose(found[3], g[3], rtol=1e-5)


@pytest.mark.parametrize("cls, arguments", [(VectorQuantizer, RVQ), (DictionaryLearning, SPARSE)])
def test_gradient_of_a_bottleneck_is_that_of_each_signals_rotation(cls, arguments):
    arguments = {**arguments, "embedding_dim": 3, "gradient_estimator": "rotation"}
    module = cls(**arguments, patch_size=(1, 2))
    latents, weights = LATENTS[..., :3], RNG.normal(size=(2, 4, 4, 3)).astype(np.float32)
    loss = lambda x: jnp.sum(weights * apply(module, x).approximation)  # noqa: E731
    found = to_patches(jax.jit(jax.grad(loss))(latents), (1, 2)).reshape(-1, 6)
    decoded = apply(module, latents).approximation
    signals, decoded, weights = (
        np.asarray(to_patches(x, (1, 2))).reshape(-1, 6) for x in (latents, decoded, weights)
    )
    for row in zip(found, signals, decoded, weights, strict=True):
        np.testing.assert_allclose(row[0], turned_back(*row[1:]), rtol=2e-3, atol=2e-4)


def test_cosine_distance_codes_the_direction():
    module = VectorQuantizer(num_embeddings=24, embedding_dim=6, distance="cosine")
    dictionary = {"dictionary": {**collection(module), "atoms": module.constrain(ATOMS)}}
    latents = LATENTS * np.float64(10.0) ** RNG.uniform(-3, 3, size=(2, 4, 4, 1))
    found = module.apply(dictionary, latents.astype(np.float32))
    signals, atoms = (x.reshape(-1, 6).astype(np.float64) for x in (latents, ATOMS))
    signals /= np.linalg.norm(signals, axis=1, keepdims=True)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    cosines = signals @ atoms.T
    np.testing.assert_array_equal(found.code.indices.ravel(), np.argmax(cosines, 1))
    expected = atoms[np.argmax(cosines, 1)]
    np.testing.assert_allclose(found.approximation.reshape(-1, 6), expected, atol=1e-6)
    error = np.mean(2 - 2 * np.max(cosines, 1)) / 6
    np.testing.assert_allclose(found.loss, module.commitment_cost * error, rtol=1e-5)


def test_cosine_distance_pulls_the_latents_across_and_keeps_atoms_of_unit_norm():
    module = VectorQuantizer(
        num_embeddings=24, embedding_dim=6, distance="cosine", replace_every_steps=0
    )
    dictionary = collection(module, module.constrain(ATOMS))
    latents = jnp.asarray(LATENTS).at[0, 0, 0].set(0)
    loss = lambda x: module.apply({"dictionary": dictionary}, x).loss  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(latents)
    assert np.all(np.isfinite(gradient)) and np.any(gradient)
    np.testing.assert_allclose(np.sum(gradient * latents, -1), 0, atol=1e-7)
    code = module.encode(dictionary["atoms"], latents)
    new = module.adapt(dictionary, latents, code, step=1, key=jax.random.key(0))
    assert np.max(np.abs(new["atoms"] - dictionary["atoms"])) > 1e-3
    np.testing.assert_allclose(np.linalg.norm(new["atoms"], axis=-1), 1, rtol=1e-6)


def test_stages_by_rate_stop_where_the_error_saved_is_not_worth_the_bits():
    module, price = VectorQuantizer(**RVQ, **BY_RATE, bit_price=0.5), 0.5
    out = apply(module, LATENTS)
    signals = LATENTS.reshape(-1, 6).astype(np.float64)
    indices = np.asarray(residual_nearest_atoms(LATENTS, ATOMS, stages=3).indices).reshape(-1, 3)
    left = signals[:, None] - np.concatenate(
        [np.zeros((32, 1, 6)), np.cumsum(ATOMS[indices], 1)], axis=1
    )
    costs = np.sum(left**2, -1) + price * np.arange(4) * np.log2(8)
    lengths = np.argmin(costs, 1)
    assert len(set(lengths)) >= 3
    used = np.arange(3) < lengths[:, None]
    np.testing.assert_array_equal(out.code.coefficients.reshape(-1, 3), used)
    np.testing.assert_array_equal(
        np.where(used, out.code.indices.reshape(-1, 3), 0), np.where(used, indices, 0)
    )
    levels = module.encode_levels(jnp.asarray(ATOMS), LATENTS)
    assert levels.coefficients.dtype == jnp.int32
    np.testing.assert_array_equal(levels.coefficients, out.code.coefficients)
    assert module.bits_per_signal(16) == pytest.approx(np.log2(1 + 8 + 8**2 + 8**3))
    assert module.num_codes == 585 and not module.has_indices


def test_only_signals_that_use_a_stage_move_its_atoms():
    module = VectorQuantizer(**RVQ, **BY_RATE, bit_price=0.5, decay=0.0, replace_every_steps=0)
    dictionary = collection(module)
    code = module.encode(dictionary["atoms"], LATENTS)
    new = module.adapt(dictionary, LATENTS, code, step=1, key=jax.random.key(0))
    indices, used = (np.asarray(x).reshape(-1, 3) for x in code)
    targets = LATENTS.reshape(-1, 1, 6) - np.cumsum(ATOMS[indices], 1) + ATOMS[indices]
    for atom in np.unique(indices[used > 0]):
        mean = targets[(indices == atom) & (used > 0)].mean(0)
        np.testing.assert_allclose(new["atoms"][atom], mean, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "cls, arguments",
    [(VectorQuantizer, RVQ | BY_RATE), (DictionaryLearning, SPARSE | SPARSE_BY_RATE)],
)
def test_price_rises_from_0_to_its_full_value(cls, arguments):
    module = cls(**arguments, bit_price=0.8, price_warmup_steps=10)
    for step, price in ((0, 0.0), (4, 0.32), (10, 0.8), (99, 0.8), (None, 0.8)):
        found = apply(module, LATENTS, step=None if step is None else jnp.int32(step)).code
        expected = apply(cls(**arguments, bit_price=price), LATENTS).code
        np.testing.assert_array_equal(to_dense(found, 24), to_dense(expected, 24))


def test_training_step_raises_the_price_by_its_own_count():
    config = tiny.get_config()
    config.model.sparse_coder = "rate_distortion"

    def program(warmup):
        config.model.price_warmup_steps = warmup
        setup = Setup.from_config(config)
        images = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.uint8)
        return TrainStep(setup).lower(abstract_state(setup), images).as_text()

    assert program(0) != program(7)


def test_rate_weight_adds_the_logarithms_of_the_levels_and_pulls_the_latents_alone():
    arguments = {**SPARSE, "num_embeddings": 6, "sparsity_level": 6, **SPARSE_BY_RATE}
    arguments |= {"bit_price": 0.0, "commitment_cost": 0.0, "dictionary_update": "gradient"}
    arguments["dictionary_weight"] = 0.0
    module = DictionaryLearning(**arguments, rate_weight=0.3)
    out = apply(module, LATENTS, atoms=np.eye(6, dtype=np.float32))
    levels = np.asarray(to_dense(out.code, 6)).reshape(-1, 6) / 0.5
    np.testing.assert_array_equal(levels, np.round(levels))
    expected = 0.3 * np.mean(np.sum(np.log2(1 + np.abs(levels)), -1))
    np.testing.assert_allclose(out.loss, expected, rtol=1e-5)
    by_both = jax.grad(lambda latents, atoms: apply(module, latents, atoms).loss, argnums=(0, 1))
    by_latents, by_atoms = jax.jit(by_both)(jnp.asarray(LATENTS), jnp.eye(6))
    # Orthonormal atoms: the coefficients move as the latents do.
    slope = 0.3 * np.sign(levels) / (0.5 * (1 + np.abs(levels)) * np.log(2)) / 32
    np.testing.assert_allclose(by_latents.reshape(-1, 6), slope, rtol=1e-4, atol=1e-7)
    assert not np.any(by_atoms)


@pytest.mark.parametrize(
    "cls, arguments, message",
    [
        (
            VectorQuantizer,
            {"price_warmup_steps": 5},
            "price_warmup_steps 5 .* got 'nearest'",
        ),
        (DictionaryLearning, {"rate_weight": 0.1}, "rate_weight 0.1 .* got 'omp'"),
        (VectorQuantizer, RVQ | {"distance": "cosine"}, "num_stages must be 1, got 3"),
        (VectorQuantizer, {"gradient_estimator": "ste"}, "unknown gradient_estimator 'ste'"),
    ],
)
def test_options_without_effect_raise(cls, arguments, message):
    with pytest.raises(ValueError, match=message):
        cls(**arguments)
    with pytest.raises(ValueError, match="an integer code needs codes by rate"):
        VectorQuantizer(**RVQ).encode_levels(jnp.asarray(ATOMS), LATENTS)
