import numpy as np
import pytest
from clu import metric_writers

from laser_jax.figures import curves


@pytest.fixture
def workdir(tmp_path):
    """A run that was stopped after step 20 and went on from a checkpoint at step 10."""
    for steps, shift in (((5, 10, 15, 20), 0), ((15, 20, 25), 100)):
        writer = metric_writers.SummaryWriter(str(tmp_path))
        for step in steps:
            writer.write_scalars(step, {"train/loss": float(step + shift)})
            writer.write_images(step, {"atoms": np.zeros((1, 2, 2, 3))})
        writer.close()
    return tmp_path


def test_a_step_written_twice_counts_once_the_last_time(workdir):
    found = curves.read_scalars(workdir)
    assert list(found) == ["train/loss"]  # images are no curve
    steps, values = found["train/loss"]
    assert steps.tolist() == [5, 10, 15, 20, 25]
    assert values.tolist() == [5, 10, 115, 120, 125]


def test_the_moving_average_has_no_bias():
    np.testing.assert_allclose(curves.smoothed(np.full(5, 3.0)), 3)
    np.testing.assert_allclose(curves.smoothed(np.array([0.0, 1.0]), 0.5), [0, 2 / 3])


def test_runs_are_distinguished_and_missing_tags_are_left_out():
    steps = np.arange(3)
    runs = {"a": {"train/loss": (steps, steps)}, "b": {"val/psnr": (steps, steps)}}
    figure = curves.curve_figure(runs, ("train/loss", "train/nothing", "val/psnr"))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["train/loss", "val/psnr"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a", "b"]
    loss, psnr = (axes.lines[0].get_color() for axes in figure.axes)
    assert loss != psnr


def test_curve_of_one_point_is_visible():
    runs = {"a": {"train/loss": (np.array([60]), np.array([0.5]))}}
    (axes,) = (axes for axes in curves.curve_figure(runs, ("train/loss",)).axes if axes.get_title())
    assert any(line.get_marker() == "o" for line in axes.lines)
