"""Patches of latents as signals, the same for every bottleneck."""

import json

import jax
import numpy as np
import pytest

from configs import default
from laser_jax.evaluation.split import bits_per_pixel_fixed
from laser_jax.models import FiniteScalarQuantizer, VectorQuantizer
from laser_jax.models.bottlenecks.output import from_patches, to_patches
from laser_jax.trained import TrainedAutoencoder
from laser_jax.training.setup import Setup
from laser_jax.training.state import initial_state
from laser_jax.training.workdir import read_config, write_config


def codebook(num_stages=1):
    return VectorQuantizer, {
        "num_embeddings": 8,
        "num_stages": num_stages,
        "replace_every_steps": 0,
    }


PAIRS = {  # of patches of 2x4 latents with 1 channel, and of latents with 8 channels
    "vq": (VectorQuantizer, {"num_embeddings": 8, "replace_every_steps": 0}),
    "rvq": (VectorQuantizer, {"num_embeddings": 8, "num_stages": 2, "replace_every_steps": 0}),
    "fsq": (FiniteScalarQuantizer, {"levels": (8, 5, 4, 3, 5, 2, 6, 7)}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_patches_are_coded_as_latents_with_their_values_as_channels(name):
    cls, arguments = PAIRS[name]
    latents = jax.random.normal(jax.random.key(0), (3, 4, 16, 1))
    widths = ({"embedding_dim": 1}, {"embedding_dim": 8}) if cls is VectorQuantizer else ({}, {})
    patches = cls(**arguments, **widths[0], patch_size=(2, 4))
    plain = cls(**arguments, **widths[1])
    assert patches.embedding_dim == 1 and patches.signal_width == plain.signal_width == 8
    rearranged = to_patches(latents, (2, 4))
    dictionary = plain.init(jax.random.key(1), rearranged)["dictionary"]
    dictionary = plain.init_dictionary(dictionary, rearranged, key=jax.random.key(2))
    found = patches.apply({"dictionary": dictionary}, latents)
    expected = plain.apply({"dictionary": dictionary}, rearranged)
    jax.tree.map(np.testing.assert_array_equal, found.code, expected.code)
    assert found.code.indices.shape[:3] == (3, 2, 4)
    np.testing.assert_array_equal(found.approximation, from_patches(expected.approximation, (2, 4)))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
    step = {"step": 1, "key": jax.random.key(3)}
    jax.tree.map(
        np.testing.assert_array_equal,
        patches.adapt(dictionary, latents, found.code, **step),
        plain.adapt(dictionary, rearranged, expected.code, **step),
    )


@pytest.mark.parametrize(
    "changes, bits",
    [
        ({"bottleneck": "vq"}, 5),
        ({"bottleneck": "hybrid", "num_stages": 1, "num_atoms": 16}, 5),
        ({"bottleneck": "fsq", "fsq_levels": (4, 4, 2, 2, 2, 2, 2, 2)}, 10),
    ],
)
def test_a_token_of_a_trained_run_stands_for_a_patch(tiny_config, changes, bits):
    tiny_config.model.update(changes | {"patch_size": (2, 1)})
    setup = Setup.from_config(tiny_config)
    trained = TrainedAutoencoder(tiny_config, setup.model, initial_state(setup))
    images = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
    indices, h, w = trained.encode_to_indices(images)
    assert indices.shape == (2, 32) and (h, w) == (4, 8) and indices.max() < 2**bits
    assert (
        setup.model.signal_shape == (8, 4)
        and bits_per_pixel_fixed(setup.model, tiny_config) == bits / 32
    )
    decoded = trained.decode_from_indices(indices, h, w)
    np.testing.assert_allclose(decoded, trained.reconstruct(images), atol=1e-5)


def test_grid_whose_levels_do_not_fill_a_patch_raises():
    with pytest.raises(ValueError, match="the 4 fsq_levels do not divide among the 3x1 latents"):
        FiniteScalarQuantizer(patch_size=(3, 1))


@pytest.mark.parametrize("name, kept", [("vq", 1), ("rvq", 1), ("fsq", 1), ("dl", 4), ("ksvd", 4)])
def test_stored_run_whose_bottleneck_ignored_its_patch_size_has_none(name, kept, tmp_path):
    config = default.get_config()
    config.model.bottleneck, config.model.patch_size = name, 4
    write_config(tmp_path, config)
    assert read_config(tmp_path).model.patch_size == 4  # a run of this version
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["version"] = 1
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert read_config(tmp_path).model.patch_size == kept
