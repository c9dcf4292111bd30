"""What the bottlenecks share: their result, the straight-through estimator and patches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse import SparseCode


class BottleneckOutput(NamedTuple):
    """What a bottleneck returns.

    Attributes:
      approximation: `(b, h, w, c)` float32, the latents as the code gives them back;
        gradients pass straight through to the latents.
      loss: scalar, the bottleneck's part of the training loss.
      code: `SparseCode` with leading `(b, h / p, w / q)`, p, q the patch size.
    """

    approximation: jax.Array
    loss: jax.Array
    code: SparseCode


def straight_through(latents, approximation):
    """Returns the approximation's value with the latents' gradient (Bengio et al. 2013)."""
    return latents + lax.stop_gradient(approximation - latents)


def to_patches(latents, patch_size):
    """Cuts `(b, h, w, c)` latents into signals `(b, h / p, w / q, p q c)`."""
    (b, h, w, c), (p, q) = latents.shape, patch_size
    x = latents.reshape(b, h // p, p, w // q, q, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // p, w // q, p * q * c)


def from_patches(signals, patch_size):
    """The inverse of `to_patches`."""
    (b, rows, columns, width), (p, q) = signals.shape, patch_size
    x = signals.reshape(b, rows, columns, p, q, width // (p * q)).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, rows * p, columns * q, width // (p * q))


def as_pair(patch_size):
    """Returns a patch size, one number or two, as `(p, q)`.

    Raises:
      ValueError: if it is neither, or not positive.
    """
    pair = patch_size if isinstance(patch_size, (tuple, list)) else (patch_size, patch_size)
    if len(pair) != 2 or not all(isinstance(p, int) and p >= 1 for p in pair):
        raise ValueError(f"patch_size must be a positive int or a pair of them, got {patch_size}.")
    return tuple(pair)


def check_latents(latents, embedding_dim, patch_size=(1, 1)):
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


def mean_square(x):
    return jnp.mean(jnp.square(x))
