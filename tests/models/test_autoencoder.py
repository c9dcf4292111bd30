import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.models import Autoencoder, DictionaryLearning, VectorQuantizer, build_model
from laser_jax.models.inference import decode_atoms

SMALL = {"num_hiddens": 8, "num_residual_blocks": 1, "num_residual_hiddens": 4}


def small_bottleneck(**kwargs):
    return DictionaryLearning(num_embeddings=16, embedding_dim=4, sparsity_level=2, **kwargs)


@pytest.mark.parametrize("num_downsamples", [1, 2, 3])
def test_latent_grid_is_halved_once_a_downsample(num_downsamples):
    model = Autoencoder(bottleneck=small_bottleneck(), num_downsamples=num_downsamples, **SMALL)
    images = jnp.zeros((2, 16, 32, 3))
    out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    side = 2**num_downsamples
    assert out.latents.shape == (2, 16 // side, 32 // side, 4)
    assert out.reconstruction.shape == images.shape
    assert out.code.indices.shape == (2, 16 // side, 32 // side, 2)
    assert model.signal_pixels == side**2


def test_encode_code_and_decode_make_the_forward_pass():
    model = Autoencoder(bottleneck=small_bottleneck(patch_size=2), **SMALL)
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)
    out, variables = model.init_with_output(jax.random.key(0), images)
    latents = model.apply(variables, images, method="encode")
    atoms = variables["dictionary"]["bottleneck"]["atoms"]
    approximation = model.bottleneck.decode(atoms, model.bottleneck.encode(atoms, latents))
    reconstruction = model.apply(variables, approximation, method="decode")
    np.testing.assert_allclose(reconstruction, out.reconstruction, atol=1e-5)
    assert model.signal_pixels == 64


@pytest.mark.parametrize("bottleneck", [small_bottleneck(), VectorQuantizer(16, 4)])
def test_bfloat16_network_codes_in_float32(bottleneck):
    model = Autoencoder(bottleneck=bottleneck, dtype=jnp.bfloat16, **SMALL)
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)
    out, variables = jax.jit(model.init_with_output)(jax.random.key(0), images)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))
    assert out.latents.dtype == out.approximation.dtype == out.reconstruction.dtype == jnp.float32
    exact = model.clone(dtype=jnp.float32).apply(variables, images)
    assert 0 < float(jnp.max(jnp.abs(exact.latents - out.latents))) < 0.1
    # The code is the float32 code of the latents it got.
    again = bottleneck.encode(variables["dictionary"]["bottleneck"]["atoms"], out.latents)
    np.testing.assert_array_equal(again.indices, out.code.indices)


@pytest.mark.parametrize(("m", "shown"), [(16, 16), (65_536, 1024)])
def test_a_figure_of_atoms_decodes_at_most_1024(m, shown):
    model = Autoencoder(bottleneck=VectorQuantizer(m, 4), **SMALL)
    init = functools.partial(model.init, jax.random.key(0))
    variables = jax.eval_shape(init, jnp.zeros((1, 16, 16, 3)))
    images = jax.eval_shape(lambda variables: decode_atoms(model, variables), variables)
    assert images.shape == (shown, 12, 12, 3)


def test_image_of_an_atom_that_the_decoder_ignores_is_gray():
    model = Autoencoder(bottleneck=small_bottleneck(), **SMALL)
    init = functools.partial(model.init, jax.random.key(0))
    shapes = jax.eval_shape(init, jnp.zeros((1, 16, 16, 3)))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    np.testing.assert_array_equal(decode_atoms(model, variables), np.float32(0.5))


def test_images_of_other_shapes_raise_with_their_shape():
    model = Autoencoder(bottleneck=small_bottleneck(), **SMALL)
    with pytest.raises(ValueError, match="image size 18x16 is not divisible by the downsampling 4"):
        model.init(jax.random.key(0), jnp.zeros((1, 18, 16, 3)))
    with pytest.raises(ValueError, match=r"\(b, H, W, 3\), got \(16, 16, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((16, 16, 3)))


def test_model_is_built_from_its_config(tiny_config):
    tiny_config.model.patch_size = (2, 4)
    model = build_model(tiny_config)
    assert isinstance(model.bottleneck, DictionaryLearning)
    assert model.bottleneck.dictionary_update == "ksvd" and model.bottleneck.signal_width == 128
    tiny_config.model.bottleneck = "dl"
    assert build_model(tiny_config).bottleneck.dictionary_update == "gradient"
    tiny_config.model.dictionary_update = "online"
    assert build_model(tiny_config).bottleneck.dictionary_update == "online"
    tiny_config.model.bottleneck = "rvq"
    assert build_model(tiny_config).bottleneck.num_stages == 4
    tiny_config.model.bottleneck = "vq"
    assert build_model(tiny_config).bottleneck.num_stages == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"model.bottleneck": "ksv"},
            "unknown model.bottleneck 'ksv'; choose from dl, fsq, hybrid, ksvd, rvq, vq",
        ),
        ({"model.dtype": "float16"}, "unknown model.dtype 'float16'"),
        ({"model.num_downsamples": 0}, "num_downsamples must be at least 1, got 0"),
        ({"data.image_size": 30}, "image size 30 .* not divisible by the downsampling 4"),
        ({"model.patch_size": 3}, "latent grid 8x8 is not divisible by patch_size 3x3"),
        ({"model.sparsity_level": 33}, r"sparsity must be in \[1, 32\] \(num_embeddings\), got 33"),
        (
            {"model.bottleneck": "rvq", "model.num_stages": 5},
            "stages must divide the 32 atoms .* got 5",
        ),
    ],
)
def test_configs_that_do_not_fit_raise_with_their_values(tiny_config, changes, message):
    for key, value in changes.items():
        group, name = key.split(".")
        tiny_config[group][name] = value
    with pytest.raises(ValueError, match=message):
        build_model(tiny_config)


def test_exact_codes_give_a_warning(tiny_config, caplog):
    tiny_config.model.sparsity_level = 16
    build_model(tiny_config)
    assert "sparsity_level 16 is not below the signal width 16" in caplog.text
