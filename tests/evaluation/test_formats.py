"""JPEG and WebP files beside a run."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from laser_jax.evaluation import formats


def waves(number=6, side=16, channels=3):
    """Smooth images with a little noise, uint8."""
    rng = np.random.default_rng(0)
    phases = rng.uniform(0, 6, (number, 1, 1, channels))
    rows, columns = np.mgrid[:side, :side] / side
    smooth = 128 + 80 * np.sin(6 * rows[None, ..., None] + 4 * columns[None, ..., None] + phases)
    return np.uint8(smooth + rng.normal(size=smooth.shape) * 8)


def test_mosaic_has_all_images_as_tiles_and_gray_ones_after_them():
    images = waves(5)
    tiles = formats.mosaic(images)
    assert tiles.shape == (32, 48, 3)
    np.testing.assert_array_equal(tiles[:16, 16:32], images[1])
    np.testing.assert_array_equal(tiles[16:, 32:], 128)
    np.testing.assert_array_equal(formats.images_of(tiles, images.shape), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_rate_counts_the_whole_file_once_and_psnr_the_images_alone(channels):
    images = waves(3, channels=channels)
    rate, psnr = formats.rate_and_psnr(images, "WebP", quality=60, method=6)
    file, tiles = io.BytesIO(), formats.mosaic(images)
    picture = Image.fromarray(tiles if channels == 3 else tiles[..., 0])
    picture.save(file, "WEBP", quality=60, method=6)
    assert rate == 8 * len(file.getvalue()) / (3 * 16 * 16)
    back = np.asarray(Image.open(file).convert(picture.mode)).reshape(tiles.shape)
    error = (formats.images_of(back, images.shape).astype(float) - images) / 255
    assert psnr == pytest.approx(-10 * math.log10(np.mean(error**2)), abs=1e-5)


def test_nearest_rate_interpolates_between_qualities_and_keeps_to_what_the_format_reaches():
    images = waves()
    options = {"quality": formats.QUALITIES[4], "method": 6}
    rate, psnr = formats.rate_and_psnr(images, "WebP", **options)
    assert formats.nearest_rate(images, "WebP", rate) == pytest.approx((rate, psnr))
    more = formats.rate_and_psnr(images, "WebP", **options | {"quality": formats.QUALITIES[5]})
    middle = math.sqrt(rate * more[0])
    found = formats.nearest_rate(images, "WebP", middle)
    assert found == pytest.approx((middle, (psnr + more[1]) / 2))
    curve = formats.rate_curve(images, "WebP")
    assert formats.nearest_rate(images, "WebP", 1e-6)[0] <= curve[0][0]
    assert formats.nearest_rate(images, "WebP", 1e6)[0] >= curve[-1][0]


def test_rate_curve_rises_and_psnr_between_points_is_linear_in_the_logarithm():
    curve = formats.rate_curve(waves(), "JPEG")
    assert len(curve) > 5
    assert curve == sorted(curve) and [p for _, p in curve] == sorted(p for _, p in curve)
    points = [(2.0, 30.0), (0.5, 20.0)]
    assert formats.psnr_at(points, 1.0) == pytest.approx(25)
    assert math.isnan(formats.psnr_at(points, 0.4))
