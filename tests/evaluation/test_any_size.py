"""Pictures of any size: extended, cropped back, and in tiles without borders between them."""

import jax
import numpy as np
import pytest

from laser_jax.evaluation import any_size
from laser_jax.evaluation.any_size import overlap, reconstruct_any_size
from laser_jax.images import extended
from laser_jax.models import Autoencoder, DictionaryLearning, VectorQuantizer, inference

SMALL = {"num_downsamples": 1, "num_hiddens": 4, "num_residual_blocks": 1}
SPARSE = DictionaryLearning(num_embeddings=16, embedding_dim=4, sparsity_level=2, patch_size=(1, 8))


def built(bottleneck):
    model = Autoencoder(bottleneck=bottleneck, **SMALL)
    init = jax.jit(model.init)
    return model, init(jax.random.key(0), np.zeros((1, 8, 16, 3), np.float32))


@pytest.fixture(scope="module")
def picture():
    rows, columns = np.mgrid[:101, :131] / 20
    waves = [np.sin(rows), np.cos(columns + rows), np.sin(2 * columns)]
    noise = np.random.default_rng(0).random((101, 131, 3)) / 10
    return (np.stack(waves, -1) * 0.4 + 0.5 + noise - 0.05).astype(np.float32).clip(0, 1)


def test_tiles_of_a_convolutional_model_change_nothing(picture, monkeypatch):
    model, variables = built(SPARSE)
    whole = reconstruct_any_size(model, variables, picture)
    assert whole.shape == picture.shape
    unit = extended(picture, model.signal_shape)
    expected = np.asarray(inference.reconstruct(model, variables, unit[None]))[0, :101, :131]
    np.testing.assert_array_equal(whole, expected)
    shapes, real = set(), inference.reconstruct

    def counted(model, variables, images):
        shapes.add(images.shape[1:3])
        return real(model, variables, images)

    monkeypatch.setattr(any_size.inference, "reconstruct", counted)
    tiled = reconstruct_any_size(model, variables, picture, most_pixels=96**2)
    assert len(shapes) == 1 and np.prod(shapes.pop()) <= 96**2  # one shape is compiled
    np.testing.assert_allclose(tiled, whole, atol=2e-5)


def test_tiles_of_a_deep_model_are_larger_instead_of_all_overlap(picture, monkeypatch):
    deep = Autoencoder(bottleneck=SPARSE, **{**SMALL, "num_downsamples": 2})
    monkeypatch.setattr(any_size, "MOST_PIXELS", 2**12)
    monkeypatch.setattr(any_size.inference, "reconstruct", lambda model, variables, x: x)
    large = np.tile(picture, (3, 3, 1))
    with pytest.raises(ValueError, match="give more"):
        reconstruct_any_size(deep, None, large, most_pixels=any_size.MOST_PIXELS)
    np.testing.assert_allclose(reconstruct_any_size(deep, None, large), large, atol=1e-6)


@pytest.mark.parametrize("image, message", [
    (np.full((8, 8, 3), 200.0), r"in \[0, 1\], got float64 in"),
    (np.full((8, 8, 3), np.nan), "nan"),
    (np.zeros((8, 8), np.uint8), r"shape \(H, W, 3\) and not be empty, got \(8, 8\)"),
])  # fmt: skip
def test_pictures_of_a_wrong_shape_or_range_raise(image, message):
    model = Autoencoder(bottleneck=SPARSE, **SMALL)
    with pytest.raises(ValueError, match=message):
        reconstruct_any_size(model, None, image)


def test_tiles_are_blended_without_a_visible_border(picture, monkeypatch):
    """As with attention and group normalisation, all of a tile changes all of its result."""
    model, _ = built(VectorQuantizer(16, 4))
    tiles = []

    def of_whole_tile(model, variables, images):
        tiles.append(images.mean())
        return np.full_like(images, tiles[-1])

    monkeypatch.setattr(any_size.inference, "reconstruct", of_whole_tile)
    found = reconstruct_any_size(model, None, picture, most_pixels=4096)
    ramp = overlap(model)[1]
    assert ramp == 8 and len(tiles) >= 9 and np.ptp(found) > 0.5 * np.ptp(tiles)
    for axis in (0, 1):
        steps = np.abs(np.diff(found, axis=axis))
        assert 0 < steps.max() < 1.01 * np.ptp(tiles) / (ramp + 1)


def test_tiles_without_room_for_their_overlap_raise(picture):
    model, variables = built(SPARSE)
    with pytest.raises(ValueError, match="tiles of 400 pixels would be all overlap, 68 pixels"):
        reconstruct_any_size(model, variables, picture, most_pixels=400)
