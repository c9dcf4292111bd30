import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data as photographs
from skimage import metrics as reference

from laser_jax.metrics import psnr, ssim


@pytest.fixture(scope="module")
def pairs():
    """Crops of a photograph and noisy copies, one of odd size apart."""
    rng = np.random.default_rng(0)
    photograph = photographs.astronaut() / 255
    crops = np.stack([photograph[i : i + 64, 2 * i : 2 * i + 48] for i in (0, 100, 200)])
    sigma = np.array([0.01, 0.05, 0.2]).reshape(3, 1, 1, 1)
    noisy = np.clip(crops + sigma * rng.normal(size=crops.shape), 0, 1)
    return crops.astype(np.float32), noisy.astype(np.float32)


def test_psnr_is_scikit_images(pairs):
    expected = [
        reference.peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(*pairs, strict=True)
    ]
    np.testing.assert_allclose(psnr(*pairs), expected, rtol=1e-5)


def test_psnr_of_equal_images_is_finite(pairs):
    np.testing.assert_array_equal(psnr(pairs[0], pairs[0]), 100)


def test_ssim_is_scikit_images(pairs):
    expected = [
        reference.structural_similarity(
            a, b, channel_axis=-1, data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(*(p.astype(np.float64) for p in pairs), strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(*map(jnp.asarray, pairs)), expected, atol=1e-5)


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ValueError, match=r"at least 11x11 pixels, got \(8, 16\)"):
        ssim(jnp.zeros((1, 8, 16, 3)), jnp.zeros((1, 8, 16, 3)))
