"""A trained model applied: images to codes, codes to images, atoms to pictures.

Compiled once a model and shape; images go in as uint8 or [0, 1] and come out in [0, 1].
"""

import functools

import jax.numpy as jnp
import numpy as np

from laser_jax import compiler
from laser_jax.images import to_network, to_unit
from laser_jax.sparse import SparseCode

_MOST_ATOMS = 1024  # that a figure shows


@functools.partial(compiler.jit, static_argnums=0)
def reconstruct(model, variables, images):
    """Returns the reconstructions in [0, 1] of images, uint8 or in [0, 1]."""
    return to_unit(model.apply(variables, to_network(images)).reconstruction)


@functools.partial(compiler.jit, static_argnums=0)
def decode_atoms(model, variables):
    """Returns what atoms look like, `(n, s, s, C)` in [0, 1]; s spans three signals.

    All atoms up to 1,024; of more, as many evenly spaced ones, as memory is that of a batch of
    images.

    A codebook entry: a grid of nothing but that entry, decoded. A dictionary's atom has no
    brightness of its own: what it adds, alone in the middle of an empty grid, as contrast around
    gray, each atom to its own maximum.
    """
    m = model.bottleneck.num_embeddings
    n = min(m, _MOST_ATOMS)
    shown = jnp.asarray(np.linspace(0, m - 1, n).round().astype(np.int32))
    index = jnp.broadcast_to(shown[:, None, None, None], (n, 3, 3, 1))

    def decode_with(coefficients):
        code = SparseCode(index, jnp.broadcast_to(coefficients, index.shape))
        latents = model.bottleneck.decode(atoms_of(variables), code)
        return model.apply(variables, latents, method="decode")

    if model.bottleneck.is_learned and not model.bottleneck.has_coefficients:
        return to_unit(decode_with(jnp.ones(index.shape)))
    middle = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1)
    added = decode_with(middle) - decode_with(0 * middle)
    return to_unit(added / jnp.max(jnp.abs(added), axis=(1, 2, 3), keepdims=True))


@functools.partial(compiler.jit, static_argnums=0)
def encode(model, variables, images):
    """Returns the images' `SparseCode`, leading axes `(b, h, w)`."""
    latents = model.apply(variables, to_network(images), method="encode")
    return model.bottleneck.encode(atoms_of(variables), latents)


@functools.partial(compiler.jit, static_argnums=0)
def decode(model, variables, code):
    """Returns the images in [0, 1] of a `SparseCode`."""
    latents = model.bottleneck.decode(atoms_of(variables), code)
    return to_unit(model.apply(variables, latents, method="decode"))


def atoms_of(variables):
    """Returns the atoms `(m, d)` among a model's variables."""
    return variables["dictionary"]["bottleneck"]["atoms"]
