import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from experiments import overlapping


@pytest.fixture
def image():
    return np.random.default_rng(0).random((13, 17), np.float32)


def test_patches_are_those_of_every_place_and_average_back_to_the_image(image):
    patches = overlapping.overlapping_patches(image, 4)
    assert patches.shape == (10, 14, 16)
    np.testing.assert_array_equal(patches[3, 5], image[3:7, 5:9].ravel())
    again = overlapping.average(patches, 0 * image, weight=0)
    np.testing.assert_allclose(again, image, rtol=1e-6)


def test_the_average_is_the_least_squares_solution(image):
    rng = np.random.default_rng(1)
    patches = rng.random((10, 14, 16))
    found = overlapping.average(patches, image, weight=2.5)
    y, x = 6, 7
    votes = [
        patches[y - i, x - j, 4 * i + j]
        for i, j in np.ndindex(4, 4)
        if 0 <= y - i < 10 and 0 <= x - j < 14
    ]
    expected = (2.5 * image[y, x] + sum(votes)) / (2.5 + len(votes))
    assert found[y, x] == pytest.approx(expected, rel=1e-5)


def test_a_patch_without_votes_says_nothing(image):
    patches = overlapping.overlapping_patches(image, 4).copy()
    votes = np.ones(patches.shape[:2])
    votes[3, 5], patches[3, 5] = 0, 1e6
    found = overlapping.average(patches, image, weight=0, votes=votes)
    np.testing.assert_allclose(found, image, rtol=1e-6)


def test_means_and_winners_are_those_of_a_level():
    points = {
        ("x", 1): [{"a/psnr": 1.0, "b/psnr": 2.0}, {"a/psnr": 3.0, "b/psnr": 4.0}],
        ("y", 1): [{"a/psnr": 9.0, "b/psnr": 5.0}],
        ("y", 2): [{"a/psnr": 0.0, "b/psnr": 0.0}],
    }
    mean, best = overlapping.means(points, ("a", "b"), 1, "psnr")
    assert mean == {"a": 5.5, "b": 4.0} and best == {"x": "b", "y": "a"}
    assert overlapping.winners(best) == "Image by image the best is: b on x; a on y."
    assert overlapping.winners({"x": "a", "y": "a"}) == "It is best on every image."
    assert overlapping.rows(points, ("a",), "psnr", "{:.1f}")[0] == ["x", 1, "2.0 ± 1.0"]


def test_quality_is_scikit_images(image):
    other = np.clip(image + np.float32(0.1), 0, 1)
    found = overlapping.quality(image, other)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(image, other, data_range=1))
    assert found["ssim"] == pytest.approx(structural_similarity(image, other, data_range=1.0))
    where = image < 0.5
    found = overlapping.quality(image, other, where)
    squared = np.mean(np.square(np.float64(other - image)[where]))
    assert found["psnr"] == pytest.approx(-10 * np.log10(squared), rel=1e-5)
    each = structural_similarity(image, other, data_range=1.0, full=True)[1]
    assert found["ssim"] == pytest.approx(np.mean(each[where]), rel=1e-5)


def test_test_images_are_gray_middles_and_camera_is_among_them():
    images = overlapping.gray_images("photographs", "test", 40)
    assert list(images)[-1] == "camera"
    assert all(image.shape == (40, 40) and image.max() <= 1 for image in images.values())
