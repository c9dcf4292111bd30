"""Dictionaries whose atoms are sharded over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import decode, omp

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
