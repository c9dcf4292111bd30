"""Metrics of a split by pretrained networks, against the functions applied to all images."""

import jax
import numpy as np
import pytest
from skimage import data as photographs

from laser_jax.data.source import ImageSource
from laser_jax.evaluation import network_metrics
from laser_jax.evaluation.network_metrics import compute_network_metrics, load_networks
from laser_jax.metrics import fid, frechet_distance, lpips
from laser_jax.models import build_model, inference
from laser_jax.pretrained import (
    WeightsUnavailable,
    load_lpips,
    vgg16_features,
)
from laser_jax.sharding import data_mesh


@pytest.fixture
def config(tiny_config):
    tiny_config.eval.batch_size = 4  # the last batch of five images is masked
    return tiny_config


@pytest.fixture(scope="module")
def source():
    image = photographs.astronaut()
    windows = [image[40 * i :, 60 * i :][:32, :32] for i in range(5)]
    return ImageSource("windows", "test", "five windows", windows, load=lambda x: x)


@pytest.fixture
def trained(config):
    """An untrained model: its reconstructions are other images of the same shape."""
    model = build_model(config)
    images = np.zeros((1, 32, 32, 3), np.float32)
    return model, jax.jit(model.init)(jax.random.key(0), images)


@pytest.fixture
def images(trained, source):
    originals = np.stack(source.records)
    reconstruction = np.asarray(inference.reconstruct(*trained, originals))
    # The networks get rounded images, as in a file.
    return originals / 255, np.round(255 * reconstruction) / 255


def moments(features):
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def quality(trained, source, config):
    return compute_network_metrics(
        load_networks(config), *trained, source, mesh=data_mesh(), config=config
    )


def test_metrics_use_exactly_the_images_of_the_split(
    trained, source, images, config, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level("INFO", "laser_jax")
    result = quality(trained, source, config)
    original, reconstruction = images
    for name, net in (("lpips", "alex"), ("lpips_vgg", "vgg")):
        expected = np.mean(lpips(original, reconstruction, net=net))
        # One value at the edge of two bytes is a difference of 6e-5; no rounding is 1.7e-4 or more.
        np.testing.assert_allclose(result[name], expected, rtol=1e-4)
    features = [vgg16_features(load_lpips("vgg"), 2 * x - 1) for x in images]
    expected = frechet_distance(*(m for x in features for m in moments(x)))
    np.testing.assert_allclose(result["fd_vgg16"], expected, rtol=1e-4)
    assert result["fd_vgg16_protocol"].endswith(
        "5 reconstructions, rounded to uint8, against their originals, five windows"
    )
    assert "rounded to uint8" in result["lpips_protocol"]
    # Without its weights there is no FID, and the log says how to get them.
    assert not any(name.startswith("fid") for name in result)
    assert "fid not computed" in caplog.text and "laser_jax.pretrained.download" in caplog.text


def test_gray_images_are_judged_as_rgb_images_of_equal_channels(config, source):
    config.data.channels = 1
    model = build_model(config)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))
    gray = [image[..., :1] for image in source.records]
    split = ImageSource("windows", "test", "gray windows", gray, load=lambda x: x)
    networks = {name: params for name, params in load_networks(config).items() if name == "alex"}
    found = compute_network_metrics(
        networks, model, variables, split, mesh=data_mesh(), config=config
    )
    originals = np.stack(gray)
    reconstruction = np.asarray(inference.reconstruct(model, variables, originals))
    in_rgb = [x.repeat(3, -1) for x in (originals / 255, np.round(255 * reconstruction) / 255)]
    np.testing.assert_allclose(found["lpips"], np.mean(lpips(*in_rgb, net="alex")), rtol=1e-5)


@pytest.mark.slow
def test_fid_uses_inception_features_and_caches_those_of_the_originals(
    trained, source, images, config, tmp_path, monkeypatch, inception_file
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config.weights.inception = str(inception_file)
    first = quality(trained, source, config)
    expected = fid(*([x] for x in images), weights=inception_file)
    np.testing.assert_allclose(first["fid"], expected, rtol=1e-4)
    assert "299x299" in first["fid_protocol"] and "five windows" in first["fid_protocol"]
    (kept,) = (tmp_path / "laser_jax" / "statistics").iterdir()

    # Next time the originals are not looked at again, and others are not taken for them.
    with monkeypatch.context() as patch:
        patch.setattr(network_metrics, "GaussianStatistics", counted := Counted(network_metrics))
        assert quality(trained, source, config) == first
        assert counted.made == 3  # VGG16 of both, Inception of the reconstructions
    others = ImageSource("windows", "test", "five windows", source.records[::-1], load=lambda x: x)
    quality(trained, others, config)
    assert len(list(kept.parent.iterdir())) == 2


class Counted:
    """Counts how many statistics are made."""

    def __init__(self, module):
        self.original, self.made = module.GaussianStatistics, 0

    def __call__(self, width):
        self.made += 1
        return self.original(width)


def test_missing_weights_named_in_the_config_raise(config, tmp_path):
    config.weights.inception = str(tmp_path / "absent.pickle")
    with pytest.raises(WeightsUnavailable, match="absent.pickle does not exist"):
        load_networks(config)
    config.weights.update(inception=None, lpips=str(tmp_path))
    with pytest.raises(WeightsUnavailable, match="alexnet.ckpt does not exist"):
        load_networks(config)


def test_networks_that_need_larger_images_are_skipped(config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_networks(config).keys() == {"alex", "vgg"}
    config.data.image_size = 16
    assert load_networks(config).keys() == {"vgg"}
