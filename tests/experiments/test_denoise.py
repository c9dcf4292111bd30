import csv

import numpy as np

from experiments import denoise as experiment
from experiments.results import Results
from laser_jax.sparse import dct_dictionary

SIZE = experiment.Size(
    side=32, sigmas=(25,), seeds=2, frequencies=9, sparsity=4, patches=300, iterations=2
)


def test_codes_end_where_the_noise_begins():
    rng = np.random.default_rng(0)
    dictionary = dct_dictionary(8, 9)
    clean = 0.5 * np.asarray(dictionary)[rng.integers(1, 81, 200)]
    noise = 10 / 255 * rng.standard_normal((200, 64))
    code = experiment.encode(np.float32(clean + noise), dictionary, 10.0, sparsity=8)
    atoms = np.sum(np.asarray(code.coefficients) != 0, -1)
    # One atom was there; the noise is above its bound, C = 1.15, in very few of 200.
    assert np.mean(atoms == 1) > 0.8


def test_a_small_run_has_its_tables_and_every_method_beats_the_noise(tmp_path):
    experiment.run(Results(tmp_path, "title"), SIZE)
    with open(tmp_path / "psnr.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["coffee", "rocket", "camera"]
    for row in rows:
        noisy = float(row["noisy"].split()[0])
        for name in experiment.METHODS[1:]:
            assert float(row[name].split()[0]) > noisy + 2, (row["image"], name)
    assert (tmp_path / "images.png").stat().st_size > 10_000


def test_the_verdict_names_the_best_and_the_gains():
    point = {f"{name}/psnr": 20.0 + i for i, name in enumerate(experiment.METHODS)}
    text = experiment.verdict(SIZE, {("a", 25): [point], ("b", 25): [point]})
    assert "**total variation** is best" in text and "+2.00 dB on the DCT and -1.00 on" in text
