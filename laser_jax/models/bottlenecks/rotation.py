"""The rotation trick: the gradient is rotated as quantisation rotates the signal."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.sparse.linalg import safe_norms


@jax.custom_jvp
def rotation(
    signals: Float[Array, "*batch d"], approximation: Float[Array, "*batch d"]
) -> Float[Array, "*batch d"]:
    """Returns the approximation q, as a constant rotation and scaling of the signals e.

    q = (|q| / |e|) R e, where R is the rotation in the plane of e and q. Only e gets a gradient:
    that of q turned back by R and scaled by |q| / |e|. The angle between the gradient and q is then
    that between the gradient and e. Where e or q is 0 the gradient passes straight through.

    Args:
      signals: `(..., d)`, e.
      approximation: `(..., d)`, q.

    References:
      Fifty et al., Restructuring vector quantization with the rotation trick, 2024,
      arXiv 2410.06424.
    """
    return approximation


@rotation.defjvp
def _rotation_jvp(primals: Any, tangents: Any) -> Any:
    (signal, approximation), tangent = primals, tangents[0]
    lengths = safe_norms(signal), safe_norms(approximation)
    start, end = signal / lengths[0], approximation / lengths[1]
    middle = start + end
    middle /= safe_norms(middle)  # opposite vectors: 0, and R is the reflection of e to q
    turned = tangent - 2 * middle * _dot(middle, tangent) + 2 * end * _dot(start, tangent)
    nonzero = (_dot(start, start) > 0) & (_dot(end, end) > 0)
    return approximation, jnp.where(nonzero, lengths[1] / lengths[0] * turned, tangent)


def _dot(a, b):
    return jnp.sum(a * b, axis=-1, keepdims=True)
