"""Every metric of images takes uint8, or floats in [0, 1], and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import data as photographs

from laser_jax.metrics import fid, lpips, perceptual, psnr, ssim

METRICS = {"psnr": psnr, "ssim": ssim, "lpips": lpips}
BYTES = photographs.astronaut()[None, :64, :64]
OTHER = np.roll(BYTES, 1, axis=2)


@pytest.fixture(params=[*METRICS, "fid"])
def metric(request, monkeypatch):
    """A metric of two batches; FID sees two images a set, by features that cost nothing."""
    if request.param != "fid":
        return METRICS[request.param]
    monkeypatch.setattr(perceptual, "FEATURES", 3)
    monkeypatch.setattr(perceptual, "load_inception", lambda weights: None)
    monkeypatch.setattr(
        perceptual, "inception_features", lambda params, images: images[:, :7].mean((1, 2))
    )
    return lambda a, b: fid([a, a[:, ::-1]], [b, b[:, ::-1]])


def test_bytes_and_floats_of_one_image_have_one_value(metric):
    expected = metric(BYTES / 255, OTHER / np.float32(255))
    for a, b in ((BYTES, OTHER), (jnp.asarray(BYTES), OTHER / np.float32(255))):
        np.testing.assert_allclose(metric(a, b), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.astype(np.float32),
        lambda x: jnp.asarray(x, jnp.float32),
        lambda x: x / 127.5 - 1,
        lambda x: np.where(x == x.max(), np.nan, x / 255),
        lambda x: x.astype(np.int32),
        lambda x: x > 100,
    ],
    ids=["0 to 255", "0 to 255 in JAX", "-1 to 1", "NaN", "integers", "booleans"],
)
def test_other_types_and_ranges_raise(metric, spoil, refuses):
    refuses(metric, BYTES / 255, spoil(OTHER))
    refuses(metric, spoil(BYTES), OTHER / 255)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_work_under_jit_where_values_are_not_known(name):
    expected = METRICS[name](BYTES, OTHER)
    for arguments in ((BYTES, OTHER), (BYTES / 255, OTHER / 255)):
        np.testing.assert_allclose(jax.jit(METRICS[name])(*arguments), expected, rtol=1e-4)
