import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.losses import coherence_penalty
from laser_jax.models import DictionaryLearning, HybridQuantizer, VectorQuantizer
from laser_jax.models.bottlenecks.coding import PURSUITS
from laser_jax.models.bottlenecks.output import from_patches, straight_through, to_patches
from laser_jax.sparse import decode, unit_norm, usage

LEARNS = {"num_embeddings": 24, "embedding_dim": 6, "sparsity_level": 3}
SPARSE = {**LEARNS, "update_every_steps": 1}
BOTTLENECKS = {
    "vq": VectorQuantizer(num_embeddings=24, embedding_dim=6),
    "vq by gradient": VectorQuantizer(num_embeddings=24, embedding_dim=6, use_ema=False),
    "rvq": VectorQuantizer(num_embeddings=24, embedding_dim=6, num_stages=3),
    "gradient": DictionaryLearning(**SPARSE, dictionary_update="gradient"),
    "online": DictionaryLearning(**SPARSE, dictionary_update="online"),
    "online without memory": DictionaryLearning(
        **SPARSE, dictionary_update="online", dictionary_decay=0.0, dict_learning_rate=0.003
    ),
    "exact": DictionaryLearning(**SPARSE, ksvd_iterations=2),
    "approximate": DictionaryLearning(**SPARSE, ksvd_method="approximate"),
    "parallel": DictionaryLearning(**SPARSE, ksvd_method="parallel"),
    "patches": DictionaryLearning(**SPARSE, patch_size=(2, 4), dictionary_decay=0.0),
    "rate": DictionaryLearning(
        **SPARSE, sparse_coder="rate_distortion", coefficient_step=2.0, ksvd_method="approximate"
    ),
    "hybrid": HybridQuantizer(
        num_embeddings=30, embedding_dim=6, num_stages=3,
        sparse=DictionaryLearning(**SPARSE, dictionary_update="online"),
    ),
    "hybrid by gradient": HybridQuantizer(
        num_embeddings=24, embedding_dim=6, use_ema=False,
        sparse=DictionaryLearning(**SPARSE, dictionary_update="gradient", dictionary_weight=3.0),
    ),
}  # fmt: skip
FIXED_MODES = [name for name in BOTTLENECKS if not BOTTLENECKS[name].learns_by_gradient]


@pytest.fixture(scope="module")
def latents():
    """Latents of three directions and noise, as an encoder's are."""
    key = jax.random.key(0)
    basis = jax.random.normal(key, (3, 6))
    weights = jax.random.normal(jax.random.fold_in(key, 1), (4, 8, 8, 3)) ** 3
    noise = 0.1 * jax.random.normal(jax.random.fold_in(key, 2), (4, 8, 8, 6))
    return weights @ basis + noise


def start(module, latents):
    variables = module.init(jax.random.key(3), latents)
    dictionary = module.init_dictionary(variables["dictionary"], latents, key=jax.random.key(4))
    return {"dictionary": dictionary}


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_bottleneck_alone_codes_adapts_and_lowers_its_error(name, latents):
    module = BOTTLENECKS[name]
    # From half of the latents: k-means of all of them would leave VQ nothing to learn.
    variables = start(module, latents[:2])
    assert "params" not in variables
    apply, adapt = jax.jit(module.apply), jax.jit(module.adapt)
    first = out = apply(variables, latents)
    assert out.approximation.shape == latents.shape
    structure = jax.tree.structure(variables["dictionary"])
    for step in range(1, 6):
        dictionary = adapt(
            variables["dictionary"], latents, out.code, step=step, key=jax.random.key(step)
        )
        assert jax.tree.structure(dictionary) == structure
        variables = {"dictionary": dictionary}
        out = apply(variables, latents)
    if name in FIXED_MODES:
        assert float(out.loss) < float(first.loss)
    else:
        np.testing.assert_allclose(out.loss, first.loss, rtol=1e-5)


def test_a_higher_bit_price_gives_fewer_atoms_and_coefficients_are_multiples_of_the_step(latents):
    used = {}
    for price in (0.0, 0.1, 1.0):
        module = DictionaryLearning(
            **SPARSE, sparse_coder="rate_distortion", bit_price=price, coefficient_step=0.25
        )
        code = module.apply(start(module, latents), latents).code
        levels = np.asarray(code.coefficients) / 0.25
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-5)
        used[price] = np.mean(np.sum(levels != 0, -1))
    assert used[0.0] > used[0.1] > used[1.0] > 0


def test_bits_of_a_code_by_rate_tell_all_its_codes_apart():
    module = DictionaryLearning(**SPARSE, sparse_coder="rate_distortion")
    codes = 1 + 24 * 62 + 276 * 62**2 + 2024 * 62**3
    assert module.bits_per_signal(16) == pytest.approx(np.log2(codes))
    with pytest.raises(ValueError, match="bit_price must not be negative, got -1.0"):
        DictionaryLearning(**SPARSE, bit_price=-1.0)


def test_every_sparse_coder_serves_the_bottleneck(latents):
    left = {}
    for coder in PURSUITS:
        module = DictionaryLearning(
            num_embeddings=12, embedding_dim=6, sparsity_level=2, sparse_coder=coder
        )
        variables = start(module, latents)
        code = module.apply(variables, latents).code
        assert code.indices.shape == (4, 8, 8, 2)
        approximation = module.decode(variables["dictionary"]["atoms"], code)
        left[coder] = float(jnp.mean((latents - approximation) ** 2))
    assert left["ols"] < left["omp"] < left["matching_pursuit"] < left["top_k"]
    assert left["ols"] < left["gradient_pursuit"] < left["iterative_hard_thresholding"]


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_evaluation_cannot_change_the_dictionary(name, latents):
    module = BOTTLENECKS[name]
    variables = start(module, latents)
    _, updated = module.apply(variables, latents, mutable=["intermediates"])
    assert not updated.get("dictionary")


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_gradient_goes_straight_through_to_the_latents(name, latents):
    module = BOTTLENECKS[name]
    variables = start(module, latents)

    def total(latents):
        return jnp.sum(module.apply(variables, latents).approximation ** 3)

    approximation = module.apply(variables, latents).approximation
    np.testing.assert_allclose(jax.grad(total)(latents), 3 * approximation**2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_approximation_is_the_decoded_code(name, latents):
    module = BOTTLENECKS[name]
    variables = start(module, latents)
    out = module.apply(variables, latents)
    decoded = module.decode(variables["dictionary"]["atoms"], out.code)
    np.testing.assert_allclose(out.approximation, decoded, atol=1e-5)


def test_loss_is_the_weighted_sum_of_its_two_errors(latents):
    module = DictionaryLearning(
        **SPARSE, dictionary_update="gradient", commitment_cost=0.5, dictionary_weight=3.0
    )
    out = module.apply(start(module, latents), latents)
    error = jnp.mean((latents - out.approximation) ** 2)
    np.testing.assert_allclose(out.loss, 3.5 * error, rtol=1e-5)


def test_coefficient_l1_pulls_the_latents_and_not_the_atoms(latents):
    module = DictionaryLearning(
        **SPARSE, dictionary_update="gradient", commitment_cost=0.0, dictionary_weight=0.0,
        coefficient_l1_weight=0.5,
    )  # fmt: skip
    variables = start(module, latents)
    atoms = variables["dictionary"]["atoms"]
    # No signal is an atom any more: all three coefficients are used.
    latents += 0.1 * jax.random.normal(jax.random.key(7), latents.shape)
    code = module.encode(atoms, latents)

    def loss(latents, atoms):
        return module.apply(
            {"dictionary": variables["dictionary"] | {"atoms": atoms}}, latents
        ).loss

    def refitted(latents):
        """Least squares over the supports as they are."""
        chosen = atoms[code.indices]
        gram = jnp.einsum("...kd,...ld->...kl", chosen, chosen)
        right = jnp.einsum("...kd,...d->...k", chosen, latents)
        coefficients = jnp.linalg.solve(gram, right[..., None])[..., 0]
        return 0.5 * jnp.mean(jnp.sum(jnp.abs(coefficients), -1))

    np.testing.assert_allclose(loss(latents, atoms), refitted(latents), rtol=1e-5)
    by_latents, by_atoms = jax.jit(jax.grad(loss, argnums=(0, 1)))(latents, atoms)
    expected = jax.jit(jax.grad(refitted))(latents)
    np.testing.assert_allclose(by_latents, expected, atol=1e-3 * jnp.max(jnp.abs(expected)))
    assert not jnp.any(by_atoms)


def test_coherence_penalty_drives_the_atoms_apart(latents):
    module = DictionaryLearning(
        **SPARSE, dictionary_update="gradient", commitment_cost=0.0, dictionary_weight=0.0,
        coherence_weight=2.0,
    )  # fmt: skip
    variables = start(module, latents)

    def loss(atoms):
        return module.apply(
            {"dictionary": variables["dictionary"] | {"atoms": atoms}}, latents
        ).loss

    atoms = variables["dictionary"]["atoms"]
    np.testing.assert_allclose(loss(atoms), 2 * coherence_penalty(atoms), rtol=1e-5)
    for _ in range(200):
        atoms = unit_norm(atoms - 2.0 * jax.grad(loss)(atoms))
    welch = (24 - 6) / (6 * 23)
    assert (
        0.9999 * welch < loss(atoms) / 2 < 1.1 * welch < loss(variables["dictionary"]["atoms"]) / 2
    )


def test_dictionary_gradient_is_that_of_the_least_squares_error(latents):
    """The envelope theorem: detached coefficients give the full gradient."""
    module = BOTTLENECKS["gradient"]
    variables = start(module, latents)

    def loss(atoms):
        dictionary = {**variables["dictionary"], "atoms": atoms}
        return module.apply({"dictionary": dictionary}, latents).loss

    atoms = variables["dictionary"]["atoms"]
    code = module.encode(atoms, latents)
    chosen = atoms[code.indices]

    def refitted(atoms):
        chosen = atoms[code.indices]
        gram = jnp.einsum("...kd,...ld->...kl", chosen, chosen)
        right = jnp.einsum("...kd,...d->...k", chosen, latents)
        coefficients = jnp.linalg.solve(gram, right[..., None])[..., 0]
        return jnp.mean((latents - jnp.einsum("...k,...kd->...d", coefficients, chosen)) ** 2)

    assert chosen.shape[-2] == 3
    np.testing.assert_allclose(jax.grad(loss)(atoms), jax.grad(refitted)(atoms), atol=2e-4)


def test_non_gradient_dictionaries_get_no_gradient(latents):
    for name in FIXED_MODES:
        module = BOTTLENECKS[name]
        variables = start(module, latents)

        def loss(atoms, module=module, variables=variables):
            dictionary = {**variables["dictionary"], "atoms": atoms}
            return module.apply({"dictionary": dictionary}, latents).loss

        assert not jnp.any(jax.grad(loss)(variables["dictionary"]["atoms"])), name


def test_unused_atoms_are_replaced_and_their_statistics_reset(latents):
    module = DictionaryLearning(
        **LEARNS, replace_every_steps=2, usage_decay=0.5, min_usage=0.3, update_every_steps=100
    )
    variables = start(module, latents)
    dictionary = dict(variables["dictionary"])
    dictionary["usage"] = dictionary["usage"].at[5].set(0.0)
    dictionary["statistics"] += 1.0
    # Atom 5 goes unused: as a zero atom nothing can choose it.
    code = module.encode(dictionary["atoms"].at[5].set(0.0), latents)
    assert float(usage(code, 24)[5]) == 0
    kept = module.adapt(dictionary, latents, code, step=1, key=jax.random.key(0))
    np.testing.assert_array_max_ulp(kept["atoms"][5], dictionary["atoms"][5], maxulp=2)
    replaced = module.adapt(dictionary, latents, code, step=2, key=jax.random.key(0))
    assert not np.allclose(replaced["atoms"][5], dictionary["atoms"][5])
    assert float(replaced["usage"][5]) == 1 and not jnp.any(replaced["statistics"][5])
    np.testing.assert_allclose(jnp.linalg.norm(replaced["atoms"], axis=-1), 1, atol=1e-5)


def test_dead_codes_are_replaced_with_their_moving_averages(latents):
    module = VectorQuantizer(num_embeddings=24, embedding_dim=6, replace_every_steps=1)
    variables = start(module, latents)
    dictionary = dict(variables["dictionary"])
    dictionary["atoms"] = dictionary["atoms"].at[3].set(1e3)
    dictionary["statistics"] = dictionary["statistics"]._replace(
        sums=dictionary["statistics"].sums.at[3].set(1e3)
    )
    dictionary["usage"] = dictionary["usage"].at[3].set(0.0)
    code = module.encode(dictionary["atoms"], latents)
    new = module.adapt(dictionary, latents, code, step=1, key=jax.random.key(0))
    distance = jnp.min(jnp.linalg.norm(latents.reshape(-1, 6) - new["atoms"][3][None], axis=-1))
    assert float(distance) < 1e-5  # one of the signals
    np.testing.assert_allclose(new["statistics"].sums[3], new["atoms"][3], rtol=1e-5)
    assert float(new["statistics"].counts[3]) == 1


def test_update_every_steps_skips_the_steps_between(latents):
    module = DictionaryLearning(**LEARNS, update_every_steps=3)
    dictionary = start(module, latents)["dictionary"]
    code = module.encode(dictionary["atoms"], latents)
    for step in (1, 2, 3):
        new = module.adapt(dictionary, latents, code, step=step, key=jax.random.key(0))
        moved = float(jnp.max(jnp.abs(new["atoms"] - dictionary["atoms"])))
        assert (moved > 1e-3) == (step == 3)


def test_sequential_sweep_without_memory_never_raises_the_error_of_its_code(latents):
    for sweeps in (1, 3):
        module = DictionaryLearning(**SPARSE, dictionary_decay=0.0, ksvd_iterations=sweeps)
        dictionary = start(module, latents)["dictionary"]
        code = module.encode(dictionary["atoms"], latents)
        before = jnp.mean((latents - decode(code, dictionary["atoms"])) ** 2)
        new = module.adapt(dictionary, latents, code, step=1, key=jax.random.key(0))
        after = jnp.mean(
            (latents - decode(module.encode(new["atoms"], latents), new["atoms"])) ** 2
        )
        assert float(after) < float(before)


def test_atoms_keep_unit_norm_only_if_asked(latents):
    free = DictionaryLearning(
        **SPARSE, dictionary_update="gradient", normalize_atoms=False, replace_every_steps=0
    )
    bound = DictionaryLearning(**SPARSE, dictionary_update="gradient", replace_every_steps=0)
    dictionary = dict(start(free, latents)["dictionary"])
    dictionary["atoms"] *= 2.0
    code = free.encode(dictionary["atoms"], latents)
    new = free.adapt(dictionary, latents, code, step=1, key=jax.random.key(0))
    np.testing.assert_array_equal(new["atoms"], dictionary["atoms"])
    new = bound.adapt(dictionary, latents, code, step=1, key=jax.random.key(0))
    np.testing.assert_allclose(new["atoms"], unit_norm(dictionary["atoms"]), rtol=1e-6)


def test_tolerance_lets_the_code_follow_the_signal(latents):
    module = DictionaryLearning(**SPARSE, tolerance=0.05)
    out = module.apply(start(module, latents * jnp.linspace(0, 1, 8)[None, :, None, None]), latents)
    active = jnp.sum(out.code.coefficients != 0, -1)
    assert int(active.min()) < int(active.max()) <= 3


def test_patches_are_blocks_of_the_grid_and_fold_back():
    latents = jnp.arange(2 * 4 * 8 * 3.0).reshape(2, 4, 8, 3)
    signals = to_patches(latents, (2, 4))
    assert signals.shape == (2, 2, 2, 24)
    np.testing.assert_array_equal(signals[1, 0, 1], latents[1, :2, 4:].reshape(-1))
    np.testing.assert_array_equal(from_patches(signals, (2, 4)), latents)


def test_straight_through_has_the_approximations_value():
    x, q = jnp.array([1.0, 2.0]), jnp.array([1.5, -2.0])
    np.testing.assert_allclose(straight_through(x, q), q)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sparsity_level": 600}, r"sparsity must be in \[1, 512\] \(num_embeddings\), got 600"),
        ({"sparsity_level": 0}, r"got 0"),
        ({"sparse_coder": "lasso"}, "unknown sparse_coder 'lasso'; choose from"),
        ({"dictionary_update": "svd"}, "unknown dictionary_update 'svd'; choose from"),
        ({"ksvd_method": "fast"}, "unknown ksvd_method 'fast'; choose from"),
        ({"ksvd_iterations": 0}, "ksvd_iterations must be at least 1, got 0"),
        (
            {"patch_size": (2, 0)},
            r"patch_size must be a positive int or a pair of them, got \(2, 0\)",
        ),
        ({"patch_size": 2.5}, "patch_size must be a positive int"),
        ({"coefficient_l1_weight": -0.1}, "coefficient_l1_weight must not be negative, got -0.1"),
        ({"coherence_weight": 0.1}, r"coherence_weight 0.1 .*'ksvd'; use 'gradient'"),
    ],
)
def test_bad_settings_raise_with_their_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        DictionaryLearning(**arguments)


def test_latents_of_other_shapes_raise():
    module = DictionaryLearning(embedding_dim=8, patch_size=4)
    with pytest.raises(ValueError, match="latent grid 6x8 is not divisible by patch_size 4x4"):
        module.init(jax.random.key(0), jnp.zeros((1, 6, 8, 8)))
    with pytest.raises(ValueError, match=r"\(b, h, w, 64\) \(embedding_dim\), got \(1, 8, 8, 32\)"):
        VectorQuantizer().init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))
