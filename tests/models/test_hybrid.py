"""The hybrid bottleneck: sparse coding, then vector quantisation of its approximation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.models import DictionaryLearning, HybridQuantizer, VectorQuantizer
from laser_jax.sparse import SparseCode

LATENTS = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32)
CODEBOOK = {"num_embeddings": 16, "embedding_dim": 6}
ATOMS = {"num_embeddings": 12, "embedding_dim": 6, "sparsity_level": 1}


def hybrid(codebook=None, **sparse):
    return HybridQuantizer(
        **CODEBOOK, **(codebook or {}), sparse=DictionaryLearning(**ATOMS, **sparse)
    )


def start(module):
    """The collection that training starts from, as NumPy arrays."""

    @jax.jit
    def started(latents):
        dictionary = module.init(jax.random.key(0), latents)["dictionary"]
        return module.init_dictionary(dictionary, latents, key=jax.random.key(1))

    return jax.tree.map(np.array, started(LATENTS))


@pytest.fixture(scope="module")
def dictionary():
    return start(hybrid())


def test_code_is_the_entry_nearest_to_the_sparse_approximation(dictionary):
    entries, atoms = dictionary["atoms"][:16], dictionary["atoms"][16:]
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-5)
    products = LATENTS @ atoms.T
    best = np.argmax(np.abs(products), -1)  # one atom, so its coefficient is the product
    approximation = np.take_along_axis(products, best[..., None], -1) * atoms[best]
    distances = np.sum((approximation[..., None, :] - entries) ** 2, -1)
    out = hybrid().apply({"dictionary": dictionary}, LATENTS)
    assert out.code.indices.shape == (2, 4, 4, 1)
    np.testing.assert_array_equal(out.code.indices[..., 0], np.argmin(distances, -1))
    np.testing.assert_allclose(out.approximation, entries[np.argmin(distances, -1)], rtol=1e-5)
    plain = np.argmin(np.sum((LATENTS[..., None, :] - entries) ** 2, -1), -1)
    assert np.any(plain != np.argmin(distances, -1))  # without sparse coding


def test_hybrid_of_an_exact_sparse_code_is_the_vector_quantizer(dictionary):
    exact = HybridQuantizer(
        **CODEBOOK, sparse=DictionaryLearning(**{**ATOMS, "num_embeddings": 6, "sparsity_level": 6})
    )
    atoms = np.concatenate([dictionary["atoms"][:16], np.eye(6, dtype=np.float32)])
    expected = VectorQuantizer(**CODEBOOK).encode(atoms[:16], LATENTS)
    jax.tree.map(np.testing.assert_array_equal, exact.encode(atoms, LATENTS), expected)


def test_tokens_bits_and_decoding_are_those_of_the_codebook(dictionary):
    stages = {"num_stages": 2}
    module, codebook = hybrid(stages), VectorQuantizer(**CODEBOOK, **stages)
    assert module.token_layout() == codebook.token_layout()
    assert module.bits_per_signal(16) == codebook.bits_per_signal(16) == 6
    assert not module.has_indices and hybrid().has_indices
    code = SparseCode(jnp.full((2, 4, 4, 2), 5).at[..., 1].set(9), jnp.ones((2, 4, 4, 2)))
    atoms = np.array(dictionary["atoms"])
    expected = codebook.decode(atoms[:16], code)
    atoms[16:] = np.nan  # the other atoms are not read
    np.testing.assert_array_equal(module.decode(atoms, code), expected)


def test_each_part_learns_by_its_own_rule(dictionary):
    module = hybrid({"replace_every_steps": 0}, dictionary_update="gradient", dictionary_weight=3.0)
    assert module.learns_by_gradient
    np.testing.assert_array_equal(module.learning_rate_scale[:, 0], [1.0] * 16 + [3.0] * 12)

    def loss(atoms):
        return module.apply({"dictionary": {**dictionary, "atoms": atoms}}, LATENTS).loss

    gradient = np.asarray(jax.grad(loss)(dictionary["atoms"]))
    assert not np.any(gradient[:16]) and np.mean(np.any(gradient[16:], -1)) > 0.8
    code = module.encode(dictionary["atoms"], LATENTS)
    collection = module.memory(dictionary["atoms"]) | {"atoms": dictionary["atoms"]}
    new, replaced = jax.jit(module.adapt_and_mark)(
        collection, 1.5 * LATENTS, code, step=1, key=jax.random.key(2)
    )
    assert replaced.shape == (28,)
    moved = np.max(np.abs(new["atoms"] - dictionary["atoms"]), -1)
    assert np.max(moved[:16]) > 1e-3 and np.max(moved[16:]) < 1e-6


def test_losses_belong_to_the_code_of_the_step(dictionary):
    """At step 0 of a price that rises from 0, they are those of codes without a price."""
    rising, free = (
        hybrid(sparse_coder="rate_distortion", dictionary_update="gradient", **price)
        for price in ({"bit_price": 9.0, "price_warmup_steps": 10}, {"bit_price": 0.0})
    )
    (first, last), expected = (
        [float(module.apply({"dictionary": dictionary}, LATENTS, step).loss) for step in (0, 10)]
        for module in (rising, free)
    )
    assert first == expected[0] != last


def test_unused_rows_of_both_parts_are_replaced_with_their_memory(dictionary):
    module = HybridQuantizer(
        **CODEBOOK, replace_every_steps=1,
        sparse=DictionaryLearning(**ATOMS, replace_every_steps=1, dictionary_update="online"),
    )  # fmt: skip
    collection = start(module)
    collection["usage"] = np.where(np.arange(16) == 3, 0, 1).astype(np.float32)
    others = collection["sparse_dictionary"]
    others["usage"] = np.where(np.arange(12) == 7, 0, 1).astype(np.float32)
    code = SparseCode(np.zeros((2, 4, 4, 1), np.int32), np.ones((2, 4, 4, 1), np.float32))
    new, replaced = jax.jit(module.adapt_and_mark)(
        collection, LATENTS, code, step=1, key=jax.random.key(2)
    )
    assert replaced[3] and replaced[16 + 7]
    assert float(new["usage"][3]) == 1 and float(new["sparse_dictionary"]["usage"][7]) == 1
    share = module.further_metrics(collection)["sparse_dictionary_usage"]
    assert float(share) == pytest.approx(11 / 12)


def test_parts_of_different_signals_raise():
    with pytest.raises(ValueError, match="patch_size of the sparse coding .* codebook, 1, got 2"):
        hybrid(patch_size=2)
    with pytest.raises(ValueError, match="embedding_dim of the sparse coding .* 6, got 4"):
        HybridQuantizer(**CODEBOOK, sparse=DictionaryLearning(embedding_dim=4))
