"""The dtype of a network, and of what needs more precision than bfloat16."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.checks import check_choice

DTYPES = ("float32", "bfloat16", "float64")


def network_dtype(name: str) -> jnp.dtype:
    """Returns the dtype of a network's computations.

    Raises:
      ValueError: if it is none of `DTYPES`, or inconsistent with JAX_ENABLE_X64: float64 needs it,
        and the others need it off, because it makes new arrays float64.
    """
    check_choice("model.dtype", name, DTYPES)
    if (name == "float64") != (jnp.result_type(float) == jnp.float64):
        raise ValueError(
            f"model.dtype {name} needs the environment variable JAX_ENABLE_X64="
            f"{int(name == 'float64')}."
        )
    return jnp.dtype(name)


def at_least_float32(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x in float32, or unchanged if it is float64; for sparse codes, losses and metrics."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
