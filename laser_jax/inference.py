"""A trained model applied: images to codes, codes to images, atoms to pictures.

Compiled once a model and shape; images go in as uint8 or [0, 1] and come out in [0, 1].
"""

import functools

import jax
import jax.numpy as jnp

from laser_jax.images import to_network, to_unit
from laser_jax.sparse import SparseCode


@functools.partial(jax.jit, static_argnums=0)
def reconstruct(model, variables, images):
    """Returns the reconstructions in [0, 1] of images, uint8 or in [0, 1]."""
    return to_unit(model.apply(variables, to_network(images)).reconstruction)


@functools.partial(jax.jit, static_argnums=0)
def decode_atoms(model, variables, images):
    """Returns what each atom looks like: a grid of nothing but that atom, decoded, `(m, s, s, C)`.

    Each with a typical coefficient, the root mean square of these images' codes; s is the
    side of the middle of three by three signals.
    """
    m = model.bottleneck.num_embeddings
    coefficients = encode(model, variables, images).coefficients
    typical = jnp.sqrt(jnp.mean(coefficients**2))
    index = jnp.broadcast_to(jnp.arange(m)[:, None, None, None], (m, 3, 3, 1))
    code = SparseCode(index, jnp.full(index.shape, typical))
    decoded = decode(model, variables, code)
    height, width = decoded.shape[1] // 3, decoded.shape[2] // 3
    return decoded[:, height : 2 * height, width : 2 * width]


@functools.partial(jax.jit, static_argnums=0)
def encode(model, variables, images):
    """Returns the images' `SparseCode`, leading axes `(b, h, w)`."""
    latents = model.apply(variables, to_network(images), method="encode")
    return model.bottleneck.encode(_atoms(variables), latents)


@functools.partial(jax.jit, static_argnums=0)
def decode(model, variables, code):
    """Returns the images in [0, 1] of a `SparseCode`."""
    latents = model.bottleneck.decode(_atoms(variables), code)
    return to_unit(model.apply(variables, latents, method="decode"))


def _atoms(variables):
    return variables["dictionary"]["bottleneck"]["atoms"]
