import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from experiments import restoration


@pytest.fixture
def image():
    return np.random.default_rng(0).random((13, 17), np.float32)


def test_means_and_winners_are_those_of_a_level():
    points = {
        ("x", 1): [{"a/psnr": 1.0, "b/psnr": 2.0}, {"a/psnr": 3.0, "b/psnr": 4.0}],
        ("y", 1): [{"a/psnr": 9.0, "b/psnr": 5.0}],
        ("y", 2): [{"a/psnr": 0.0, "b/psnr": 0.0}],
    }
    mean, best = restoration.means(points, ("a", "b"), 1, "psnr")
    assert mean == {"a": 5.5, "b": 4.0} and best == {"x": "b", "y": "a"}
    assert restoration.winners(best) == "Image by image the best is: b on x; a on y."
    assert restoration.winners({"x": "a", "y": "a"}) == "It is best on every image."
    assert restoration.rows(points, ("a",), "psnr", "{:.1f}")[0] == ["x", 1, "2.0 ± 1.0"]


def test_quality_is_scikit_images(image):
    other = np.clip(image + np.float32(0.1), 0, 1)
    found = restoration.quality(image, other)
    assert found["psnr"] == pytest.approx(peak_signal_noise_ratio(image, other, data_range=1))
    assert found["ssim"] == pytest.approx(structural_similarity(image, other, data_range=1.0))
    where = image < 0.5
    found = restoration.quality(image, other, where)
    squared = np.mean(np.square(np.float64(other - image)[where]))
    assert found["psnr"] == pytest.approx(-10 * np.log10(squared), rel=1e-5)
    each = structural_similarity(image, other, data_range=1.0, full=True)[1]
    assert found["ssim"] == pytest.approx(np.mean(each[where]), rel=1e-5)
