"""Dictionaries whose atoms are sharded over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import (
    DictionaryLearner,
    decode,
    ksvd_sweep,
    ksvd_update,
    omp,
    online_update,
    residual_update,
)

RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(size=(40, 12)).astype(np.float32)
ATOMS = RNG.normal(size=(64, 12)).astype(np.float32)
ATOMS[40] = ATOMS[3]  # twins on two devices
ATOMS[50] = np.nan
SIGNALS[0], SIGNALS[1], SIGNALS[2] = 0, np.inf, ATOMS[3]
K = 4
ALL, ATOMS_SPEC = PartitionSpec(), PartitionSpec("atoms")


def sharded(function):
    """The function of replicated signals and a dictionary in two parts."""
    mesh = jax.make_mesh((2,), ("atoms",), axis_types=(AxisType.Auto,))
    run = jax.shard_map(function, mesh=mesh, in_specs=(ALL, ATOMS_SPEC), out_specs=ALL)
    return jax.jit(run), mesh


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("selection", ["correlation", "ols"])
def test_codes_in_sharded_atoms_are_those_of_one_device_and_little_is_exchanged(selection):
    coder = functools.partial(omp, sparsity=K, selection=selection, tolerance=1e-6)
    run, _ = sharded(
        lambda y, d: (code := coder(y, d, atoms_axis="atoms"), decode(code, d, atoms_axis="atoms"))
    )
    compiled = run.lower(SIGNALS, ATOMS).compile()
    code, approximation = compiled(SIGNALS, ATOMS)
    expected = coder(SIGNALS, ATOMS)
    np.testing.assert_array_equal(code.indices, expected.indices)
    np.testing.assert_allclose(code.coefficients, expected.coefficients, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(approximation, decode(expected, ATOMS), rtol=1e-4, atol=1e-5)
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    # No correlations with all atoms, (40, 32) on a device, leave it.
    exchanged = [line for line in text.splitlines() if " all-reduce(" in line]
    assert exchanged and not any("32]" in line for line in exchanged)


@pytest.mark.usefixtures("two_devices")
def test_a_sharded_dictionary_without_a_named_axis_gives_the_same_code():
    _, mesh = sharded(omp)
    placed = jax.device_put(ATOMS, NamedSharding(mesh, ATOMS_SPEC))
    expected = omp(SIGNALS, ATOMS, sparsity=K, tolerance=1e-6)
    found = jax.jit(lambda y, d: omp(y, d, sparsity=K, tolerance=1e-6))(SIGNALS, placed)
    np.testing.assert_array_equal(found.indices, expected.indices)


@pytest.mark.usefixtures("two_devices")
def test_sparsity_is_checked_against_all_atoms_and_a_derivative_raises():
    run, _ = sharded(lambda y, d: omp(y, d, sparsity=65, atoms_axis="atoms"))
    with pytest.raises(ValueError, match=r"\[1, 64\].*got 65"):
        run(SIGNALS, ATOMS)
    run, _ = sharded(lambda y, d: omp(y, d, sparsity=K, atoms_axis="atoms").coefficients)
    with pytest.raises(ValueError, match="omp with atoms_axis has no derivative"):
        jax.grad(lambda y: jnp.sum(run(y, ATOMS)))(SIGNALS)


CLEAN = np.where(np.isfinite(ATOMS), ATOMS, 0)
CLEAN /= np.maximum(np.linalg.norm(CLEAN, axis=-1, keepdims=True), 1e-6)
BATCH = RNG.normal(size=(256, 12)).astype(np.float32)


def updated(name, signals, dictionary, atoms_axis=None):
    """The results of an update after OMP; those with a row an atom come first."""
    signals, dictionary = jnp.asarray(signals), jnp.asarray(dictionary)
    code = omp(signals, dictionary, sparsity=K, atoms_axis=atoms_axis)
    options = {"atoms_axis": atoms_axis}
    if name == "residual":
        return residual_update(signals, dictionary, code, learning_rate=0.3, **options), ()
    if name == "parallel":
        options |= {"method": name, "decay": 0.5}
        *rows, code = ksvd_update(None, signals, dictionary, code, **options)
        return rows, code.coefficients
    mask = jnp.abs(signals) < 2
    return online_update(None, signals, dictionary, code, decay=0.5, mask=mask, **options), ()


@pytest.mark.usefixtures("two_devices")
@pytest.mark.parametrize("name", ["online", "parallel", "residual"])
def test_updates_of_sharded_atoms_are_those_of_one_device(name):
    run = jax.shard_map(
        lambda y, d: updated(name, y, d, "atoms"),
        mesh=sharded(omp)[1],
        in_specs=(ALL, ATOMS_SPEC),
        out_specs=(ATOMS_SPEC, ALL),
    )
    found = jax.jit(run)(BATCH, CLEAN)
    expected = jax.jit(lambda y, d: updated(name, y, d))(BATCH, CLEAN)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@pytest.mark.usefixtures("two_devices")
def test_a_learner_with_sharded_atoms_has_the_state_of_one_device():
    settings = {"method": "online", "batch_size": 256, "replace_every": 2, "min_usage": 0.5}
    learner = DictionaryLearner(64, K, **settings)
    across = DictionaryLearner(64, K, atoms_axis="atoms", **settings)
    mesh = jax.make_mesh((1, 2), ("data", "atoms"), axis_types=2 * (AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("data"))
    key, batches = jax.random.key(0), [BATCH * (1 + i) for i in range(3)]
    expected, found = learner.init(key, BATCH), across.init(key, jax.device_put(BATCH, place))
    for batch in batches:
        expected = learner.update(expected, batch)
        found = across.update(found, jax.device_put(batch, place))
    assert found.dictionary.sharding.spec == ATOMS_SPEC
    assert {x.data.shape[0] for x in jax.tree.leaves(found)[0].addressable_shards} == {32}
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    error = across.mean_error(found, BATCH)
    np.testing.assert_allclose(error, learner.mean_error(expected, BATCH), rtol=1e-3)


def test_what_atoms_axis_cannot_do_raises():
    with pytest.raises(ValueError, match="'approximate' does not take atoms_axis"):
        DictionaryLearner(64, K, method="approximate", atoms_axis="atoms")
    with pytest.raises(ValueError, match="'exact' does not take atoms_axis"):
        ksvd_sweep(BATCH, CLEAN, omp(BATCH, CLEAN, sparsity=K), atoms_axis="atoms")
    with pytest.raises(ValueError, match="'atoms' needs signals or a dictionary on a mesh"):
        DictionaryLearner(64, K, atoms_axis="atoms").init(jax.random.key(0), BATCH)
