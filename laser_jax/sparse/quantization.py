"""Integer coefficients: multiples of a step, the form in which a code is stored."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Real

from laser_jax.checks import check_code, is_real
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.entry import entry


@entry(static=("bits",), like="code")
def quantize_coefficients(
    code: SparseCode, scales: Real[ArrayLike, ""] | Real[Array, " m"], *, bits: int
) -> SparseCode:
    """Returns the code with integer coefficients, the nearest multiples of the scales.

    Args:
      code: `SparseCode` of shape `(..., k)`.
      scales: step between two values, > 0: a scalar, or `(m,)` for each atom its own. A
        coefficient of an atom of scale 0 becomes 0.
      bits: of a coefficient, at least 2; values beyond `2^(bits - 1) - 1` steps are clipped.

    Returns:
      `SparseCode` with int32 coefficients. One that becomes 0 is an unused place.

    Raises:
      ValueError: if `bits` is not in [2, 32] or `scales` has more than one axis or numbers below 0.
    """
    if not 2 <= bits <= 32:
        raise ValueError(f"bits must be in [2, 32], got {bits}.")
    code = check_code(code)
    largest = 2 ** (bits - 1) - 1
    scales = _scales_of(code, scales)
    levels = jnp.round(code.coefficients / jnp.where(scales == 0, 1, scales))
    levels = jnp.where(scales == 0, 0, levels)
    # 2^31 - 1 has no float32: the largest float below it, or the cast would wrap.
    largest = largest if largest < 2**24 else 2.0 ** (bits - 1) * (1 - 2.0**-24)
    return code._replace(coefficients=jnp.clip(levels, -largest, largest).astype(jnp.int32))


@entry(like="code")
def dequantize_coefficients(
    code: SparseCode, scales: Real[ArrayLike, ""] | Real[Array, " m"]
) -> SparseCode:
    """Returns the code that integer coefficients stand for; the inverse up to rounding.

    Args:
      code: `SparseCode` with integer coefficients.
      scales: as for `quantize_coefficients`.
    """
    code = check_code(code)
    return code._replace(coefficients=code.coefficients * _scales_of(code, scales))


def _scales_of(code, scales):
    scales = check_scales("scales", scales)
    return scales if scales.ndim == 0 else scales[code.indices]


def check_scales(name, scales, num_atoms=None):
    """Returns a scalar or `(m,)` numbers as floats, or raises ValueError."""
    dtype = jnp.result_type(scales)
    if not is_real(dtype):
        raise ValueError(f"{name} must be real numbers, got {dtype}.")
    scales = jnp.asarray(scales, jnp.promote_types(dtype, jnp.float32))
    m = scales.size if num_atoms is None else num_atoms
    if scales.shape not in ((), (m,)) or scales.size == 0:
        raise ValueError(
            f"{name} must be a scalar or have shape ({num_atoms or 'm'},), got {scales.shape}."
        )
    return scales
