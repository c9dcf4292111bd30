import csv

import numpy as np
import pytest

from experiments import speed
from experiments.results import Results

SIZE = speed.Size(side=16, batches=(1, 4), rounds=2)


def test_a_small_run_measures_every_method_at_every_batch(tmp_path):
    speed.run(Results(tmp_path, "title"), SIZE)
    with open(tmp_path / "speed.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["batch"] for row in rows] == ["1", "4"]
    for row in rows:
        ratio = float(row["matching pursuit, ms"]) / float(row["VQ, ms"])
        assert float(row["slowdown"]) == pytest.approx(ratio, abs=0.01) and ratio > 0
    assert rows[1]["published slowdown"] == "18.3"
    assert (tmp_path / "speed.png").stat().st_size > 10_000


def test_the_verdict_says_which_goal_is_met():
    times = {speed.VQ: np.array([1.0, 4.0]), speed.PURSUIT: np.array([3.0, 17.0])}
    text = speed.verdict(SIZE, times)
    assert "3.0 to 4.2 (published" in text and "every batch, is **not met**" in text
    assert "1.42 times that of batch 1; the goal, at most 1.1, is **not met**" in text
    times[speed.PURSUIT] = np.array([3.0, 12.0])
    assert speed.verdict(SIZE, times | {speed.TORCH: times[speed.VQ] * 2}).count("is met") == 2


def test_a_wrong_answer_is_not_timed():
    images, codebook = np.zeros((1, 2, 2, 3), np.float32), np.eye(3, dtype=np.float32)
    good = {speed.VQ: images + codebook[0], speed.OMP: images}
    speed.check(images, codebook, good)
    with pytest.raises(AssertionError, match="VQ"):
        speed.check(images, codebook, good | {speed.VQ: images + 2})
