import importlib
import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import decode, omp, to_dense
from tests.sparse.forms import FORMS, forms

omp_module = importlib.import_module("laser_jax.sparse.omp")
SELECTIONS = ("correlation", "ols")
# Each form and each problem is in a quick test.
QUICK = [
    ("rows", "random"),
    ("columns", "photo"),
    ("gram", "coherent"),
    ("rows at once", "coherent"),
]
known_problems = pytest.mark.parametrize(
    "form, problem",
    [
        pair if pair in QUICK else pytest.param(*pair, marks=pytest.mark.slow)
        for pair in itertools.product(FORMS, ("random", "coherent", "photo"))
    ],
    indirect=True,
)


def squared_error(signals, dictionary, code):
    return np.sum((signals - np.asarray(decode(code, jnp.asarray(dictionary)))) ** 2, -1)


def support(code):
    return np.asarray(to_dense(code._replace(coefficients=jnp.ones_like(code.coefficients)), 256))


def random_problem(rng, dtype, n=50, d=16, m=40):
    signals, dictionary = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    return jnp.asarray(signals, dtype), jnp.asarray(dictionary, dtype)


def check_valid(code, m):
    """Finite, and no atom twice in a signal, padding included."""
    assert np.all(np.isfinite(code.coefficients))
    indices = np.sort(np.asarray(code.indices), -1)
    assert indices.min() >= 0 and indices.max() < m
    assert np.all(np.diff(indices, axis=-1) > 0)


# Known answers.


@known_problems
def test_omp_takes_the_same_atoms_as_scikit_learn(problem, float64, form):
    from sklearn.linear_model import orthogonal_mp_gram

    signals, dictionary = problem
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where a signal is exactly sparse
        expected = orthogonal_mp_gram(
            dictionary @ dictionary.T, dictionary @ signals.T, n_nonzero_coefs=8
        ).T
    code = omp(jnp.asarray(signals), jnp.asarray(dictionary), sparsity=8)
    dense = np.asarray(to_dense(code, 256))
    same = np.all((dense != 0) == (expected != 0), axis=-1)
    assert same.mean() >= 0.998
    np.testing.assert_allclose(dense[same], expected[same], rtol=1e-6, atol=1e-9)


@known_problems
def test_ols_errors_are_not_above_those_of_spams(problem, float64, form):
    import spams

    signals, dictionary = problem
    expected = spams.omp(
        np.asfortranarray(signals.T), np.asfortranarray(dictionary.T), L=8, eps=0.0, lambda1=0.0
    )
    spams_error = np.sum((signals.T - dictionary.T @ expected) ** 2, axis=0)
    code = omp(jnp.asarray(signals), jnp.asarray(dictionary), sparsity=8, selection="ols")
    error = squared_error(signals, dictionary, code)
    assert np.mean(error <= spams_error * (1 + 1e-9) + 1e-15) >= 0.998
    assert error.mean() <= spams_error.mean() * (1 + 1e-6)


@known_problems
def test_omp_in_float32_is_as_good_as_in_float64(problem, form):
    signals, dictionary = problem
    single = omp(jnp.float32(signals), jnp.float32(dictionary), sparsity=8)
    with jax.enable_x64(True):
        double = omp(jnp.asarray(signals), jnp.asarray(dictionary), sparsity=8)
        same = np.all(np.sort(single.indices, -1) == np.sort(double.indices, -1), -1)
        error = squared_error(signals, dictionary, double).mean()
    assert same.mean() >= 0.99
    np.testing.assert_allclose(squared_error(signals, dictionary, single).mean(), error, rtol=1e-3)


def test_omp_finds_an_exactly_sparse_code(rng, dtype):
    dictionary = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    dictionary = np.concatenate([np.eye(32), dictionary])
    indices = np.stack([rng.choice(64, 3, replace=False) for _ in range(40)])
    coefficients = rng.choice([-1, 1], (40, 3)) * rng.uniform(1, 2, (40, 3))
    signals = np.einsum("nk,nkd->nd", coefficients, dictionary[indices])
    code = omp(jnp.asarray(signals, dtype), jnp.asarray(dictionary, dtype), sparsity=5)
    expected = np.zeros((40, 64))
    np.put_along_axis(expected, indices, coefficients, axis=-1)
    np.testing.assert_allclose(to_dense(code, 64), expected, atol=1e-4)


def test_ols_chooses_by_the_error_an_atom_leaves(float64):
    # Both take atom 0. The rest (0, 1, 0) then correlates more with atom 2, but atoms 0
    # and 1 together explain the signal.
    dictionary = jnp.array([[1, 0, 0], [0.5, np.sqrt(0.75), 0], [0, 0.9, np.sqrt(0.19)]])
    signal = jnp.array([3.0, 1.0, 0.0])
    by_correlation = omp(signal, dictionary, sparsity=2)
    by_error = omp(signal, dictionary, sparsity=2, selection="ols")
    np.testing.assert_array_equal(by_correlation.indices, [0, 2])
    np.testing.assert_array_equal(by_error.indices, [0, 1])
    np.testing.assert_allclose(decode(by_error, dictionary), signal, atol=1e-12)


# Properties.


@pytest.mark.parametrize("selection", SELECTIONS)
def test_omp_residual_is_orthogonal_to_its_support(rng, dtype, selection):
    signals, dictionary = random_problem(rng, dtype)
    code = omp(signals, dictionary, sparsity=4, selection=selection)
    residual = signals - decode(code, dictionary)
    products = np.einsum("nkd,nd->nk", dictionary[code.indices], residual)
    assert np.abs(products).max() < 200 * np.finfo(dtype).eps
    check_valid(code, 40)


def test_omp_error_falls_with_every_atom(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    errors = [
        squared_error(signals, dictionary, omp(signals, dictionary, sparsity=k)).mean()
        for k in (1, 4, 17)
    ]
    assert np.all(np.diff(errors) < 0)


def test_omp_ignores_the_norm_of_atoms(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    scales = jnp.asarray(2.0 ** rng.integers(-8, 8, 40), dtype)
    code = omp(signals, dictionary, sparsity=4)
    scaled = omp(signals, dictionary * scales[:, None], sparsity=4)
    np.testing.assert_array_equal(scaled.indices, code.indices)
    np.testing.assert_allclose(
        scaled.coefficients * scales[code.indices], code.coefficients, rtol=1e-5
    )


def test_each_signal_stops_at_the_tolerance(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    full = omp(signals, dictionary, sparsity=17)
    code = omp(signals, dictionary, sparsity=17, tolerance=2.0)
    used = np.sum(np.asarray(code.coefficients) != 0, -1)
    assert len(set(used)) > 3
    error = squared_error(signals, dictionary, code)
    assert np.all((error <= 2.0 + 1e-4) | (used == 17))
    before = omp(signals, dictionary, sparsity=4)  # five atoms: with four it was not there yet
    assert np.all(squared_error(signals, dictionary, before)[used == 5] > 2.0 - 1e-4)
    taken = np.arange(17)[None, :] < used[:, None]
    np.testing.assert_array_equal(np.asarray(code.indices)[taken], np.asarray(full.indices)[taken])
    check_valid(code, 40)


def test_a_traced_tolerance_does_not_compile_again(rng):
    signals, dictionary = random_problem(rng, np.float32)
    by_tolerance = jax.jit(lambda t: omp(signals, dictionary, sparsity=4, tolerance=t)[1])
    for tolerance in (0.5, 5.0):
        expected = omp(signals, dictionary, sparsity=4, tolerance=tolerance).coefficients
        np.testing.assert_allclose(by_tolerance(tolerance), expected, rtol=1e-4, atol=1e-6)
    assert by_tolerance._cache_size() == 1


@forms("gram")
def test_ols_error_never_rises_with_another_atom_of_a_coherent_dictionary(rng, form):
    grid, centers = np.linspace(0, 1, 64), np.linspace(0, 1, 512)[:, None]
    dictionary = np.exp(-0.5 * ((grid[None] - centers) / 0.1) ** 2)
    dictionary = np.float32(dictionary / np.linalg.norm(dictionary, axis=-1, keepdims=True))
    mixed = rng.normal(size=(200, 512)) * (rng.random((200, 512)) < 0.05)
    signals = np.float32(mixed @ dictionary)
    before = energy = np.sum(signals**2, -1)
    for k in (8, 12, 16):
        code = omp(signals, dictionary, sparsity=k, selection="ols")
        error = squared_error(signals, dictionary, code)
        assert np.all(error <= before + 1e-6 * energy)
        before = error
    assert np.max(error / energy) < 1e-4


def test_ols_leaves_the_gram_matrix_where_atoms_get_coherent(rng, monkeypatch):
    """Its code is that of the form without one, also of signals that it leaves half way."""
    monkeypatch.setattr(omp_module.jax, "device_count", lambda: 1)
    dictionary = rng.normal(size=(40, 32))
    close = dictionary[:20] + 1e-3 * rng.normal(size=(20, 32))
    dictionary = jnp.asarray(np.concatenate([dictionary, close]), jnp.float32)
    signals = rng.normal(size=(64, 32))
    signals[0] = dictionary[3] - dictionary[43]  # nearly equal atoms
    for y in (signals, signals[1:]):
        y = jnp.asarray(y, jnp.float32)
        code, other = (
            omp(y, dictionary, sparsity=8, selection="ols", gram_bytes=x) for x in (None, 0)
        )
        errors = (squared_error(y, dictionary, x) for x in (code, other))
        np.testing.assert_allclose(*errors, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("gram_bytes", "made"), [(None, False), (2**34 - 1, False), (2**34, True)])
def test_a_gram_matrix_larger_than_allowed_is_not_made(gram_bytes, made):
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((40000, 64), (65536, 64))]

    def code(y, d):
        return omp(y, d, sparsity=4, gram_bytes=gram_bytes)

    compiled = jax.jit(code).lower(*shapes).compile()  # the matrix has 2^34 bytes
    assert (compiled.memory_analysis().temp_size_in_bytes > 2**28) == made


# Hard inputs.


@pytest.mark.parametrize(
    ("sparsity", "selection"),
    [(1, "correlation"), (17, "correlation"), (17, "ols"), (40, "ols")],
)
def test_codes_of_any_sparsity_are_finite_with_distinct_atoms(rng, dtype, sparsity, selection):
    signals, dictionary = random_problem(rng, dtype)
    code = omp(signals, dictionary, sparsity=sparsity, selection=selection)
    assert code.indices.shape == (50, sparsity) and code.indices.dtype == jnp.int32
    assert code.coefficients.dtype == dtype
    check_valid(code, 40)
    if sparsity > 16:  # d atoms explain everything
        error = squared_error(signals, dictionary, code)
        assert error.max() < 1e-5 if dtype == np.float32 else error.max() < 1e-20


def test_tiny_dictionaries_are_coded_exactly(rng, dtype):
    signals, dictionary = random_problem(rng, dtype, n=300, d=3, m=16)
    code = omp(signals, dictionary, sparsity=16)
    check_valid(code, 16)
    assert np.sum(np.asarray(code.coefficients) != 0, -1).max() <= 3
    scale = np.abs(np.asarray(code.coefficients)).max(-1) ** 2
    assert np.all(squared_error(signals, dictionary, code) <= 100 * scale * np.finfo(dtype).eps)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_zero_signals_get_zero_coefficients_at_distinct_atoms(rng, dtype, selection):
    signals, dictionary = random_problem(rng, dtype)
    code = omp(jnp.zeros_like(signals), dictionary, sparsity=17, selection=selection)
    np.testing.assert_array_equal(code.coefficients, 0)
    check_valid(code, 40)


def padded(*atoms):
    """The atoms and zero atoms up to 40 in all."""
    atoms = jnp.concatenate(atoms)
    return jnp.pad(atoms, ((0, 40 - len(atoms)), (0, 0)))


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("selection", SELECTIONS)
def test_duplicate_atoms_are_not_taken_together(rng, dtype, selection, form):
    signals, dictionary = random_problem(rng, dtype, m=12)
    thrice = padded(dictionary, dictionary, -2 * dictionary)
    once = omp(signals, padded(dictionary), sparsity=17, selection=selection)
    code = omp(signals, thrice, sparsity=17, selection=selection)
    check_valid(code, 40)
    assert np.sum(np.asarray(code.coefficients) != 0, -1).max() <= 12
    np.testing.assert_allclose(
        squared_error(signals, thrice, code),
        squared_error(signals, padded(dictionary), once),
        rtol=1e-3,
    )


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6, 1e-9])
def test_near_parallel_atoms_are_not_worse_than_one_of_them(rng, dtype, selection, distance):
    signals, dictionary = random_problem(rng, dtype, m=12)
    offsets = jnp.asarray(rng.normal(size=(12, 16)), dtype)
    close = padded(dictionary, dictionary + distance * offsets)
    code = omp(signals, close, sparsity=17, selection=selection)
    check_valid(code, 40)
    one_of_each = omp(signals, padded(dictionary), sparsity=17, selection=selection)
    worst = squared_error(signals, padded(dictionary), one_of_each)
    assert np.all(squared_error(signals, close, code) <= worst * 1.01 + distance)


def test_zero_atoms_are_never_used(rng, dtype):
    signals, dictionary = random_problem(rng, dtype)
    dictionary = dictionary.at[::2].set(0)
    code = omp(signals, dictionary, sparsity=17)
    check_valid(code, 40)
    assert np.all((np.asarray(code.indices) % 2 == 1) | (np.asarray(code.coefficients) == 0))
    nothing = omp(signals, jnp.zeros_like(dictionary), sparsity=17)
    np.testing.assert_array_equal(nothing.coefficients, 0)


# Shapes, types, transformations.


@pytest.mark.parametrize(
    ("leading", "block_size"),
    [((), None), ((3, 0), None), ((2, 3, 5), 7), ((101,), 10)],
)
def test_leading_axes_and_blocks_do_not_change_the_code(rng, leading, block_size):
    signals, dictionary = random_problem(rng, np.float32, n=101)
    count = int(np.prod(leading))
    whole = omp(signals, dictionary, sparsity=4)
    shaped = signals[:count].reshape(*leading, 16)
    code = omp(shaped, dictionary, sparsity=4, block_size=block_size)
    assert code.indices.shape == code.coefficients.shape == (*leading, 4)
    np.testing.assert_array_equal(code.indices.reshape(-1, 4), whole.indices[:count])
    np.testing.assert_allclose(
        code.coefficients.reshape(-1, 4), whole.coefficients[:count], rtol=1e-4, atol=1e-6
    )


def test_bfloat16_signals_are_coded_in_float32(rng):
    signals, dictionary = random_problem(rng, np.float32)
    signals = signals.astype(jnp.bfloat16)
    code = omp(signals, dictionary, sparsity=4)
    assert code.coefficients.dtype == jnp.float32
    exact = omp(signals.astype(jnp.float32), dictionary, sparsity=4)
    np.testing.assert_array_equal(code.coefficients, exact.coefficients)


def test_gradient_is_that_of_least_squares_on_the_held_support(rng, float64):
    signals, dictionary = random_problem(rng, np.float64, n=6)
    weights = rng.normal(size=(6, 4))

    def loss_and_code(y, d):
        code = omp(y, d, sparsity=4, tolerance=5.0)
        return jnp.sum(weights * code.coefficients), code

    gradient_of = jax.jit(jax.grad(loss_and_code, argnums=(0, 1), has_aux=True))
    gradients, code = gradient_of(signals, dictionary)
    used = np.asarray(code.coefficients) != 0
    assert not used.all()  # padding is among it

    def held(y, d):
        total = 0.0
        for i in range(6):
            atoms = d[np.asarray(code.indices)[i, used[i]]]
            total += weights[i, used[i]] @ np.linalg.lstsq(atoms.T, y[i], rcond=None)[0]
        return total

    for which, gradient in enumerate(map(np.asarray, gradients)):
        for place in rng.integers(gradient.shape, size=(100, 2)):
            moved = []
            for step in (1e-6, -1e-6):
                point = [np.array(signals), np.array(dictionary)]
                point[which][tuple(place)] += step
                moved.append(held(*point))
            expected = (moved[0] - moved[1]) / 2e-6
            np.testing.assert_allclose(gradient[tuple(place)], expected, rtol=1e-5, atol=1e-7)


def test_gradients_stay_finite_on_hard_inputs(rng):
    signals, dictionary = random_problem(rng, np.float32)
    signals = signals.at[0].set(0)
    dictionary = dictionary.at[0].set(0).at[2].set(dictionary[1])

    def loss(y, d):
        return jnp.sum(decode(omp(y, d, sparsity=17), d) ** 2)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1)))(signals, dictionary):
        assert np.all(np.isfinite(gradient))


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("selection", SELECTIONS)
def test_sharded_signals_are_coded_on_their_devices(rng, selection):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    signals, dictionary = random_problem(rng, np.float32, n=240)
    sharded = jax.device_put(
        signals.reshape(24, 10, 16), NamedSharding(mesh, PartitionSpec("data"))
    )
    replicated = jax.device_put(dictionary, NamedSharding(mesh, PartitionSpec()))
    run = jax.jit(lambda y, d: omp(y, d, sparsity=4, selection=selection, block_size=100))
    compiled = run.lower(sharded, replicated).compile()
    text = compiled.as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text
    code = compiled(sharded, replicated)
    assert len(code.indices.sharding.device_set) == 2
    assert not code.indices.sharding.is_fully_replicated
    expected = omp(signals, dictionary, sparsity=4, selection=selection)
    np.testing.assert_array_equal(code.indices.reshape(240, 4), expected.indices)


def test_memory_is_bounded_by_the_block_not_by_the_number_of_signals():
    # An accelerator's own block would hold all of these.
    block_size = None if jax.default_backend() == "cpu" else 2048

    def peak(n):
        shape = jax.ShapeDtypeStruct((n, 32), jnp.float32)
        atoms = jax.ShapeDtypeStruct((512, 32), jnp.float32)
        run = jax.jit(lambda y, d: omp(y, d, sparsity=8, block_size=block_size))
        compiled = run.lower(shape, atoms).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    small, large = peak(2**14), peak(2**17)
    input_and_result = (2**17 - 2**14) * (32 + 8 + 8) * 4
    assert large - small <= 2 * input_and_result  # in blocks' order, and back


# Bad input.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 0}, r"\[1, 5\].*got 0"),
        ({"sparsity": 6}, r"\[1, 5\].*got 6"),
        ({"signals": jnp.ones((2, 3))}, r"\(2, 3\).*\(5, 4\)"),
        ({"signals": jnp.ones((2, 4), int)}, r"signals must be floating point, got int32"),
        ({"dictionary": jnp.ones(4)}, r"\(m, d\).*\(4,\)"),
        ({"dictionary": jnp.ones((0, 4))}, r"m >= 1.*\(0, 4\)"),
        ({"selection": "best"}, "'best'; choose from correlation, ols"),
        ({"tolerance": jnp.ones(3)}, r"scalar or broadcast .* got shape \(3,\)"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"gram_bytes": -1}, "gram_bytes must be at least 0, got -1"),
        ({"gram_bytes": 1e9}, "gram_bytes must be a static integer, got 1000000000.0"),
    ],
)
def test_bad_input_is_named_in_the_error(change, message):
    given = {"signals": jnp.ones((2, 4)), "dictionary": jnp.ones((5, 4)), "sparsity": 2} | change
    with pytest.raises(ValueError, match=message):
        omp(given.pop("signals"), given.pop("dictionary"), **given)
