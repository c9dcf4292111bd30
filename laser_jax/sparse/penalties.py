"""Penalties on a sparse code and its dictionary."""

import jax.numpy as jnp

from laser_jax.checks import check_dictionary, check_floats, check_not_empty
from laser_jax.sparse.code import is_finite
from laser_jax.sparse.dictionary import unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul


@entry()
def coefficient_l1(coefficients):
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
def coherence_penalty(dictionary):
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
