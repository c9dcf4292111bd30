import csv

import numpy as np
import pytest

from experiments import compare_bottlenecks as experiment
from experiments.results import Results


def test_a_small_run_has_its_table_its_figures_and_exact_codes_where_they_must_be(tmp_path):
    size = experiment.Size(sparsity_level=3, images=2, side=24, pixels=600, iterations=2)
    experiment.run(Results(tmp_path, "title"), size)
    with open(tmp_path / "errors.csv") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    mse = {name: float(row["MSE"]) for name, row in rows.items()}
    # Three channels: three atoms with least squares are exact, whatever the pixel.
    assert mse["OMP, 3 atoms"] < 1e-6 < mse["OMP, 2 atoms"] < mse["OMP, 1 atom"] < mse["VQ"]
    assert mse["OMP, 3 atoms"] < mse["matching pursuit, 3 atoms"] < mse["OMP, 1 atom"]
    assert float(rows["VQ"]["bits a pixel, 16-bit coefficients"]) == 4
    # log2 C(16, 3) + 3 x 16 = 57.1
    assert float(rows["OMP, 3 atoms"]["bits a pixel, 16-bit coefficients"]) == 57.1
    for name in ("reconstructions", "channels", "usage"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_errors_by_channel_and_as_colour_distance():
    original, image = np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2, 3))
    image[0, 0, 0] = [0.3, 0.4, 0.0]
    found = experiment.errors(original, image)
    assert found == pytest.approx((0.25 / 6, 0.25, 0.045, 0.08, 0.0))
