import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import (
    SparseCode,
    coherence,
    dct_dictionary,
    init_from_signals,
    omp,
    replace_atoms,
    unit_norm,
)
from laser_jax.sparse.codebook import replace_codes

N, D, M, K = 300, 12, 30, 4
KEY = jax.random.key(0)


def coded_problem(rng, dtype):
    dictionary = unit_norm(jnp.asarray(rng.normal(size=(M, D)), dtype))
    signals = jnp.asarray(rng.normal(size=(N, D)), dtype)
    return signals, dictionary, omp(signals, dictionary, sparsity=K)


def replace(signals, dictionary, code, max_coherence=0.95, **options):
    return replace_atoms(signals, dictionary, code, max_coherence=max_coherence, key=KEY, **options)


def test_unit_norm_leaves_zero_vectors_and_has_a_finite_gradient(dtype):
    vectors = jnp.asarray([[3.0, 4.0], [0.0, 0.0]], dtype)
    np.testing.assert_allclose(unit_norm(vectors), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert np.all(np.isfinite(jax.grad(lambda v: jnp.sum(unit_norm(v)))(vectors)))


def test_the_dct_dictionary_is_that_of_elad_and_aharon():
    atoms = np.asarray(dct_dictionary(8, 11))
    assert atoms.shape == (121, 64) and atoms.dtype == np.float32
    one = np.zeros((11, 8))
    for k, i in np.ndindex(11, 8):
        one[k, i] = np.cos(i * k * np.pi / 11)
    one[1:] -= one[1:].mean(1, keepdims=True)
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    expected = [np.outer(one[k], one[j]).ravel() for k, j in np.ndindex(11, 11)]
    np.testing.assert_allclose(atoms, expected, atol=1e-5)
    with pytest.raises(ValueError, match="num_frequencies must be at least 8, got 7"):
        dct_dictionary(8, 7)


def test_coherence_is_the_largest_cosine_with_another_atom(dtype):
    dictionary = jnp.asarray([[2.0, 0.0], [-3.0, 3.0], [0.0, 0.5]], dtype)
    np.testing.assert_allclose(coherence(dictionary), [2**-0.5] * 3, rtol=1e-6)
    np.testing.assert_array_equal(coherence(jnp.eye(4, dtype=dtype)), 0)
    np.testing.assert_array_equal(coherence(jnp.ones((1, 4), dtype)), 0)


def test_coherence_in_blocks_is_that_of_all_cosines(rng, monkeypatch):
    from laser_jax.sparse import dictionary as module

    monkeypatch.setattr(module, "default_block_size", lambda floats: 5)
    atoms = rng.normal(size=(17, 7)).astype(np.float32)  # a shape of no other test
    unit = atoms / np.linalg.norm(atoms, axis=-1, keepdims=True)
    expected = np.max(np.abs(unit @ unit.T) - 2 * np.eye(17), -1)
    np.testing.assert_allclose(coherence(atoms), expected, rtol=1e-5)
    atoms[3, 2] = np.nan
    unit = np.delete(unit, 3, axis=0)
    others = np.max(np.abs(unit @ unit.T) - 2 * np.eye(16), -1)
    np.testing.assert_allclose(coherence(atoms), np.insert(others, 3, np.nan), rtol=1e-5)


@pytest.mark.parametrize("name", ["coherence", "replace_atoms"])
def test_65536_atoms_are_compared_in_bounded_memory(name):
    m, n = 65_536, 16
    floats = jax.ShapeDtypeStruct((m, 16), np.float32)
    signals = jax.ShapeDtypeStruct((n, 16), np.float32)
    code = SparseCode(
        jax.ShapeDtypeStruct((n, 2), np.int32), jax.ShapeDtypeStruct((n, 2), np.float32)
    )
    if name == "coherence":
        lowered = jax.jit(coherence).lower(floats)
    else:
        lowered = jax.jit(replace).lower(signals, floats, code)
    # All cosines together take 16 GiB; the candidates of all places 32 times the dictionary.
    most = 512 * 2**20 if name == "coherence" else 8 * m * 16 * 4
    assert lowered.compile().memory_analysis().temp_size_in_bytes < most


def test_initial_atoms_are_normalised_signals(rng, dtype):
    signals = jnp.asarray(rng.normal(size=(5, 40, D)), dtype)
    atoms = init_from_signals(signals, M, max_coherence=0.95, key=KEY)
    assert atoms.shape == (M, D) and atoms.dtype == dtype
    cosines = np.asarray(atoms) @ np.asarray(unit_norm(signals.reshape(-1, D))).T
    np.testing.assert_allclose(np.max(cosines, -1), 1, rtol=1e-5)
    assert coherence(atoms).max() <= 0.95 + 1e-5


def test_initial_atoms_from_nearly_parallel_signals_are_incoherent(rng):
    shared = rng.normal(size=(1, D))
    signals = jnp.asarray(10 * shared + 0.01 * rng.normal(size=(N, D)), np.float32)
    atoms = init_from_signals(signals, M, max_coherence=0.9, key=KEY)
    assert coherence(atoms).max() <= 0.9 + 1e-5
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=-1), 1, rtol=1e-5)
    cosine = np.abs(np.asarray(atoms) @ (shared[0] / np.linalg.norm(shared)))
    assert np.sum(cosine > 0.99) == 1  # one of the parallel signals is among them


@pytest.mark.parametrize(
    "signals",
    [np.zeros((5, D)), np.ones((1, D)), np.full((5, D), np.nan)],
    ids=["zero", "one", "nan"],
)
def test_initial_atoms_are_unit_vectors_whatever_the_signals(signals):
    atoms = init_from_signals(jnp.float32(signals), M, max_coherence=0.95, key=KEY)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=-1), 1, rtol=1e-5)
    assert coherence(atoms).max() <= 0.95 + 1e-5


def test_more_atoms_than_can_be_incoherent_are_unit_vectors():
    atoms = init_from_signals(jnp.ones((4, 1)), 6, max_coherence=0.9, key=KEY)
    np.testing.assert_allclose(np.abs(atoms), 1, rtol=1e-6)


def test_other_keys_give_other_atoms(rng):
    signals = jnp.asarray(rng.normal(size=(N, D)), jnp.float32)
    first, second = (
        init_from_signals(signals, M, max_coherence=0.95, key=jax.random.key(s)) for s in (0, 1)
    )
    assert not np.allclose(first, second)


def test_no_atom_is_replaced_where_nothing_is_wrong(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    np.testing.assert_array_equal(replace(signals, dictionary, code), dictionary)


def test_an_unused_atom_becomes_the_worst_approximated_signal(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    code = code._replace(coefficients=jnp.where(code.indices == 5, 0, code.coefficients))
    signals = signals.at[17].multiply(100)  # its error is now by far the largest
    new = replace(signals, dictionary, code)
    np.testing.assert_allclose(new[5], signals[17] / jnp.linalg.norm(signals[17]), rtol=1e-5)
    others = np.arange(M) != 5
    np.testing.assert_array_equal(new[others], dictionary[others])


def test_the_less_used_of_two_duplicates_is_replaced(rng):
    signals, dictionary, _ = coded_problem(rng, np.float32)
    dictionary = dictionary.at[8].set(-2 * dictionary[3])
    code = omp(signals, dictionary, sparsity=K)
    counts = jnp.ones(M).at[3].set(4).at[8].set(9)
    new = replace(signals, dictionary, code, counts=counts)
    others = np.arange(M) != 3
    np.testing.assert_array_equal(new[others], dictionary[others])
    assert coherence(new)[3] <= 0.95
    equally = replace(signals, dictionary, code, counts=jnp.ones(M))
    changed = np.any(np.asarray(equally) != np.asarray(dictionary), axis=-1)
    np.testing.assert_array_equal(np.nonzero(changed)[0], [8])


def test_new_atoms_are_incoherent_with_all_others_and_each_other(rng, dtype):
    signals, dictionary, code = coded_problem(rng, dtype)
    signals = signals.at[:250].set(dictionary[:1] * 50 + 0.01 * signals[:250])  # the worst
    counts = jnp.ones(M).at[10:20].set(0)
    new = replace(signals, dictionary, code, counts=counts)
    assert coherence(new).max() <= max(0.95, float(coherence(dictionary).max())) + 1e-5
    np.testing.assert_allclose(np.linalg.norm(new, axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(replace(signals, new, code, counts=jnp.ones(M)), new)


def test_counts_and_min_count_say_which_atoms_are_unused(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    counts = jnp.arange(M, dtype=jnp.float32)
    new = replace(signals, dictionary, code, counts=counts, min_count=3)
    changed = np.any(np.asarray(new) != np.asarray(dictionary), axis=-1)
    np.testing.assert_array_equal(np.nonzero(changed)[0], [0, 1, 2, 3])


def test_where_no_signal_has_an_error_new_atoms_are_random_unit_vectors(rng):
    dictionary = jnp.eye(4)
    code = SparseCode(jnp.zeros((5, 1), jnp.int32), jnp.ones((5, 1)))
    signals = jnp.tile(dictionary[:1], (5, 1))
    new = replace(signals, dictionary, code)
    np.testing.assert_array_equal(new[0], dictionary[0])
    np.testing.assert_allclose(np.linalg.norm(new, axis=-1), 1, rtol=1e-5)
    assert coherence(new).max() <= 0.95
    none = SparseCode(jnp.zeros((0, 1), jnp.int32), jnp.zeros((0, 1)))
    assert np.all(np.isfinite(replace(jnp.zeros((0, 4)), dictionary, none)))


def test_zero_and_broken_atoms_are_replaced(rng):
    signals, dictionary, code = coded_problem(rng, np.float32)
    broken = dictionary.at[2].set(0).at[4].set(jnp.nan)
    new = replace(signals, broken, code, counts=jnp.ones(M))
    np.testing.assert_allclose(np.linalg.norm(new, axis=-1), 1, rtol=1e-5)
    kept = ~np.isin(np.arange(M), [2, 4])
    np.testing.assert_array_equal(new[kept], dictionary[kept])


def test_bad_input_is_named_in_the_error(rng):
    with pytest.raises(ValueError, match="num_atoms must be at least 1, got 0"):
        init_from_signals(jnp.ones((3, 4)), 0, key=KEY)
    with pytest.raises(ValueError, match=r"not be empty, got \(0, 4\)"):
        init_from_signals(jnp.ones((0, 4)), 2, key=KEY)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_replaced_atoms_and_codes_do_not_depend_on_the_scale(rng, exponent):
    signals, dictionary, code = coded_problem(rng, np.float32)
    scale, counts = np.float32(2.0**exponent), np.arange(M) % 5
    plain = np.asarray(replace(signals, dictionary, code, counts=counts))
    found = np.asarray(replace(scale * signals, scale * dictionary, code, counts=counts))
    np.testing.assert_allclose(found[::5], plain[::5], rtol=1e-5)
    kept = counts > 0
    np.testing.assert_array_equal(found[kept] / scale, plain[kept])
    one = SparseCode(code.indices[:, :1], jnp.ones((N, 1)))
    plain = replace_codes(signals, dictionary, one, counts == 0, key=KEY)
    found = replace_codes(scale * signals, scale * dictionary, one, counts == 0, key=KEY)
    np.testing.assert_array_equal(np.asarray(found) / scale, plain)
