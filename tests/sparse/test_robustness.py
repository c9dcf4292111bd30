"""Invariants of every coder: at any scale, next to signals and atoms that are not finite, in any
batch, with a tolerance for each signal, and exported."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from laser_jax import sparse
from laser_jax.sparse import RateModel, SparseCode, decode, nearest_atom, omp
from laser_jax.sparse.entry import static_value

N, M, D, K = 200, 32, 16, 4
RNG = np.random.default_rng(0)
# Coherent: |cosine| of two atoms is 0.5 and more on average.
ATOMS = (RNG.normal(size=(M, D)) + 1.5 * RNG.normal(size=D)).astype(np.float32)
SIGNALS = (RNG.normal(size=(N, M)) * (RNG.random((N, M)) < 0.1) @ ATOMS).astype(np.float32)
SIGNALS += RNG.normal(size=(N, D)).astype(np.float32)
RATES = sparse.uniform_rate_model(M, sparsity=K, max_level=20)
STAGES = RateModel(np.ones(M, "f"), np.zeros(1, "f"), np.arange(K + 1, dtype=np.float32))
CODERS = {
    "omp": functools.partial(omp, sparsity=K),
    "ols": functools.partial(omp, sparsity=K, selection="ols"),
    "matching_pursuit": functools.partial(sparse.matching_pursuit, sparsity=K),
    "gradient_pursuit": functools.partial(sparse.gradient_pursuit, sparsity=K),
    "thresholding": functools.partial(sparse.iterative_hard_thresholding, sparsity=K),
    "top_k": functools.partial(sparse.top_k, sparsity=K),
}
VECTOR_CODERS = {
    "nearest_atom": nearest_atom,
    "residual_nearest_atoms": functools.partial(sparse.residual_nearest_atoms, stages=K),
}
RATE_CODERS = {
    "rate_distortion_pursuit": functools.partial(
        sparse.rate_distortion_pursuit, model=RATES, sparsity=K, step=0.1, bit_price=0.01
    ),
    "rate_distortion_stages": functools.partial(
        sparse.rate_distortion_stages, model=STAGES, stages=K, bit_price=0.01
    ),
}


def in_groups_of_one(signals, dictionary):
    code = sparse.simultaneous_omp(signals[..., None, :], dictionary, sparsity=K)
    return jax.tree.map(lambda x: x[..., 0, :], code)


GROUP_CODERS = {"simultaneous_omp": in_groups_of_one}
ALL = CODERS | VECTOR_CODERS | RATE_CODERS | GROUP_CODERS


@functools.cache
def plain(name):
    return jax.tree.map(np.asarray, ALL[name](SIGNALS, ATOMS))


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
@pytest.mark.parametrize("of_atoms", [2.0**-100, 1.0, 2.0**100])
@pytest.mark.parametrize("name", CODERS)
def test_a_code_does_not_depend_on_the_scale(name, scale, of_atoms):
    if not 2.0**-120 < scale / of_atoms < 2.0**120:
        pytest.skip("float32 has no such coefficients")
    code = CODERS[name](np.float32(scale) * SIGNALS, np.float32(of_atoms) * ATOMS)
    np.testing.assert_array_equal(code.indices, plain(name).indices)
    back = np.asarray(code.coefficients, np.float64) * of_atoms / scale
    np.testing.assert_allclose(back, plain(name).coefficients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
@pytest.mark.parametrize("name", VECTOR_CODERS)
def test_nearest_atoms_do_not_depend_on_a_common_scale(name, scale):
    code = ALL[name](np.float32(scale) * SIGNALS, np.float32(scale) * ATOMS)
    np.testing.assert_array_equal(code.indices, plain(name).indices)


def test_a_signal_far_larger_than_the_atoms_has_the_nearest_atom_along_it():
    code = nearest_atom(np.float32(1e30) * SIGNALS, np.float32(1e-30) * ATOMS)
    products = SIGNALS.astype(np.float64) @ ATOMS.T
    np.testing.assert_array_equal(code.indices[:, 0], np.argmax(products, -1))


def test_half_precision_vectors_of_any_length_become_units():
    unit = sparse.unit_norm(jnp.ones(70_000, jnp.float16))
    np.testing.assert_allclose(np.asarray(unit, np.float64), 70_000**-0.5, rtol=1e-3)
    np.testing.assert_allclose(sparse.unit_norm(np.full(4, 6e4, np.float16)), 0.5, rtol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_a_signal_that_is_not_finite_affects_only_its_own_code(name):
    bad = [3, 50, 199]
    signals = SIGNALS.copy()
    signals[bad, :3] = np.array([[np.nan], [np.inf], [-np.inf]])
    code = ALL[name](signals, ATOMS)
    np.testing.assert_array_equal(
        np.delete(code.indices, bad, 0), np.delete(plain(name).indices, bad, 0)
    )
    np.testing.assert_array_equal(
        np.delete(code.coefficients, bad, 0), np.delete(plain(name).coefficients, bad, 0)
    )
    if name in CODERS:
        assert all(len(set(row)) == K for row in np.asarray(code.indices)[bad])
    own = np.asarray(code.coefficients)[bad]
    assert np.all(own == 0) if name in RATE_CODERS else np.all(np.isnan(own))


@pytest.mark.parametrize("name", ALL)
def test_an_atom_that_is_not_finite_is_never_taken(name):
    bad = [0, 9, 31]
    atoms = ATOMS.copy()
    atoms[bad, 0] = np.nan, np.inf, -np.inf
    code = ALL[name](SIGNALS, atoms)
    taken = np.unique(np.asarray(code.indices)[np.asarray(code.coefficients) != 0])
    assert not set(taken) & set(bad) and len(taken) > 10
    if name not in RATE_CODERS:
        assert np.all(np.isfinite(decode(code, atoms)))
    if name in CODERS:
        zeroed = CODERS[name](
            SIGNALS, np.where(np.isfinite(atoms).all(-1, keepdims=True), atoms, 0)
        )
        np.testing.assert_array_equal(code.indices, zeroed.indices)
        np.testing.assert_array_equal(code.coefficients, zeroed.coefficients)


@functools.cache
def gradients_of(name):
    """A compiled function of signals, atoms and a tolerance for each signal."""

    def loss(signals, atoms, tolerance):
        coefficients = CODERS[name](signals, atoms, tolerance=tolerance).coefficients
        return jnp.sum(jnp.where(jnp.isfinite(coefficients), coefficients, 0))

    return jax.jit(jax.grad(loss, argnums=(0, 1)))


NO_TOLERANCE = np.zeros(N, np.float32)


@pytest.mark.parametrize("name", CODERS)
def test_gradients_do_not_depend_on_the_scale(name):
    plain = [np.asarray(x, np.float64) for x in gradients_of(name)(SIGNALS, ATOMS, NO_TOLERANCE)]
    for of_signals, of_atoms in ((100, 0), (-100, 0), (100, 100), (-100, -100)):
        a, b = np.float32(2.0**of_signals), np.float32(2.0**of_atoms)
        found = gradients_of(name)(a * SIGNALS, b * ATOMS, NO_TOLERANCE)
        for x, y, power in zip(found, plain, (of_atoms, 2 * of_atoms - of_signals), strict=True):
            back = np.asarray(x, np.float64) * 2.0**power
            np.testing.assert_allclose(back, y, rtol=1e-4, atol=1e-5 * np.max(np.abs(y)))


@pytest.mark.parametrize("name", CODERS)
def test_gradients_beside_signals_and_atoms_that_are_not_finite_are_those_without(name):
    signals, atoms = SIGNALS.copy(), ATOMS.copy()
    signals[7], atoms[[0, 9]] = 0, 0
    # Signals with unused places, which hold the first free atoms: 0, that is not finite, is one.
    tolerance = np.where(np.arange(N) % 2, 20, 0).astype(np.float32)
    expected = gradients_of(name)(signals, atoms, tolerance)
    bad_signals, bad_atoms = signals.copy(), atoms.copy()  # JAX may still read the others
    bad_signals[7, 0], bad_atoms[0, 0], bad_atoms[9, 0] = np.nan, np.nan, np.inf
    found = gradients_of(name)(bad_signals, bad_atoms, tolerance)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


# Four programs each. The slow ones run in the blocks of a quick one.
BLOCKS_OF_ANOTHER = {
    "ols", "matching_pursuit", "top_k", "residual_nearest_atoms", "rate_distortion_stages"
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=pytest.mark.slow) if x in BLOCKS_OF_ANOTHER else x for x in ALL],
)
def test_a_signal_has_one_code_alone_in_a_block_and_among_thousands(name):
    def support(code):
        order = np.argsort(code.indices, -1)
        used = np.where(np.asarray(code.coefficients) != 0, code.indices, -1)
        return np.sort(used, -1), np.take_along_axis(np.asarray(code.coefficients), order, -1)

    alone = jax.lax.map(lambda y: ALL[name](y, ATOMS), SIGNALS)
    mapped = jax.jit(jax.vmap(ALL[name], (0, None)))(SIGNALS, ATOMS)
    many = ALL[name](np.concatenate([SIGNALS, 7 * SIGNALS[:, ::-1]] * 10), ATOMS)
    many = jax.tree.map(lambda x: np.asarray(x)[:N], many)
    codes = [alone, mapped, many]
    if name in CODERS or name == "nearest_atom":
        codes.append(ALL[name](SIGNALS, ATOMS, block_size=7))
    for code in codes:
        same = np.all(support(code)[0] == support(plain(name))[0], -1)
        assert np.mean(same) > 0.98  # others are ties, which rounding decides


def refit(signals, atoms):
    places = jnp.argsort(signals, axis=-1)[..., :K]  # each signal has its own
    return sparse.least_squares(signals, atoms, SparseCode(places, jnp.ones(places.shape)))


@pytest.mark.parametrize("name", [*CODERS, *VECTOR_CODERS, *GROUP_CODERS, "least_squares"])
def test_vmap_over_signals_takes_the_memory_of_blocks(name):
    coder = (ALL | {"least_squares": refit})[name]
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((2**17, 16), (512, 16))]
    compiled = jax.jit(jax.vmap(coder, (0, None))).lower(*shapes).compile()
    # Copies of signals and codes, and a block. All correlations would take 268 MB.
    assert compiled.memory_analysis().temp_size_in_bytes < 30e6


@pytest.mark.parametrize("name", ["omp", "nearest_atom", "least_squares"])
def test_vmap_over_signals_dictionaries_or_both_is_a_loop(name):
    coder = (ALL | {"least_squares": refit})[name]
    signals, dictionaries = SIGNALS[:24].reshape(2, 3, 4, D), np.stack([ATOMS, ATOMS[::-1]])
    by_signals = jax.vmap(coder, (0, None))
    both, alone = [0, 1], [0, 0]
    for call, y, d, rows, atoms in (
        (jax.vmap(by_signals, (0, None)), signals, ATOMS, both, alone),
        (jax.vmap(by_signals), signals, dictionaries, both, both),
        (jax.vmap(by_signals, (None, 0)), signals[0], dictionaries, alone, both),
    ):
        code = jax.jit(call)(y, d)
        for i in range(2):
            expected = coder(signals[rows[i]], dictionaries[atoms[i]])
            np.testing.assert_array_equal(code.indices[i], expected.indices)
            np.testing.assert_allclose(
                code.coefficients[i], expected.coefficients, rtol=1e-3, atol=1e-5
            )


def test_vmap_over_tolerances_is_a_loop():
    tolerances = np.float32([0, 10, 1e9])
    grid = np.broadcast_to(tolerances[:, None], (3, N))
    for code in (
        jax.vmap(lambda t: omp(SIGNALS, ATOMS, sparsity=K, tolerance=t))(tolerances),
        jax.vmap(lambda t: omp(SIGNALS, ATOMS, sparsity=K, tolerance=t))(grid),
    ):
        for i, tolerance in enumerate(tolerances):
            expected = omp(SIGNALS, ATOMS, sparsity=K, tolerance=tolerance)
            same = np.all(code.indices[i] == expected.indices, -1)
            assert np.mean(same) > 0.98
            used = code.coefficients[i] != 0
            assert np.mean(used == (expected.coefficients != 0)) > 0.98


@pytest.mark.parametrize("name", CODERS)
def test_each_signal_has_its_own_tolerance(name):
    tolerances = np.where(np.arange(N) % 2, 0, 1e9).astype(np.float32)
    code = CODERS[name](SIGNALS, ATOMS, tolerance=tolerances)
    assert not np.any(code.coefficients[::2])
    same = np.all(
        code.indices[1::2] == CODERS[name](SIGNALS, ATOMS, tolerance=0.0).indices[1::2], -1
    )
    assert np.mean(same) > 0.98
    hidden = np.where(np.arange(N) == 3, np.float32(np.nan), tolerances)
    found = CODERS[name](SIGNALS, ATOMS, tolerance=hidden)
    others = np.arange(N) != 3
    assert np.isnan(found.coefficients[3]).all()
    np.testing.assert_array_equal(found.coefficients[others], code.coefficients[others])
    grid = CODERS[name](SIGNALS.reshape(20, 10, D), ATOMS, tolerance=tolerances.reshape(20, 10)[:1])
    assert not np.any(grid.coefficients[:, ::2]) and np.all(grid.coefficients[:, 1::2, 0] != 0)
    with pytest.raises(ValueError, match=r"tolerance must be a scalar or broadcast .* \(200,\)"):
        CODERS[name](SIGNALS, ATOMS, tolerance=tolerances[:7])
    for wrong in (-1, np.nan, np.float32(-0.5), -tolerances):
        with pytest.raises(ValueError, match=r"tolerance must be at least 0, got"):
            CODERS[name](SIGNALS, ATOMS, tolerance=wrong)


@pytest.mark.parametrize("name", ["omp", "top_k", "nearest_atom", "rate_distortion_pursuit"])
def test_a_coder_is_exported_with_a_symbolic_batch_to_any_platform(name, monkeypatch):
    def refuse():
        raise AssertionError("asked for the default backend")

    monkeypatch.setattr(jax, "default_backend", refuse)
    batch = jax.ShapeDtypeStruct(export.symbolic_shape("n, 16"), jnp.float32)
    atoms = jax.ShapeDtypeStruct(ATOMS.shape, jnp.float32)
    for platforms in (["cuda"], ["tpu"], ["cpu"]):
        exported = export.export(jax.jit(lambda y, d: ALL[name](y, d)), platforms=platforms)
        stored = exported(batch, atoms).serialize()
    code = export.deserialize(stored).call(jnp.asarray(SIGNALS), jnp.asarray(ATOMS))
    assert isinstance(code, SparseCode)
    same = np.all(code.indices == plain(name).indices, -1)
    assert np.mean(same) > 0.98


@pytest.mark.parametrize("kind", [np.int64, np.uint8, jnp.int32])
def test_static_numbers_may_be_of_any_integer_type(kind):
    np.testing.assert_array_equal(
        omp(SIGNALS, ATOMS, sparsity=kind(K)).indices, plain("omp").indices
    )
    assert sparse.usage(plain("omp"), kind(M)).shape == (M,)


def test_a_bool_of_numpy_is_a_static_bool():
    for value in (False, True):
        assert static_value("nonnegative", np.bool_(value)) is value


def test_static_numbers_that_are_not_integers_raise_by_name():
    for bad in (3.0, np.float32(3), "3"):
        with pytest.raises(ValueError, match="sparsity must be a static integer, got"):
            omp(SIGNALS, ATOMS, sparsity=bad)
    with pytest.raises(ValueError, match="sparsity must be a static integer, got"):
        jax.jit(lambda k: omp(SIGNALS, ATOMS, sparsity=k))(3)
    with pytest.raises(ValueError, match="num_atoms must be a static integer, got"):
        sparse.usage(plain("omp"), 32.0)
    with pytest.raises(ValueError, match=r"sparsity must be in \[1, 32\] \(the number of atoms\)"):
        omp(SIGNALS, ATOMS, sparsity=33)


def test_a_sparse_matrix_raises_with_the_remedy():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(ValueError, match=r"signals must be a dense array, .* signals.toarray\(\)"):
        omp(scipy_sparse.csr_matrix(SIGNALS), ATOMS, sparsity=K)
