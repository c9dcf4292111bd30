import numpy as np
import pytest

from laser_jax.figures import heatmaps
from laser_jax.sparse import SparseCode


@pytest.fixture
def code():
    indices = np.arange(16).reshape(1, 2, 2, 4)
    coefficients = np.float32([[[[1, -2, 0, 0], [0, 0, 0, 0]], [[3, 0, 0, 0], [1, 1, 1, -1]]]])
    return SparseCode(indices, coefficients)


def test_maps_are_of_entries_norms_and_counts(code):
    entries = heatmaps.code_maps(code, has_coefficients=False)["entry"]
    np.testing.assert_array_equal(entries[0], [[0, 4], [8, 12]])
    np.testing.assert_array_equal(heatmaps.l1_map(code)[0], [[3, 0], [3, 4]])
    np.testing.assert_array_equal(heatmaps.count_map(code)[0], [[2, 0], [1, 4]])


def test_a_value_covers_its_pixels():
    values = np.arange(6).reshape(1, 2, 3)
    pixels = heatmaps.over_pixels(values, 8, 12)
    assert pixels.shape == (1, 8, 12)
    np.testing.assert_array_equal(pixels[:, ::4, ::4], values)
    np.testing.assert_array_equal(pixels[:, 3::4, 3::4], values)
    with pytest.raises(ValueError, match="2x3 does not divide a picture of 8x13"):
        heatmaps.over_pixels(values, 8, 13)


def test_outliers_do_not_set_the_scale():
    values = np.append(np.linspace(0, 1, 1000), 1e6)
    low, high = heatmaps.clipped(values)
    assert 0 < low < 0.02 and 0.98 < high < 1


def test_atoms_are_drawn_where_their_number_varies(code):
    assert list(heatmaps.code_maps(code, has_coefficients=True)) == ["L1 norm", "atoms"]
    full = code._replace(coefficients=np.ones_like(code.coefficients))
    assert list(heatmaps.code_maps(full, has_coefficients=True)) == ["L1 norm"]
    figure = heatmaps.heatmap_figure(
        np.zeros((1, 8, 8, 3)), heatmaps.code_maps(code, has_coefficients=True)
    )
    shown = figure.axes[2].images[0].get_array()
    np.testing.assert_array_equal(shown[::4, ::4], [[2, 0], [1, 4]])
    assert figure.axes[2].get_title() == "atoms"


def test_each_entry_has_a_colour_of_its_own(code):
    figure = heatmaps.heatmap_figure(
        np.zeros((1, 8, 8, 3)), heatmaps.code_maps(code, has_coefficients=False)
    )
    assert len(np.unique(figure.axes[1].images[0].get_array())) == 4
