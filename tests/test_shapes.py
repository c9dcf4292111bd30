"""The shape annotations of public functions, checked at run time by jaxtyping and beartype."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from laser_jax import images, losses, metrics, sparse
from laser_jax.models import (
    Autoencoder,
    DictionaryLearning,
    FiniteScalarQuantizer,
    VectorQuantizer,
)
from laser_jax.models.bottlenecks.output import from_patches, straight_through, to_patches
from laser_jax.tokens import ContextModel, Layout, code_of, fit_context_model, tokens_of
from laser_jax.trained import TrainedAutoencoder

f32, u8 = np.zeros((2, 12, 11, 3), np.float32), np.zeros((2, 12, 11, 3), np.uint8)
pictures, latents, atoms = jnp.array(f32), jnp.ones((1, 2, 2, 4)), jnp.eye(4)
indices = jnp.zeros((1, 2, 2), int)
vq, fsq = VectorQuantizer(num_embeddings=4, embedding_dim=4), FiniteScalarQuantizer(levels=(3, 3))
dl = DictionaryLearning(
    num_embeddings=4, embedding_dim=4, sparsity_level=2, dictionary_update="gradient"
)
image_loss = losses.ImageLoss()
signals = jnp.ones((5, 4))
code = sparse.SparseCode(jnp.array([[0, 1]] * 5, jnp.int32), jnp.ones((5, 2)))
learner = sparse.DictionaryLearner(4, sparsity=2)
layout = Layout.of_set(num_atoms=4, sparsity=2, step=0.5)
integers = sparse.SparseCode(np.array([[[[0, 1]] * 3]]), np.array([[[[1, -2]] * 3]]))
tokens = tokens_of(integers, layout)
context_model = fit_context_model(tokens, layout, most_steps=0)


# A function, arguments of the annotated shapes, and arguments of other shapes or types.
@pytest.mark.parametrize("function, allowed, others", [
    (losses.mse, (f32, f32), (f32, f32[:1])),
    (losses.l1, (f32, f32), (f32, u8)),
    (losses.mr_dct_loss, (f32, f32), (f32[0], f32[0])),
    (losses.mr_gradient_loss, (f32, f32), (f32, f32[:1])),
    (losses.generator_hinge_loss, (f32,), (u8,)),
    (losses.ImageLoss.__call__, (image_loss, pictures, pictures), (image_loss, pictures, latents)),
    (metrics.psnr, (f32, u8), (f32, u8[:1])),
    (metrics.ssim, (f32, f32), (f32[0], f32[0])),
    (metrics.squared_error_to_psnr, (f32,), ("0.1",)),
    (metrics.frechet_distance, (np.zeros(4), np.eye(4)) * 2, (np.zeros(4), np.eye(3)) * 2),
    (images.to_unit, (f32,), (u8,)),
    (straight_through, (latents, latents), (latents, latents[0])),
    (to_patches, (latents, (2, 1)), (atoms, (2, 1))),
    (from_patches, (latents, (2, 1)), (atoms, (2, 1))),
    (vq.encode, (atoms, latents), (atoms, latents[0])),
    (vq.from_indices, (indices,), (indices[0],)),
    (fsq.from_indices, (indices,), (indices[0],)),
    (dl.encode, (atoms, latents), (atoms[0], latents)),
    (dl.signals, (latents,), (latents[0],)),
    (sparse.decode, (code, atoms), (code, atoms[0])),
    (sparse.to_dense, (code, 4), (code, "4")),
    (sparse.usage, (code, 4), (signals, 4)),
    (sparse.nearest_atom, (signals, atoms), (signals, atoms[:, :3])),
    (learner.init, (jax.random.key(0), signals), (jax.random.key(0), code)),
    (layout.vectors, (atoms,), (atoms[0],)),
    (tokens_of, (integers, layout), (tokens, layout)),
    (code_of, (tokens, layout), (integers, layout)),
    (ContextModel.bits, (context_model, tokens), (context_model, integers)),
])  # fmt: skip
def test_functions_accept_their_annotated_shapes_and_no_others(function, allowed, others):
    checked = jaxtyped(typechecker=beartype)(function)
    checked(*allowed)
    with pytest.raises(TypeCheckError):
        checked(*others)


@pytest.mark.parametrize("coder", [sparse.omp, sparse.matching_pursuit, sparse.top_k])
def test_coders_accept_signals_as_wide_as_the_atoms_and_no_others(coder):
    checked = jaxtyped(typechecker=beartype)(coder)
    assert checked(signals, atoms, sparsity=2).indices.shape == (5, 2)
    with pytest.raises(TypeCheckError):
        checked(signals[:, :3], atoms, sparsity=2)


def test_patches_accept_images_with_a_channel_axis_and_no_others():
    checked = jaxtyped(typechecker=beartype)(sparse.extract_patches)
    assert checked(pictures, patch_size=4, stride=4).shape == (2, 9, 48)
    with pytest.raises(TypeCheckError):
        checked(pictures[0, 0], patch_size=4)


def test_methods_of_trained_runs_accept_their_annotated_shapes_and_no_others():
    model = Autoencoder(bottleneck=vq, num_hiddens=2, num_residual_blocks=0, num_downsamples=1)
    variables = jax.jit(model.init)(jax.random.key(0), pictures[:, :4, :4])
    state = types.SimpleNamespace(eval_variables=lambda: variables)
    trained = TrainedAutoencoder(None, model, state)
    checked = {
        name: jaxtyped(typechecker=beartype)(getattr(trained, name))
        for name in ("reconstruct", "encode_to_indices", "decode_from_indices")
    }
    tokens, h, w = checked["encode_to_indices"](u8[:, :4, :4])
    checked["decode_from_indices"](tokens, h, w)
    with pytest.raises(TypeCheckError):
        checked["reconstruct"](u8[0])
    with pytest.raises(TypeCheckError):
        checked["decode_from_indices"](tokens[0], h, w)
