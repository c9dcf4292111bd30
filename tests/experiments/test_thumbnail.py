import numpy as np
import pytest

from experiments import thumbnail
from experiments.photographs import grid_patches, photographs


@pytest.fixture(scope="module")
def fitted():
    images = [image[:160, :160] for image in photographs("train").values()]
    return thumbnail.fit_thumbnail(images, patch_size=8, step=0.06)


def test_prediction_is_the_median_edge_detector():
    integers = np.random.default_rng(0).integers(-9, 9, (5, 6, 3))
    differences, _ = thumbnail.predict(integers)
    assert np.array_equal(differences[0, 0], integers[0, 0])  # from nothing
    for y, x, c in np.ndindex(4, 5, 3):
        left, up, corner = integers[y + 1, x, c], integers[y, x + 1, c], integers[y, x, c]
        expected = sorted([left, up, left + up - corner])[1]
        assert integers[y + 1, x + 1, c] - differences[y + 1, x + 1, c] == expected


def test_smooth_pictures_are_predicted_and_means_lose_only_rounding(fitted):
    y, x = np.mgrid[:64, :64] / 64
    image = np.float32(np.stack([x, y, (x + y) / 2], -1))
    patches = grid_patches(image, 8)
    integers = thumbnail.shrink(patches, fitted.step)
    predicted = thumbnail.enlarge(fitted, integers)
    means = patches.reshape(8, 8, -1, 3).mean(2)
    # Half a step each way, in an orthonormal basis.
    assert np.abs(integers @ thumbnail.COLOURS * fitted.step - means).max() < 0.06
    inside = (slice(1, -1), slice(1, -1))
    flat = np.mean((patches - np.tile(means, 64))[inside] ** 2)
    assert np.mean((patches - predicted)[inside] ** 2) < 0.6 * flat


def test_bits_are_those_of_the_tables_and_noise_costs_more(fitted):
    np.testing.assert_allclose(np.sum(2.0**-fitted.bits, -1), 1)
    coffee = photographs("test")["coffee"][:160, :160]
    integers = thumbnail.shrink(grid_patches(coffee, 8), fitted.step)
    shuffled = np.random.default_rng(0).permutation(integers.reshape(-1, 3)).reshape(20, 20, 3)
    bits = thumbnail.thumbnail_bits(fitted, integers)
    assert 0 < bits < 0.8 * thumbnail.thumbnail_bits(fitted, shuffled)
