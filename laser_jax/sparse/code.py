"""The sparse code: what every bottleneck produces, and what can be read off it.

A signal `y` of width `d` is written with `k` atoms, rows of a dictionary `D` of
shape `(m, d)`:

    y  ~  sum_j coefficients[j] * D[indices[j]]

Vector quantisation is the case k = 1 with coefficient 1.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.checks import check_at_least, check_code, check_dictionary, check_weights


class SparseCode(NamedTuple):
    """The atoms of each signal and their coefficients.

    Attributes:
      indices: `(..., k)` int32, the atoms. Distinct within a signal for every
        coder but residual VQ, whose stages use disjoint rows anyway.
      coefficients: `(..., k)` float. Unused places hold 0.
    """

    indices: jax.Array
    coefficients: jax.Array


@jax.jit
def decode(code, dictionary):
    """Returns the signals a code stands for, `sum_j c_j d_j`.

    One atom a signal is gathered at a time, so that memory stays at the size of
    the result whatever the sparsity.

    Args:
      code: `SparseCode` of shape `(..., k)`.
      dictionary: `(m, d)` float array.

    Returns:
      `(..., d)` float array.

    Raises:
      ValueError: if one of them is not what it is called.
    """
    code, dictionary = check_code(code), check_dictionary(dictionary)

    def add_atom(total, index_and_coefficient):
        index, coefficient = index_and_coefficient
        return total + coefficient[..., None] * dictionary[index], None

    indices, coefficients = (jnp.moveaxis(x, -1, 0) for x in code)
    dtype = jnp.result_type(coefficients, dictionary)
    zeros = jnp.zeros((*indices.shape[1:], dictionary.shape[-1]), dtype)
    return lax.scan(add_atom, zeros, (indices, coefficients))[0]


@functools.partial(jax.jit, static_argnames="num_atoms")
def to_dense(code, num_atoms):
    """Returns the coefficients as full vectors, `(..., num_atoms)`."""
    code = check_code(code)
    check_at_least("num_atoms", num_atoms, 1)
    dense = jnp.zeros((*code.indices.shape[:-1], num_atoms), code.coefficients.dtype)
    add = jnp.vectorize(lambda row, i, c: row.at[i].add(c), signature="(m),(k),(k)->(m)")
    return add(dense, *code)


def usage(code, num_atoms):
    """Returns how many signals use each atom, `(num_atoms,)` float."""
    code = check_code(code)
    check_at_least("num_atoms", num_atoms, 1)
    dtype = jnp.promote_types(code.coefficients.dtype, jnp.float32)
    used = (code.coefficients != 0).astype(dtype)
    return jnp.zeros(num_atoms, dtype).at[code.indices.ravel()].add(used.ravel())


def energy(code, num_atoms):
    """Returns the squared coefficients each atom has, summed over signals, `(num_atoms,)`."""
    code = check_code(code)
    check_at_least("num_atoms", num_atoms, 1)
    dtype = jnp.promote_types(code.coefficients.dtype, jnp.float32)
    squares = jnp.square(code.coefficients.astype(dtype)).ravel()
    return jnp.zeros(num_atoms, squares.dtype).at[code.indices.ravel()].add(squares)


def perplexity(counts):
    """Returns the effective number of atoms in use, exp of the usage's entropy.

    1 if one atom does all the work, m if all m do equally much.

    Args:
      counts: `(m,)` nonnegative weights: `usage` gives the perplexity by count,
        `energy` that by energy.
    """
    counts = check_weights("counts", counts)
    total = jnp.sum(counts)
    p = counts / jnp.where(total > 0, total, 1)
    return jnp.exp(-jnp.sum(p * jnp.log(jnp.where(p > 0, p, 1))))


def drop_nonfinite(signals, code):
    """Returns signals and code with zeros where a signal or its coefficients are not finite.

    Sums over signals outlive a batch as statistics: one NaN would stay in them for ever.
    """
    finite = jnp.all(jnp.isfinite(signals), -1) & jnp.all(jnp.isfinite(code.coefficients), -1)
    finite = finite[..., None]
    coefficients = jnp.where(finite, code.coefficients, 0)
    return jnp.where(finite, signals, 0), code._replace(coefficients=coefficients)
