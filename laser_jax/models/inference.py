"""Inference: images to codes, codes to images, atoms to images.

Each function is compiled once per model and shape. It takes images as uint8 or in [0, 1], and
returns images in [0, 1].
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from laser_jax import compiler
from laser_jax.images import Images, to_network, to_unit
from laser_jax.models.autoencoder import Autoencoder
from laser_jax.sparse import SparseCode

_MOST_ATOMS = 1024  # in a figure


@functools.partial(compiler.jit, static_argnums=0)
def reconstruct(model: Autoencoder, variables: Any, images: Images) -> Float[Array, "b H W C"]:
    """Returns the reconstructions in [0, 1] of images, uint8 or in [0, 1]."""
    return to_unit(_apply(model, variables, to_network(images)).reconstruction)


@functools.partial(compiler.jit, static_argnums=0)
def decode_atoms(model: Autoencoder, variables: Any) -> Float[Array, "n s s C"]:
    """Returns the images `(n, s, s, C)` of the atoms, in [0, 1]; s pixels span three signals.

    The image of a codebook entry is that of a grid of this entry. An atom with a coefficient has no
    brightness of its own: its image shows what the atom, in the middle of an empty grid, adds to
    the decoded image, around gray and scaled to its own maximum.

    Of more than 1,024 atoms it shows 1,024 evenly spaced ones, because all are decoded at once.
    """
    m = model.bottleneck.num_embeddings
    n = min(m, _MOST_ATOMS)
    shown = jnp.asarray(np.linspace(0, m - 1, n).round().astype(np.int32))
    index = jnp.broadcast_to(shown[:, None, None, None], (n, 3, 3, 1))

    def decode_with(coefficients):
        code = SparseCode(index, jnp.broadcast_to(coefficients, index.shape))
        latents = model.bottleneck.decode(atoms_of(variables), code)
        return _apply(model, variables, latents, method="decode")

    if model.bottleneck.is_learned and not model.bottleneck.has_coefficients:
        return to_unit(decode_with(jnp.ones(index.shape)))
    middle = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1)
    added = decode_with(middle) - decode_with(0 * middle)
    largest = jnp.max(jnp.abs(added), axis=(1, 2, 3), keepdims=True)
    # 0, for a gray image, if the decoder ignores the atom.
    return to_unit(added / jnp.maximum(largest, jnp.finfo(added.dtype).tiny))


@functools.partial(compiler.jit, static_argnums=0)
def encode(model: Autoencoder, variables: Any, images: Images) -> SparseCode:
    """Returns the `SparseCode` of images, with leading axes `(b, h, w)`."""
    latents = _apply(model, variables, to_network(images), method="encode")
    return model.bottleneck.encode(atoms_of(variables), latents)


@functools.partial(compiler.jit, static_argnums=0)
def decode(model: Autoencoder, variables: Any, code: SparseCode) -> Float[Array, "b H W C"]:
    """Returns the images in [0, 1] of a `SparseCode`."""
    latents = model.bottleneck.decode(atoms_of(variables), code)
    return to_unit(_apply(model, variables, latents, method="decode"))


def atoms_of(variables: Any) -> Float[Array, "m d"]:
    """Returns all atoms in the variables of a model."""
    return variables["dictionary"]["bottleneck"]["atoms"]


def code_atoms(model: Autoencoder, variables: Any) -> Float[Array, "m d"]:
    """Returns the atoms `(m, d)` that codes use; a hybrid has others too, for its sparse coding."""
    return atoms_of(variables)[: model.bottleneck.num_embeddings]


def _apply(model: Autoencoder, variables: Any, inputs: Any, method: str | None = None) -> Any:
    """Returns the outputs of a method alone; flax's type has the changed variables beside them."""
    return model.apply(variables, inputs, method=method)
