"""Penalties on a sparse code and its dictionary."""

import jax.numpy as jnp
from jax import lax

from laser_jax.checks import check_dictionary, check_floats, check_not_empty
from laser_jax.sparse.dictionary import unit_norm


def coefficient_l1(coefficients):
    """Returns the L1 norm of a signal's coefficients `(..., k)`, mean over signals."""
    check_not_empty(coefficients=coefficients)
    (coefficients,) = check_floats(coefficients=coefficients)
    if coefficients.ndim == 0:
        raise ValueError("coefficients must have shape (..., k), got ().")
    return jnp.mean(jnp.sum(jnp.abs(coefficients), axis=-1))


def coherence_penalty(dictionary):
    """Returns the mean squared cosine between two atoms of a dictionary `(m, d)`.

    0 for orthogonal atoms; at best (m - d) / (d (m - 1)) where m > d (Welch's bound).
    """
    atoms = unit_norm(check_dictionary(dictionary))
    m = atoms.shape[0]
    cosines = jnp.matmul(atoms, atoms.T, precision=lax.Precision.HIGHEST)
    return (jnp.sum(jnp.square(cosines)) - jnp.sum(jnp.square(jnp.diagonal(cosines)))) / (
        m * max(m - 1, 1)
    )
