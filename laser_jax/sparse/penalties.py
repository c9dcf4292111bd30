"""Penalties on a sparse code and its dictionary."""

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from laser_jax.checks import check_dictionary, check_floats, check_not_empty, check_scalars
from laser_jax.sparse.code import is_finite
from laser_jax.sparse.dictionary import unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul


@entry()
def coefficient_l1(coefficients: Float[Array, "*batch k"]) -> Float[Array, ""]:
    """Returns the L1 norm of a signal's coefficients `(..., k)`, mean over signals.

    A signal with a coefficient that is not finite does not count.
    """
    check_not_empty(coefficients=coefficients)
    (coefficients,) = check_floats(coefficients=coefficients)
    if coefficients.ndim == 0:
        raise ValueError("coefficients must have shape (..., k), got ().")
    finite = is_finite(coefficients)
    total = jnp.sum(jnp.where(finite, jnp.abs(coefficients), 0))
    return total / jnp.maximum(jnp.sum(finite), 1)


@entry()
def coefficient_rate(
    coefficients: Float[Array, "*batch k"], step: Real[ArrayLike, ""]
) -> Float[Array, ""]:
    """Returns the sum of log2(1 + |c| / step) of a signal's coefficients c, mean over signals.

    A differentiable stand-in for the bits of coefficients that are rounded to multiples of the
    step. A signal with a coefficient that is not finite does not count.

    Args:
      coefficients: `(..., k)` float array.
      step: > 0.
    """
    check_scalars(step=step)
    (coefficients,) = check_floats(coefficients=coefficients)
    return coefficient_l1(jnp.log1p(jnp.abs(coefficients) / step) / math.log(2))


@entry()
def coherence_penalty(dictionary: Float[Array, "m d"]) -> Float[Array, ""]:
    """Returns the mean squared cosine between two atoms of a dictionary `(m, d)`.

    0 for orthogonal atoms; at best (m - d) / (d (m - 1)) where m > d (Welch's bound). An atom
    that is not finite counts as 0.
    """
    dictionary = check_dictionary(dictionary)
    atoms = unit_norm(jnp.where(is_finite(dictionary), dictionary, 0))
    m = atoms.shape[0]
    cosines = matmul(atoms, atoms.T)
    return (jnp.sum(jnp.square(cosines)) - jnp.sum(jnp.square(jnp.diagonal(cosines)))) / (
        m * max(m - 1, 1)
    )
