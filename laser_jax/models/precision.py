"""The precision around a network: what it computes in, and what is too coarse in bfloat16."""

import jax
import jax.numpy as jnp

from laser_jax.checks import check_choice

DTYPES = ("float32", "bfloat16", "float64")


def network_dtype(name):
    """Returns the dtype of a network's computations.

    Raises:
      ValueError: if it is none of `DTYPES`, or does not go with JAX's 64 bits: float64 needs them,
        and the others cannot be had where every new array has them.
    """
    check_choice("model.dtype", name, DTYPES)
    if (name == "float64") != jax.config.jax_enable_x64:
        raise ValueError(
            f"model.dtype {name} needs the environment variable JAX_ENABLE_X64="
            f"{int(name == 'float64')}."
        )
    return jnp.dtype(name)


def at_least_float32(x):
    """Returns x in float32, or in float64 as it is: sparse codes, losses and metrics."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
