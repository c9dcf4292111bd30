"""Which pictures the evaluation of a prior compares with."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax import evaluate_prior
from laser_jax.evaluate_prior import distances, labels_of, nearest
from laser_jax.evaluation.split import evenly_spaced

# In the order of their classes, as the pictures of a folder are: each class has a colour.
CLASSES = np.repeat(np.arange(4), 25)


class Source:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]

    def label(self, i):
        return CLASSES[i]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def source(rng):
    colours = rng.integers(256, size=(4, 1, 1, 3))[CLASSES]
    noise = rng.integers(-20, 20, size=(100, 8, 8, 3))
    return Source(np.clip(colours + noise, 0, 255).astype(np.uint8))


def test_samples_have_the_classes_of_the_whole_split(source):
    prior = SimpleNamespace(tokens=SimpleNamespace(model=SimpleNamespace(num_classes=4)))
    counts = np.bincount(labels_of(prior, source, evenly_spaced(source, 20)), minlength=4)
    np.testing.assert_array_equal(counts, 5)


def test_perfect_autoencoder_and_prior_are_near_the_whole_split(source, monkeypatch):
    """Here the first pictures have two classes of four."""
    monkeypatch.setattr(evaluate_prior, "vgg16_features", lambda _, x: jnp.mean(x, (1, 2)))
    prior = SimpleNamespace(
        tokens=SimpleNamespace(batch_size=16),
        codec=SimpleNamespace(to_images=lambda images: images / 255),
        encode_to_tokens=lambda images: images,
    )
    samples = source.images[evenly_spaced(source, 50)] / 255
    found = distances(prior, source, samples, None)
    first = distances(prior, source, source.images[:50] / 255, None)
    assert found["fd_vgg16_reconstructions"] == found["fd_vgg16_samples"]
    assert found["fd_vgg16_samples"] < 0.02 * first["fd_vgg16_samples"]


def test_nearest_pictures_are_sought_in_the_whole_set_and_mirrored_ones_too(rng):
    source = Source(rng.integers(256, size=(600, 4, 4, 3)).astype(np.uint8))
    rows = [0, 257, 511, 599]
    samples = np.float32(source.images[rows]) / 255
    np.testing.assert_array_equal(nearest(samples, source, flip=False), samples)
    mirrored = samples[:, :, ::-1]
    np.testing.assert_array_equal(nearest(mirrored, source, flip=True), mirrored)
    assert not np.array_equal(nearest(mirrored, source, flip=False), mirrored)
