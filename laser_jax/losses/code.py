"""Losses on the sparse code and its dictionary."""

import jax.numpy as jnp
from jax import lax


def coefficient_l1(coefficients):
    """Returns the L1 norm of a signal's coefficients `(..., k)`, mean over signals."""
    return jnp.mean(jnp.sum(jnp.abs(coefficients), axis=-1))


def coherence_penalty(dictionary):
    """Returns the mean squared cosine between two atoms of a dictionary `(m, d)`.

    0 for orthogonal atoms; at best (m - d) / (d (m - 1)) where m > d (Welch's bound).
    """
    m = dictionary.shape[0]
    square = jnp.sum(jnp.square(dictionary), axis=-1, keepdims=True)
    atoms = dictionary / jnp.sqrt(jnp.maximum(square, 1e-12))
    cosines = jnp.matmul(atoms, atoms.T, precision=lax.Precision.HIGHEST)
    return (jnp.sum(jnp.square(cosines)) - jnp.sum(jnp.square(jnp.diagonal(cosines)))) / (
        m * max(m - 1, 1)
    )
