"""What a code uses."""

import jax.numpy as jnp

from laser_jax.checks import check_code


def active_atoms(code):
    """Returns the nonzero coefficients of each signal, `(...,)`.

    Divided by the number of atoms this is the code's `sparsity`.
    """
    code = check_code(code)
    return jnp.sum(code.coefficients != 0, axis=-1)
