import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import activations, topk_autoencoder, vgg_activations
from experiments.results import Results
from laser_jax.pretrained.trunks import VGG16

SIZE = dataclasses.replace(
    activations.SIZES["small"], cases=(activations.Case(64, 4, (8,)),), learned_sparsity=4,
    learner_batch=512, learner_steps=8, topk_batch=512, few_atoms=64, few_sparsities=(4,),
    few_steps=8, few_seconds=0.01,
)  # fmt: skip


def sparse_vectors(rng, atoms, shape):
    """Vectors `(*shape, d)` of 4 of the atoms each."""
    chosen = rng.integers(len(atoms), size=(*shape, 4))
    weights = rng.uniform(1, 2, size=(*shape, 4, 1))
    return np.float32(np.sum(weights * atoms[chosen], axis=-2))


@pytest.mark.slow
def test_pursuit_explains_more_than_the_autoencoder_and_every_number_is_reported(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(vgg_activations, "rest", lambda params, x: x)
    rng = np.random.default_rng(0)
    atoms = np.maximum(rng.normal(size=(64, 32)), 0)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    out = Results(tmp_path, "activations")
    maps = [sparse_vectors(rng, atoms, shape) for shape in ((10, 10), (10, 12))]
    activations.study(out, SIZE, sparse_vectors(rng, atoms, (4096,)), maps, params=None)
    out.write("")
    tables = {block["name"]: block["rows"] for block in out.blocks if block["kind"] == "table"}
    learner, topk = tables["activations"]
    assert [learner[2], topk[2]] == [activations.LEARNER, f"{activations.TOPK}, 8 steps"]
    assert float(learner[3]) > 70 and float(learner[3]) > float(topk[3])
    # What follows the vectors is the vectors here, so its error is what is not explained.
    assert abs(float(learner[3]) + float(learner[4]) - 100) < 0.11
    names = [row[1] for row in tables["few_atoms"]]
    assert names == [activations.LEARNER, "scikit-learn, alpha 0.1"]
    assert learner[5] == "0" and "unused atoms" in (tmp_path / "README.md").read_text()


def test_a_topk_autoencoder_keeps_k_latents_and_unit_atoms_and_revives_dead_latents():
    rng = np.random.default_rng(0)
    trainer = topk_autoencoder.Trainer(16, 2, 40, learning_rate=1e-2, patience=4, dead_latents=8)
    state = trainer.init(jax.random.key(0), 8)
    weights = state.params["encoder"].at[:, 3].multiply(0.01)
    state = state._replace(params=state.params | {"encoder": weights})
    vectors = jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
    before, used = jax.device_get(trainer.encode(state.params, vectors))
    assert not used[3]
    for _ in range(40):
        state = trainer.step(state, vectors)
    approximation, used = trainer.encode(state.params, vectors)
    error = np.sum((vectors - approximation) ** 2)
    assert error < 0.7 * np.sum((vectors - before) ** 2)
    assert used[3]
    np.testing.assert_allclose(np.linalg.norm(state.params["decoder"], axis=1), 1, rtol=1e-5)
    code = topk_autoencoder.keep_largest(jnp.asarray([[3.0, 0.0, 1.0, 2.0]]), 2)
    np.testing.assert_array_equal(code, [[3, 0, 0, 2]])


def test_rest_of_the_network_gives_its_last_features():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 32, 32, 3)).astype(np.float32)
    shapes = jax.eval_shape(VGG16().init, jax.random.key(0), images)["params"]
    params = jax.tree.map(lambda x: np.float32(rng.normal(size=x.shape) / 40), shapes)
    features = jax.jit(VGG16().apply)({"params": params}, images)
    found = vgg_activations.rest(params, features[vgg_activations.LAYER])
    np.testing.assert_allclose(found, features[-1], rtol=1e-4, atol=1e-5)
