import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import (
    SparseCode,
    decode,
    ksvd_statistics,
    ksvd_sweep,
    ksvd_update,
    least_squares,
    omp,
)
from laser_jax.sparse.ksvd import METHODS

N, D, M, K = 300, 12, 30, 4
methods = pytest.mark.parametrize("method", METHODS)


def coded_problem(rng, dtype, sparsity=K):
    """Signals, unit atoms and their OMP code; atom 5 is used by none, atom 6 by one."""
    dictionary = rng.normal(size=(M, D))
    dictionary /= np.linalg.norm(dictionary, axis=-1, keepdims=True)
    signals, dictionary = (
        jnp.asarray(rng.normal(size=(N, D)), dtype),
        jnp.asarray(dictionary, dtype),
    )
    code = omp(signals, dictionary, sparsity=sparsity)
    one = jnp.zeros((N, 1), bool).at[jnp.argmax(jnp.any(code.indices == 6, -1))].set(True)
    drop = (code.indices == 5) | ((code.indices == 6) & ~one)
    code = code._replace(coefficients=jnp.where(drop, 0, code.coefficients))
    return signals, dictionary, least_squares(signals, dictionary, code)


def squared_error(signals, dictionary, code):
    return float(jnp.sum((signals - decode(code, dictionary)) ** 2))


def restricted_errors(signals, dictionary, code, atom):
    """The errors of an atom's users, its own part left out, and its old coefficients."""
    signals, dictionary = np.asarray(signals), np.asarray(dictionary)
    indices, coefficients = map(np.asarray, code)
    rows, places = np.nonzero((indices == atom) & (coefficients != 0))
    errors = signals - np.einsum("nk,nkd->nd", coefficients, dictionary[indices])
    own = coefficients[rows, places]
    return errors[rows] + own[:, None] * dictionary[atom], own, (rows, places)


def numpy_sweep(signals, dictionary, code, method):
    """Aharon's and Rubinstein's sweeps, atom after atom."""
    dictionary = np.array(dictionary)
    indices, coefficients = (np.array(x) for x in code)
    for atom in range(len(dictionary)):
        errors, own, places = restricted_errors(
            signals, dictionary, SparseCode(indices, coefficients), atom
        )
        if len(own) == 0:
            continue
        if method == "exact":
            new = np.linalg.svd(errors, full_matrices=False)[2][0]
            new *= np.sign(new @ dictionary[atom])
        else:
            new = own @ errors
            new /= np.linalg.norm(new)
        dictionary[atom], coefficients[places] = new, errors @ new
    return dictionary, coefficients


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_sequential_sweep_is_the_papers(rng, float64, method):
    signals, dictionary, code = coded_problem(rng, np.float64)
    expected_dictionary, expected_coefficients = numpy_sweep(signals, dictionary, code, method)
    new, new_code = ksvd_sweep(signals, dictionary, code, method=method)
    np.testing.assert_allclose(new, expected_dictionary, atol=1e-7)
    np.testing.assert_allclose(new_code.coefficients, expected_coefficients, atol=1e-7)
    np.testing.assert_array_equal(new_code.indices, code.indices)


def test_first_atom_is_the_leading_singular_vector_of_its_restricted_errors(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    errors, _, places = restricted_errors(signals, dictionary, code, atom=0)
    _, _, directions = np.linalg.svd(errors, full_matrices=False)
    for method in ("exact", "parallel"):
        new, new_code = ksvd_sweep(signals, dictionary, code, method=method)
        sign = np.sign(directions[0] @ dictionary[0])
        np.testing.assert_allclose(new[0], sign * directions[0], atol=2e-3)
    new, new_code = ksvd_sweep(signals, dictionary, code, method="exact")
    np.testing.assert_allclose(
        np.asarray(new_code.coefficients)[places], errors @ np.asarray(new[0]), atol=1e-4
    )


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_error_never_rises_in_a_sequential_sweep(rng, dtype, method):
    signals, dictionary, code = coded_problem(rng, dtype)
    slack = 1 + 10 * np.finfo(dtype).eps
    error = squared_error(signals, dictionary, code)
    first = error
    for _ in range(10):
        dictionary, code = ksvd_sweep(signals, dictionary, code, method=method)
        new = squared_error(signals, dictionary, code)
        assert new <= error * slack
        error = new
    assert error < 0.9 * first


def test_error_falls_over_parallel_sweeps(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    first = squared_error(signals, dictionary, code)
    for _ in range(10):
        dictionary, code = ksvd_sweep(signals, dictionary, code, method="parallel")
    assert squared_error(signals, dictionary, code) < 0.9 * first


@methods
def test_atoms_keep_unit_norm_and_their_side_and_unused_ones_stay(rng, dtype, method):
    signals, dictionary, code = coded_problem(rng, dtype)
    new, new_code = ksvd_sweep(signals, dictionary, code, method=method)
    assert new.dtype == dtype and new_code.coefficients.dtype == dtype
    assert new_code.indices.dtype == jnp.int32
    np.testing.assert_allclose(np.linalg.norm(new, axis=-1), 1, rtol=1e-5)
    assert np.all(np.sum(np.asarray(new) * np.asarray(dictionary), -1) >= 0)
    np.testing.assert_array_equal(new[5], dictionary[5])
    padding = np.asarray(code.coefficients) == 0
    np.testing.assert_array_equal(np.asarray(new_code.coefficients)[padding], 0)
    # The atom with one user takes that user's direction.
    errors, _, _ = restricted_errors(signals, dictionary, code, atom=6)
    if method == "parallel":
        np.testing.assert_allclose(
            np.abs(np.asarray(new[6]) @ errors[0]), np.linalg.norm(errors[0]), rtol=1e-3
        )


@methods
def test_atoms_of_any_norm_are_updated_alike(rng, float64, method):
    signals, dictionary, code = coded_problem(rng, np.float64)
    scales = jnp.asarray(rng.uniform(0.5, 2, M))
    expected, _ = ksvd_sweep(signals, dictionary, code, method=method)
    scaled_code = code._replace(coefficients=code.coefficients / scales[code.indices])
    new, _ = ksvd_sweep(signals, dictionary * scales[:, None], scaled_code, method=method)
    used = np.arange(M) != 5
    np.testing.assert_allclose(new[used], expected[used], atol=1e-7)


@methods
def test_a_sweep_moves_nothing_where_the_fit_is_exact(rng, float64, method):
    _, dictionary, code = coded_problem(rng, np.float64)
    signals = decode(code, dictionary)
    new, new_code = ksvd_sweep(signals, dictionary, code, method=method)
    used = np.arange(M) != 6
    np.testing.assert_allclose(new[used], dictionary[used], atol=1e-6)
    np.testing.assert_allclose(decode(new_code, new), signals, atol=1e-6)


@methods
def test_signals_that_are_not_finite_keep_the_old_atoms_and_the_memory(rng, method):
    signals, dictionary, code = coded_problem(rng, np.float32)
    empty = ksvd_statistics(dictionary, method=method)
    broken = signals.at[7].set(jnp.nan)
    memory, new, new_code = ksvd_update(empty, broken, dictionary, code, method=method, decay=0.9)
    assert np.all(np.isfinite(memory)) and np.all(np.isfinite(new))
    assert np.all(np.isfinite(new_code.coefficients))
    _, without = ksvd_sweep(jnp.full_like(signals, jnp.nan), dictionary, code, method=method)
    np.testing.assert_array_equal(
        ksvd_sweep(jnp.full_like(signals, jnp.nan), dictionary, code, method=method)[0], dictionary
    )
    np.testing.assert_array_equal(without.coefficients, 0)


def test_parallel_moments_are_those_of_a_double_loop(rng, float64):
    signals, dictionary, code = coded_problem(rng, np.float64)
    empty = ksvd_statistics(dictionary, method="parallel")
    moments, _, _ = ksvd_update(empty, signals, dictionary, code, method="parallel", decay=0.0)
    for atom in range(M):
        errors, _, _ = restricted_errors(signals, dictionary, code, atom)
        np.testing.assert_allclose(moments[atom], errors.T @ errors, atol=1e-10)


def test_parallel_moments_hold_whatever_the_number_of_users(rng, float64):
    # All signals use atom 0; nearly all the others have a single user.
    signals = jnp.asarray(rng.normal(size=(N, D)))
    dictionary = jnp.asarray(np.linalg.qr(rng.normal(size=(D, D)))[0])
    indices = np.stack([np.zeros(N, int), np.ones(N, int)], axis=-1)
    indices[:9, 1] = np.arange(2, 11)
    code = least_squares(
        signals, dictionary, SparseCode(jnp.asarray(indices, jnp.int32), jnp.ones((N, 2)))
    )
    empty = ksvd_statistics(dictionary, method="parallel")
    moments, _, _ = ksvd_update(empty, signals, dictionary, code, method="parallel", decay=0.0)
    for atom in range(D):
        errors, _, _ = restricted_errors(signals, dictionary, code, atom)
        np.testing.assert_allclose(moments[atom], errors.T @ errors, atol=1e-10)


@methods
def test_memory_is_the_decayed_sum_over_batches(rng, float64, method):
    first = coded_problem(rng, np.float64)
    dictionary = first[1]
    second_signals = jnp.asarray(rng.normal(size=(N, D)))
    second = second_signals, dictionary, omp(second_signals, dictionary, sparsity=K)
    empty = ksvd_statistics(dictionary, method=method)
    one, _, _ = ksvd_update(empty, *first, method=method, decay=0.5)
    both, new, _ = ksvd_update(one, *second, method=method, decay=0.5)
    if method == "parallel":
        expected = 0.5 * one + ksvd_update(empty, *second, method=method, decay=0.5)[0]
        np.testing.assert_allclose(both, expected, atol=1e-10)
    # The first atom of a sequential sweep sees no other's change: its moment is plain.
    errors, own, _ = restricted_errors(*second, atom=0)
    moment = own @ errors if method == "approximate" else errors.T @ errors
    np.testing.assert_allclose(both[0], 0.5 * one[0] + moment, atol=1e-10)
    direction = both[0] if method == "approximate" else np.linalg.eigh(both[0])[1][:, -1]
    cosine = new[0] @ direction / np.linalg.norm(direction)
    np.testing.assert_allclose(np.abs(cosine), 1, rtol=1e-8)


@methods
def test_without_decay_memory_changes_nothing(rng, float64, method):
    problem = coded_problem(rng, np.float64)
    statistics = ksvd_statistics(problem[1], method=method) + 5
    _, new, code = ksvd_update(statistics, *problem, method=method, decay=0.0)
    expected, expected_code = ksvd_sweep(*problem, method=method)
    np.testing.assert_allclose(new, expected, atol=1e-10)
    np.testing.assert_allclose(code.coefficients, expected_code.coefficients, atol=1e-10)


@methods
def test_no_memory_is_an_empty_memory(rng, method):
    problem = coded_problem(rng, np.float32)
    expected = ksvd_statistics(problem[1], method=method)
    found = None
    for _ in range(2):
        found, new, _ = ksvd_update(found, *problem, method=method, decay=0.9)
        expected, new_expected, _ = ksvd_update(expected, *problem, method=method, decay=0.9)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(new, new_expected)


def test_decay_may_be_traced(rng):
    problem = coded_problem(rng, np.float32)
    statistics = ksvd_statistics(problem[1], method="approximate")
    update = jax.jit(
        lambda decay: ksvd_update(statistics, *problem, method="approximate", decay=decay)[1]
    )
    assert update(0.5).shape == update(0.9).shape == (M, D)
    assert update._cache_size() == 1


@methods
def test_leading_axes_do_not_change_a_sweep(rng, method):
    signals, dictionary, code = coded_problem(rng, np.float32)
    expected, expected_code = ksvd_sweep(signals, dictionary, code, method=method)
    shaped = SparseCode(*(x.reshape(10, 30, K) for x in code))
    new, new_code = ksvd_sweep(signals.reshape(10, 30, D), dictionary, shaped, method=method)
    np.testing.assert_allclose(new, expected, atol=1e-6)
    assert new_code.indices.shape == new_code.coefficients.shape == (10, 30, K)
    np.testing.assert_allclose(
        new_code.coefficients.reshape(N, K), expected_code.coefficients, atol=1e-5
    )


@methods
def test_a_sweep_over_no_signals_changes_nothing(rng, method):
    _, dictionary, _ = coded_problem(rng, np.float32)
    none = SparseCode(jnp.zeros((0, K), jnp.int32), jnp.zeros((0, K)))
    new, code = ksvd_sweep(jnp.zeros((0, D)), dictionary, none, method=method)
    np.testing.assert_array_equal(new, dictionary)
    assert code.coefficients.shape == (0, K)


def test_a_sweep_over_bfloat16_signals_keeps_float32_atoms(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    new, new_code = ksvd_sweep(signals.astype(jnp.bfloat16), dictionary, code)
    assert new.dtype == new_code.coefficients.dtype == jnp.float32


@pytest.mark.usefixtures("two_devices")
def test_parallel_sweep_over_sharded_signals_shares_a_scale_and_sums_moments(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    rows, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    placed = *jax.device_put((signals, code), rows), jax.device_put(dictionary, everywhere)
    sweep = jax.jit(lambda y, c, d: ksvd_sweep(y, d, c, method="parallel"))
    compiled = sweep.lower(*placed).compile()
    text = compiled.as_text()
    reduced = re.findall(r"= (\S+\])\S* all-reduce(?:-start)?\(", text)
    assert sorted(reduced) == [f"f32[{M},{D},{D}]", "f32[]"]
    for collective in ("all-gather", "all-to-all", "collective-permute"):
        assert collective not in text
    new, new_code = jax.block_until_ready(compiled(*placed))
    expected, expected_code = ksvd_sweep(signals, dictionary, code, method="parallel")
    np.testing.assert_allclose(new, expected, atol=1e-4)
    np.testing.assert_allclose(new_code.coefficients, expected_code.coefficients, atol=1e-3)


def test_sweep_is_the_same_under_vmap(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), (signals, dictionary, code))
    new, _ = jax.vmap(lambda *p: ksvd_sweep(*p, method="approximate"))(*twice)
    expected, _ = ksvd_sweep(signals, dictionary, code, method="approximate")
    np.testing.assert_allclose(new[1], expected, atol=1e-5)


# Least squares over a held support.


def test_least_squares_is_numpys_over_each_support(rng, dtype):
    signals, dictionary, code = coded_problem(rng, dtype)
    code = code._replace(coefficients=(code.coefficients != 0).astype(dtype))
    solved = least_squares(signals, dictionary, code, block_size=70)
    np.testing.assert_array_equal(solved.indices, code.indices)
    for i in range(0, N, 17):
        used = np.asarray(code.coefficients[i]) != 0
        atoms = np.asarray(dictionary, np.float64)[np.asarray(code.indices[i])[used]]
        expected = np.linalg.lstsq(atoms.T, np.asarray(signals[i], np.float64), rcond=None)[0]
        np.testing.assert_allclose(solved.coefficients[i][used], expected, atol=1e-4)
        np.testing.assert_array_equal(solved.coefficients[i][~used], 0)


def test_least_squares_does_not_depend_on_the_scale_of_atoms(rng, dtype):
    signals, dictionary, code = coded_problem(rng, dtype)
    scales = jnp.asarray(2.0 ** rng.integers(-12, 12, M), dtype)
    scaled = least_squares(signals, dictionary * scales[:, None], code)
    expected = least_squares(signals, dictionary, code).coefficients
    np.testing.assert_allclose(
        scaled.coefficients * scales[code.indices], expected, rtol=1e-3, atol=1e-4
    )


def test_least_squares_over_dependent_atoms_is_finite_and_as_good(rng, dtype):
    signals = jnp.asarray(rng.normal(size=(5, 4)), dtype)
    atoms = jnp.asarray(rng.normal(size=(2, 4)), dtype)
    twins = jnp.concatenate([atoms, atoms, jnp.zeros((1, 4), dtype)])
    indices = jnp.tile(jnp.arange(5, dtype=jnp.int32)[None], (5, 1))
    code = least_squares(signals, twins, SparseCode(indices, jnp.ones((5, 5), dtype)))
    assert np.all(np.isfinite(code.coefficients))
    np.testing.assert_array_equal(code.coefficients[:, 4], 0)  # the zero atom
    plain = least_squares(signals, atoms, SparseCode(indices[:, :2], jnp.ones((5, 2), dtype)))
    np.testing.assert_allclose(decode(code, twins), decode(plain, atoms), atol=1e-3)


def test_unknown_method_is_named_in_the_error(rng):
    with pytest.raises(ValueError, match="'jacobi'; choose from approximate, exact, parallel"):
        ksvd_sweep(*coded_problem(rng, np.float32), method="jacobi")
