"""Least squares over a held support: its values, and its derivatives against NumPy's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.sparse import SparseCode, decode, least_squares, omp

N, D, M = 5, 6, 4


def reference(weights, indices, used, signals, dictionary):
    """The gradients of sum(weights c + c^3) over the supports."""
    d_signals, d_dictionary = np.zeros_like(signals), np.zeros_like(dictionary)
    for i, y in enumerate(signals):
        places = indices[i, used[i]]
        projector = np.linalg.pinv(dictionary[places].T)  # c = P y
        c = projector @ y
        outer = weights[i, used[i]] + 3 * c**2
        d_signals[i] = outer @ projector
        residual = y - c @ dictionary[places]
        d_atoms = np.outer(projector @ projector.T @ outer, residual) - np.outer(c, d_signals[i])
        np.add.at(d_dictionary, places, d_atoms)
    return d_signals, d_dictionary


def problem(case, rng):
    signals, dictionary = rng.normal(size=(N, D)), rng.normal(size=(M, D))
    if case == "zero signals":
        signals[1:3] = 0
    elif case == "nearly parallel atoms":
        dictionary[1:3] = dictionary[0] + 0.01 * rng.normal(size=(2, D))
    return signals, dictionary, {"k = 1": 1, "k = m": M}.get(case, 3)


def by_omp(signals, dictionary, code):
    return omp(signals, dictionary, sparsity=code.indices.shape[-1]).coefficients


def by_least_squares(signals, dictionary, code):
    return least_squares(signals, dictionary, code).coefficients


@functools.partial(jax.jit, static_argnums=0)
def derivatives(coefficients, signals, dictionary, code, weights, direction):
    """Gradient, slope along the direction, products of the Hessian with it in each mode."""

    def loss(y, d):
        c = coefficients(y, d, code)
        return jnp.sum(weights * c + c**3)

    gradient = jax.grad(loss, argnums=(0, 1))

    def slope(y, d):
        return jax.jvp(loss, (y, d), direction)[1]

    point = signals, dictionary
    return (
        gradient(*point),
        slope(*point),
        jax.jvp(gradient, point, direction)[1],
        jax.grad(slope, argnums=(0, 1))(*point),
        jax.grad(lambda *p: dot(gradient(*p), direction), argnums=(0, 1))(*point),
        jax.jvp(slope, point, direction)[1],
    )


HARD = ["k < m", "zero signals", "nearly parallel atoms"]
CASES = [(by_omp, case) for case in HARD]
CASES += [(by_least_squares, case) for case in HARD]
CASES += [
    pytest.param(by_least_squares, case, marks=pytest.mark.slow) for case in ("k = 1", "k = m")
]


@pytest.mark.parametrize(("coefficients", "case"), CASES)
def test_gradient_and_hessian_equal_numpy_in_both_modes(rng, float64, coefficients, case):
    signals, dictionary, k = problem(case, rng)
    code = omp(jnp.asarray(signals), jnp.asarray(dictionary), sparsity=k)
    weights = rng.normal(size=(N, k))
    direction = rng.normal(size=(N, D)), rng.normal(size=(M, D))
    used = np.asarray(code.coefficients) != 0
    gradient = functools.partial(reference, weights, np.asarray(code.indices), used)
    near = case == "nearly parallel atoms"
    step = 1e-8 if near else 1e-6
    above, below = (
        gradient(signals + s * direction[0], dictionary + s * direction[1]) for s in (step, -step)
    )
    hessian = [(a - b) / (2 * step) for a, b in zip(above, below, strict=True)]
    first = gradient(signals, dictionary)
    found = derivatives(coefficients, signals, dictionary, code, weights, direction)
    close = functools.partial(all_close, rtol=1e-4 if near else 1e-6)
    close(found[0], first)
    close(found[1], dot(first, direction))
    for product in found[2:5]:
        close(product, hessian)
    close(found[5], dot(hessian, direction))


def dot(a, b):
    return sum(jnp.sum(x * y) for x, y in zip(a, b, strict=True))


def all_close(found, expected, rtol):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b)))


def test_hessian_of_a_squared_code_is_twice_the_projectors_square(rng):
    # The coefficients are P y, so the Hessian of their square is 2 P^T P: under vmap too.
    signals, dictionary = (jnp.float32(x) for x in problem("k < m", rng)[:2])
    hessian = jax.hessian(lambda y: jnp.sum(omp(y, dictionary, sparsity=2).coefficients ** 2))
    found = jax.jit(jax.vmap(hessian))(signals)
    for indices, matrix in zip(omp(signals, dictionary, sparsity=2).indices, found, strict=True):
        projector = np.linalg.pinv(np.asarray(dictionary)[np.asarray(indices)].T)
        all_close(matrix, 2 * projector.T @ projector, rtol=1e-4)


def test_coefficients_of_nearly_parallel_atoms_are_right_in_float32(rng):
    base = rng.normal(size=64)
    dictionary = np.float32(base + 1e-3 * rng.normal(size=(4, 64)))
    truth = rng.normal(size=(20, 4))
    signals = np.float32(truth @ dictionary + rng.normal(size=(20, 64)))
    weights = rng.normal(size=(20, 4))
    code = SparseCode(np.tile(np.arange(4, dtype=np.int32), (20, 1)), np.ones((20, 4), np.float32))

    def loss(y, d):
        c = least_squares(y, d, code).coefficients
        return jnp.sum(jnp.float32(weights) * c), c

    gradients, found = jax.grad(loss, argnums=(0, 1), has_aux=True)(signals, dictionary)
    exact = [np.float64(x) for x in (signals, dictionary)]
    expected = exact[0] @ np.linalg.pinv(exact[1])
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, atol=1e-3 * scale)
    projector = np.linalg.pinv(exact[1].T)
    d_signals = weights @ projector
    d_dictionary = (weights @ projector @ projector.T).T @ (exact[0] - expected @ exact[1])
    all_close(gradients, (d_signals, d_dictionary - expected.T @ d_signals), rtol=1e-2)


def coefficient_loss(y, d, code):
    return jnp.sum(omp(y, d, sparsity=16).coefficients ** 2)


def refit_loss(y, d, code):
    return jnp.sum(least_squares(y, d, code).coefficients ** 2)


def approximation_loss(y, d, code):
    return jnp.sum(decode(omp(y, d, sparsity=16), d) ** 2)


@pytest.mark.parametrize("loss", [coefficient_loss, refit_loss, approximation_loss])
def test_memory_of_a_gradient_is_not_that_of_the_atoms_of_all_signals(loss):
    n, d, m, k = 65536, 64, 512, 16
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((n, d), (m, d), (n, k))]
    code = SparseCode(jax.ShapeDtypeStruct((n, k), jnp.int32), shapes.pop())
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes, code).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= 150e6  # the atoms are 268e6
