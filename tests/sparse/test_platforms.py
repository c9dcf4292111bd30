"""Each platform gets its own forms, in a program that is lowered for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import nearest_atom, omp, rate_distortion_pursuit, top_k, uniform_rate_model
from laser_jax.sparse.platforms import each_matrix, per_platform

N, M, D, K = 100_000, 64, 32, 4
MODEL = uniform_rate_model(M, sparsity=K, max_level=7)


def lowered(function, platform, *shapes):
    """Returns the program of a function for a platform, as text."""
    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    return jax.jit(function).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()


def by_rate(signals, atoms):
    return rate_distortion_pursuit(signals, atoms, MODEL, sparsity=K, step=0.1, bit_price=0.01)


@pytest.mark.parametrize(
    "coder",
    [
        lambda y, a: omp(y, a, sparsity=K),
        lambda y, a: top_k(y, a, sparsity=K),
        nearest_atom,
        by_rate,
    ],
)
def test_only_cpus_take_signals_in_blocks_that_fit_in_their_cache(coder):
    whole = f"tensor<{N}x{M}xf32>"  # the correlations of all signals
    assert whole in lowered(coder, "cuda", (N, D), (M, D))
    assert whole not in lowered(coder, "cpu", (N, D), (M, D))


def test_only_cpus_use_the_gram_matrix():
    products = f"-> tensor<{M}x{M}xf32>"

    def products_of_atoms(platform):
        text = lowered(lambda y, a: omp(y, a, sparsity=K), platform, (N, D), (M, D))
        return [line for line in text.splitlines() if "dot_general" in line and products in line]

    assert products_of_atoms("cpu") and not products_of_atoms("cuda")


def test_only_accelerators_sort_for_the_largest_entries():
    for platform, sorts in (("cpu", False), ("cuda", True)):
        text = lowered(lambda y, a: top_k(y, a, sparsity=K), platform, (50, D), (M, D))
        assert ("top_k" in text) == sorts


def test_only_cpus_take_one_matrix_after_another():
    for platform, loops in (("cpu", True), ("cuda", False)):
        text = lowered(lambda x: each_matrix(jnp.linalg.inv, x), platform, (5, 3, 3))
        assert ("stablehlo.while" in text) == loops


def test_equal_forms_are_traced_once():
    calls = []
    np.testing.assert_array_equal(per_platform(lambda x: calls.append(x) or 2 * x, 3, 3), 6)
    assert calls == [3]
