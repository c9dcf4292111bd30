"""Metrics of a sparse code."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from laser_jax.checks import check_code
from laser_jax.sparse import SparseCode


def active_atoms(code: SparseCode) -> Int[Array, "*batch"]:
    """Returns the number of nonzero coefficients of each signal, `(...,)`.

    Divided by the number of atoms this is the code's `sparsity`.
    """
    code = check_code(code)
    return jnp.sum(code.coefficients != 0, axis=-1)
