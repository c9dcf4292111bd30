import numpy as np
import pytest

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


def test_test_images_are_gray_middles_and_camera_is_among_them():
    images = overlapping.gray_images("photographs", "test", 40)
    assert list(images)[-1] == "camera"
    assert all(image.shape == (40, 40) and image.max() <= 1 for image in images.values())
