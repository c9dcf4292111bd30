import numpy as np
import pytest

from laser_jax.figures.comparisons import channel_slice, reconstruction_comparison, usage_bars


@pytest.fixture
def images():
    return np.random.default_rng(0).random((2, 16, 16, 3), np.float32)


def test_error_maps_share_one_scale_and_are_mean_absolute_errors(images):
    worse = images + np.float32(0.2)
    figure = reconstruction_comparison(images, {"good": images + np.float32(0.1), "bad": worse})
    panels = [axes for axes in figure.axes if axes.images][:10]
    assert [axes.get_ylabel() for axes in panels[::2]] == [
        "original", "good", "error", "bad", "error",
    ]  # fmt: skip
    good, bad = panels[4].images[0], panels[8].images[0]
    np.testing.assert_allclose(good.get_array(), 0.1, rtol=1e-4)
    np.testing.assert_allclose(bad.get_array(), 0.2, rtol=1e-4)
    assert good.get_clim() == bad.get_clim() == pytest.approx((0, 0.2), rel=1e-4)
    # What is shown is an image still.
    assert panels[6].images[0].get_array().max() <= 1


def test_a_channel_slice_draws_each_method_in_its_own_look(images):
    figure = channel_slice(images[0, 8], {"VQ": images[1, 8], "sparse": images[1, 7]})
    for channel, axes in enumerate(figure.axes):
        original, vq, sparse = axes.lines
        np.testing.assert_array_equal(original.get_ydata(), images[0, 8, :, channel])
        np.testing.assert_array_equal(sparse.get_ydata(), images[1, 7, :, channel])
        styles = [line.get_linestyle() for line in (original, vq, sparse)]
        assert styles == ["-", "--", ":"] and original.get_color() == "#000000"


def test_usage_bars_count_entries_from_the_least_use_on():
    uses = {"VQ": np.array([1.9, 0.01, 0.05, 1e-9])}
    titles = [usage_bars(uses, least=x).axes[0].get_title() for x in (None, 0.05)]
    assert titles == ["VQ: 4 of 4 used", "VQ: 2 of 4 used"]


def test_usage_bars_are_shares_most_used_first():
    figure = usage_bars({"VQ": np.array([1, 0, 3]), "never used": np.zeros(3)})
    shares = figure.axes[0].patches[0].get_data().values
    np.testing.assert_allclose(shares, [0.75, 0.25, 0])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["VQ: 2 of 3 used", "never used: 0 of 3 used"]
