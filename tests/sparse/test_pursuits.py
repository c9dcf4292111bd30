import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import (
    decode,
    gradient_pursuit,
    iterative_hard_thresholding,
    matching_pursuit,
    omp,
    to_dense,
    top_k,
)
from tests.sparse.forms import forms

CODERS = (matching_pursuit, gradient_pursuit, iterative_hard_thresholding, top_k)
coders = pytest.mark.parametrize("coder", CODERS, ids=lambda c: c.__name__)
# The two whose coefficients depend on all atoms taken; the others are slow.
hardest_coders = pytest.mark.parametrize(
    "coder",
    [
        gradient_pursuit,
        iterative_hard_thresholding,
        pytest.param(matching_pursuit, marks=pytest.mark.slow),
        pytest.param(top_k, marks=pytest.mark.slow),
    ],
    ids=lambda c: c.__name__,
)


def squared_error(signals, dictionary, code):
    return np.sum((np.asarray(signals) - np.asarray(decode(code, dictionary))) ** 2, -1)


def random_problem(rng, dtype, n=50, d=16, m=40):
    signals, dictionary = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    return jnp.asarray(signals, dtype), jnp.asarray(dictionary, dtype)


def check_valid(code, m):
    assert np.all(np.isfinite(code.coefficients))
    indices = np.sort(np.asarray(code.indices), -1)
    assert indices.min() >= 0 and indices.max() < m
    assert np.all(np.diff(indices, axis=-1) > 0)


# Known answers: each algorithm as its paper writes it, in NumPy.


def greedy(signal, atoms, sparsity, refine):
    residual, support, coefficients = signal.copy(), [], np.zeros(len(atoms))
    for _ in range(sparsity):
        scores = np.abs(atoms @ residual)
        scores[support] = -1
        support.append(int(np.argmax(scores)))
        coefficients = refine(coefficients, support, atoms, residual)
        residual = signal - coefficients @ atoms
    return coefficients


def projection(coefficients, support, atoms, residual):
    coefficients[support[-1]] += atoms[support[-1]] @ residual
    return coefficients


def descent(coefficients, support, atoms, residual):
    gradient = np.zeros(len(atoms))
    gradient[support] = atoms[support] @ residual
    direction = gradient @ atoms
    return coefficients + gradient * (gradient @ gradient) / (direction @ direction)


@forms("gram")
def test_matching_pursuit_with_revisits_equals_the_textbook_algorithm(rng, float64, form):
    """An atom may be chosen again, which corrects its coefficient."""
    signals, dictionary = random_problem(rng, np.float64)
    norms = np.linalg.norm(dictionary, axis=-1)
    atoms = np.asarray(dictionary) / norms[:, None]
    expected = np.zeros((50, 40))
    for signal, row in zip(np.asarray(signals), expected, strict=True):
        for _ in range(20):
            products = atoms @ (signal - row @ atoms)
            best = np.argmax(np.abs(products))
            row[best] += products[best]
    code = matching_pursuit(signals, dictionary, sparsity=20, revisit=True)
    check_valid(code, 40)
    np.testing.assert_allclose(to_dense(code, 40), expected / norms, rtol=1e-9, atol=1e-12)
    once = matching_pursuit(signals, dictionary, sparsity=20)
    left, left_once = (squared_error(signals, dictionary, c).mean() for c in (code, once))
    assert left < 0.8 * left_once


@pytest.mark.parametrize(
    ("coder", "refine"), [(matching_pursuit, projection), (gradient_pursuit, descent)]
)
def test_greedy_pursuit_equals_the_algorithm_of_the_paper(rng, float64, form, coder, refine):
    signals, dictionary = random_problem(rng, np.float64)
    norms = np.linalg.norm(dictionary, axis=-1)
    atoms = np.asarray(dictionary) / norms[:, None]
    expected = [greedy(y, atoms, 5, refine) / norms for y in np.asarray(signals)]
    code = coder(signals, dictionary, sparsity=5)
    np.testing.assert_allclose(to_dense(code, 40), expected, rtol=1e-9, atol=1e-12)


@forms("rows")
def test_top_k_keeps_the_largest_inner_products(rng, float64, form):
    signals, dictionary = random_problem(rng, np.float64)
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    products = np.asarray(signals @ dictionary.T)
    smallest = np.sort(np.abs(products), -1)[:, -5, None]
    expected = np.where(np.abs(products) >= smallest, products, 0)
    code = top_k(signals, dictionary, sparsity=5)
    np.testing.assert_allclose(to_dense(code, 40), expected, rtol=1e-12)


@coders
def test_every_coder_finds_the_best_code_in_an_orthonormal_dictionary(rng, float64, coder):
    signals = jnp.asarray(rng.normal(size=(50, 16)))
    dictionary = jnp.asarray(np.linalg.qr(rng.normal(size=(16, 16)))[0])
    best = omp(signals, dictionary, sparsity=5)
    code = coder(signals, dictionary, sparsity=5)
    check_valid(code, 16)
    np.testing.assert_allclose(to_dense(code, 16), to_dense(best, 16), atol=1e-5)


@forms("gram")
def test_iterative_hard_thresholding_finds_an_exactly_sparse_code(rng, float64, form):
    dictionary = np.concatenate([np.eye(64), np.linalg.qr(rng.normal(size=(64, 64)))[0]])
    indices = np.stack([rng.choice(128, 3, replace=False) for _ in range(40)])
    dense = np.zeros((40, 128))
    np.put_along_axis(dense, indices, rng.choice([-1, 1], (40, 3)) * 1.0, axis=-1)
    code = iterative_hard_thresholding(
        jnp.asarray(dense @ dictionary), jnp.asarray(dictionary), sparsity=3, iterations=60
    )
    found = np.all(np.abs(to_dense(code, 128) - dense) < 1e-3, axis=-1)
    assert found.mean() >= 0.95


@forms("rows", "columns")
def test_iterative_hard_thresholding_ends_in_least_squares(rng, float64, form):
    signals, dictionary = random_problem(rng, np.float64)
    code = iterative_hard_thresholding(signals, dictionary, sparsity=4)
    residual = np.asarray(signals - decode(code, dictionary))
    products = np.einsum("nd,nkd->nk", residual, np.asarray(dictionary)[code.indices])
    np.testing.assert_allclose(products, 0, atol=1e-9)


@forms("rows at once")
def test_iterative_hard_thresholding_keeps_no_more_atoms_than_the_tolerance_needs(rng, form):
    dictionary = rng.normal(size=(256, 64)).astype(np.float32)
    indices = np.stack([rng.choice(256, 2, replace=False) for _ in range(200)])
    noise = 0.01 * rng.normal(size=(200, 64))
    signals = np.float32(np.sum(dictionary[indices], 1) + noise)
    code = iterative_hard_thresholding(signals, dictionary, sparsity=8, tolerance=0.05)
    reached = squared_error(signals, dictionary, code) <= 0.0501
    assert reached.mean() > 0.95
    used = np.sum(np.asarray(code.coefficients) != 0, -1)
    assert used[reached].mean() < 2.1
    assert np.all(used[~reached] == 8)


def test_iterative_hard_thresholding_does_not_diverge_on_a_coherent_dictionary(rng):
    """The safeguard: a step that does not lower the error is shortened."""
    dictionary = (rng.normal(size=(256, 64)) + 1).astype(np.float32)
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    indices = np.stack([rng.choice(256, 2, replace=False) for _ in range(200)])
    signals = np.float32(np.sum(rng.normal(size=(200, 2, 1)) * dictionary[indices], 1))
    code = iterative_hard_thresholding(signals, dictionary, sparsity=8, iterations=40)
    relative = squared_error(signals, dictionary, code) / np.sum(signals**2, -1)
    assert relative.mean() < 0.02


def test_iterative_hard_thresholding_is_no_worse_than_without_its_safeguard(rng):
    signals, atoms = rng.normal(size=(200, 64)), rng.normal(size=(256, 64))
    atoms /= np.linalg.norm(atoms, axis=-1, keepdims=True)
    expected = []
    for signal in signals:
        dense, support = np.zeros(256), np.argsort(-np.abs(atoms @ signal))[:8]
        for _ in range(20):
            gradient = atoms @ (signal - dense @ atoms)
            change = gradient[support] @ atoms[support]
            dense += gradient * (gradient[support] @ gradient[support]) / (change @ change)
            support = np.argsort(-np.abs(dense))[:8]
            dense[np.argsort(-np.abs(dense))[8:]] = 0
        expected.append(np.linalg.lstsq(atoms[support].T, signal, rcond=None)[1])
    signals, atoms = np.float32(signals), np.float32(atoms)
    code = iterative_hard_thresholding(signals, atoms, sparsity=8)
    assert squared_error(signals, atoms, code).mean() <= np.mean(expected)


# Properties.


@pytest.mark.parametrize(
    "problem",
    ["photo", *(pytest.param(x, marks=pytest.mark.slow) for x in ("random", "coherent"))],
    indirect=True,
)
def test_coders_that_do_more_work_have_smaller_errors(problem):
    signals, dictionary = (jnp.float32(x) for x in problem)
    error = {
        coder: squared_error(signals, dictionary, coder(signals, dictionary, sparsity=8)).mean()
        for coder in (omp, *CODERS)
    }
    assert error[omp] <= error[gradient_pursuit] <= error[matching_pursuit]
    assert error[iterative_hard_thresholding] <= np.mean(np.sum(signals**2, -1))


def test_thresholding_never_gets_worse_with_more_iterations(rng):
    signals, dictionary = random_problem(rng, np.float32)
    errors = [
        squared_error(
            signals,
            dictionary,
            iterative_hard_thresholding(signals, dictionary, sparsity=4, iterations=i),
        )
        for i in (1, 10)
    ]
    assert np.all(errors[0] <= np.sum(signals**2, -1) * 1.0001)
    assert np.all(errors[1] <= errors[0] * 1.0001)


@coders
def test_coders_ignore_the_norm_of_atoms(rng, coder):
    signals, dictionary = random_problem(rng, np.float32)
    scales = jnp.asarray(2.0 ** rng.integers(-8, 8, 40), jnp.float32)
    code = coder(signals, dictionary, sparsity=4)
    scaled = coder(signals, dictionary * scales[:, None], sparsity=4)
    np.testing.assert_array_equal(scaled.indices, code.indices)
    np.testing.assert_allclose(
        scaled.coefficients * scales[code.indices], code.coefficients, rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)], indirect=True
)
@coders
def test_hard_inputs_give_finite_coefficients_at_distinct_atoms(rng, dtype, coder):
    signals, dictionary = random_problem(rng, dtype)
    signals = signals.at[:5].set(0).at[5].set(3 * dictionary[7])
    dictionary = dictionary.at[0].set(0).at[2].set(dictionary[1]).at[4].set(-dictionary[3] * 1.0001)
    for sparsity in (1, 17, 40) if dtype == np.float32 else (17,):
        code = coder(signals, dictionary, sparsity=sparsity)
        assert code.indices.shape == (50, sparsity) and code.indices.dtype == jnp.int32
        assert code.coefficients.dtype == dtype
        check_valid(code, 40)
        np.testing.assert_array_equal(code.coefficients[:5], 0)
    zero = coder(signals, jnp.zeros_like(dictionary), sparsity=17)
    np.testing.assert_array_equal(zero.coefficients, 0)
    check_valid(zero, 40)


@pytest.mark.usefixtures("two_devices")
@coders
def test_sharded_signals_need_no_communication(rng, coder):
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    signals, dictionary = random_problem(rng, np.float32, n=240)
    signals = jax.device_put(signals, NamedSharding(mesh, PartitionSpec("data")))
    dictionary = jax.device_put(dictionary, NamedSharding(mesh, PartitionSpec()))
    run = jax.jit(lambda y, d: coder(y, d, sparsity=3, block_size=100))
    text = run.lower(signals, dictionary).compile().as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text


@coders
def test_signals_below_the_tolerance_get_no_atom(rng, coder):
    signals, dictionary = random_problem(rng, np.float32)
    signals = signals.at[:10].multiply(0.01)
    code = coder(signals, dictionary, sparsity=4, tolerance=0.1)
    np.testing.assert_array_equal(code.coefficients[:10], 0)
    assert np.all(np.any(np.asarray(code.coefficients[10:]) != 0, -1))
    check_valid(code, 40)


@coders
def test_gradients_through_coefficients_are_finite(rng, coder):
    signals, dictionary = random_problem(rng, np.float32)
    signals, dictionary = signals.at[0].set(0), dictionary.at[0].set(0)

    def loss(y, d):
        return jnp.sum(decode(coder(y, d, sparsity=4), d) ** 2)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1)))(signals, dictionary):
        assert np.all(np.isfinite(gradient)) and np.any(np.asarray(gradient) != 0)


@hardest_coders
def test_first_and_second_derivatives_equal_finite_differences_of_numpy(rng, float64, coder):
    signals, dictionary = random_problem(rng, np.float64, n=20)
    direction = random_problem(rng, np.float64, n=20)

    @jax.jit
    def loss(t):
        y, d = (x + t * v for x, v in zip((signals, dictionary), direction, strict=True))
        return jnp.sum(jnp.sin(coder(y, d, sparsity=4, tolerance=3.0).coefficients), -1)

    first = jax.jit(jax.jacfwd(loss))
    step = 1e-6  # the support stays: the functions are smooth on both sides
    for function, derivative in ((loss, first), (first, jax.jit(jax.jacfwd(jax.jacrev(loss))))):
        expected = (np.asarray(function(step)) - np.asarray(function(-step))) / (2 * step)
        np.testing.assert_allclose(derivative(0.0), expected, rtol=1e-5, atol=1e-5)


@hardest_coders
def test_gradients_take_little_memory(coder):
    def loss(y, d):
        return jnp.sum(coder(y, d, sparsity=16).coefficients ** 2)

    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((65536, 64), (512, 64))]
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 250e6


@pytest.mark.parametrize("coder", CODERS[:3], ids=lambda c: c.__name__)
def test_gram_bytes_bounds_the_gram_matrix(coder):
    def memory(gram_bytes):
        call = functools.partial(coder, sparsity=2, gram_bytes=gram_bytes)
        shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in ((4096, 32), (2048, 32))]
        return jax.jit(call).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert memory(None) - memory(0) > 2048**2 * 4 * 0.8


def test_a_gradient_through_revisited_atoms_raises_with_the_remedy(rng):
    signals, dictionary = random_problem(rng, np.float32)

    def loss(y):
        return jnp.sum(matching_pursuit(y, dictionary, sparsity=4, revisit=True).coefficients)

    with pytest.raises(ValueError, match="least_squares"):
        jax.grad(loss)(signals)
    assert np.all(jax.grad(lambda y: loss(jax.lax.stop_gradient(y)))(signals) == 0)


@coders
def test_bad_input_is_named_in_the_error(coder):
    with pytest.raises(ValueError, match=r"\[1, 5\].*got 6"):
        coder(jnp.ones((2, 4)), jnp.ones((5, 4)), sparsity=6)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(5, 4\)"):
        coder(jnp.ones((2, 3)), jnp.ones((5, 4)), sparsity=1)


def test_thresholding_without_iterations_raises():
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        iterative_hard_thresholding(jnp.ones((2, 4)), jnp.ones((5, 4)), sparsity=1, iterations=0)
