"""The result of a bottleneck, the straight-through estimator, and patches of latents."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from laser_jax.sparse import SparseCode

Latents = Float[Array, "b h w c"]
Signals = Float[Array, "*batch d"]
Atoms = Float[Array, "m d"]
Scalar = Float[Array, ""]


class BottleneckOutput(NamedTuple):
    """The result of a bottleneck.

    Attributes:
      approximation: the latents that the code stands for, at least float32. Its gradient passes
        to the latents as the bottleneck defines.
      loss: scalar, the bottleneck's part of the training loss.
      code: `SparseCode` with leading axes `(b, h / p, w / q)`, where p, q is the patch size.
    """

    approximation: Latents
    loss: Scalar
    code: SparseCode


def straight_through(
    latents: Float[Array, "*shape"], approximation: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Returns the approximation, with the gradient of the latents.

    References:
      Bengio, Léonard and Courville, Estimating or propagating gradients through stochastic
      neurons for conditional computation, 2013.
    """
    return latents + lax.stop_gradient(approximation - latents)


def to_patches(latents: Latents, patch_size: tuple[int, int]) -> Float[Array, "b rows columns d"]:
    """Cuts latents `(b, h, w, c)` into signals `(b, h / p, w / q, p q c)`."""
    (b, h, w, c), (p, q) = latents.shape, patch_size
    x = latents.reshape(b, h // p, p, w // q, q, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // p, w // q, p * q * c)


def from_patches(signals: Float[Array, "b rows columns d"], patch_size: tuple[int, int]) -> Latents:
    """Returns the latents of signals; the inverse of `to_patches`."""
    (b, rows, columns, width), (p, q) = signals.shape, patch_size
    x = signals.reshape(b, rows, columns, p, q, width // (p * q)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, rows * p, columns * q, width // (p * q))


def as_pair(patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Returns a patch size, one number or two, as `(p, q)`.

    Raises:
      ValueError: if it is neither, or not positive.
    """
    pair = patch_size if isinstance(patch_size, (tuple, list)) else (patch_size, patch_size)
    if len(pair) != 2 or not all(isinstance(p, int) and p >= 1 for p in pair):
        raise ValueError(f"patch_size must be a positive int or a pair of them, got {patch_size}.")
    return pair[0], pair[1]


def check_latents(
    latents: Float[Array, "..."], embedding_dim: int, patch_size: tuple[int, int] = (1, 1)
) -> None:
    """Raises ValueError unless latents `(b, h, w, embedding_dim)` divide into patches."""
    if latents.ndim != 4 or latents.shape[-1] != embedding_dim:
        raise ValueError(
            f"latents must have shape (b, h, w, {embedding_dim}) (embedding_dim), "
            f"got {latents.shape}."
        )
    (_, h, w, _), (p, q) = latents.shape, patch_size
    if h % p or w % q:
        raise ValueError(
            f"the latent grid {h}x{w} is not divisible by patch_size {p}x{q}; "
            "change patch_size, image_size or num_downsamples."
        )


def mean_square(x: Float[Array, "..."]) -> Scalar:
    """Returns the mean of the squares."""
    return jnp.mean(jnp.square(x))
