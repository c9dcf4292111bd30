"""Which pictures the evaluation of a prior compares with."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax import evaluate_prior
from laser_jax.evaluate_prior import distances, labels_of, nearest
from laser_jax.evaluation.network_metrics import FEATURES_OF
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
    features = {
        net: kind._replace(compute=lambda params, x: params * jnp.mean(x, (1, 2)))
        for net, kind in FEATURES_OF.items()
    }
    monkeypatch.setattr(evaluate_prior, "FEATURES_OF", features)
    prior = SimpleNamespace(
        tokens=SimpleNamespace(batch_size=16),
        codec=SimpleNamespace(to_images=lambda images: images / 255),
        encode_to_tokens=lambda images: images,
    )
    samples = source.images[evenly_spaced(source, 50)] / 255
    networks = {"vgg": 1.0, "inception": 2.0, "alex": None}
    found = distances(prior, source, samples, networks)
    first = distances(prior, source, source.images[:50] / 255, networks)
    for name in ("fd_vgg16", "fid"):
        assert found[f"{name}_reconstructions"] == found[f"{name}_samples"]
        assert found[f"{name}_samples"] < 0.02 * first[f"{name}_samples"]
        assert found[f"{name}_protocol"].startswith("50 samples, or reconstructions, rounded")
    assert found["fid_samples"] == pytest.approx(4 * found["fd_vgg16_samples"], rel=1e-4)
    assert distances(prior, source, samples, {"alex": None}) == {}


def test_nearest_pictures_are_sought_in_the_whole_set_and_mirrored_ones_too(rng):
    source = Source(rng.integers(256, size=(600, 4, 4, 3)).astype(np.uint8))
    rows = [0, 257, 511, 599]
    samples = np.float32(source.images[rows]) / 255
    np.testing.assert_array_equal(nearest(samples, source, flip=False), samples)
    mirrored = samples[:, :, ::-1]
    np.testing.assert_array_equal(nearest(mirrored, source, flip=True), mirrored)
    assert not np.array_equal(nearest(mirrored, source, flip=False), mirrored)
