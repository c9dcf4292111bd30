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


def test_the_weight_is_the_average_of_elad_and_aharon():
    noisy = np.random.default_rng(0).random((16, 16), np.float32)
    sigma = 1000.0  # nothing is worth an atom: each patch says its mean
    found = experiment.denoise(noisy, dct_dictionary(8, 9), sigma, sparsity=2)
    means = [noisy[i : i + 8, j : j + 8].mean() for i, j in np.ndindex(9, 9)]
    centre = np.reshape(means, (9, 9))[1:, 1:]  # the 64 patches that pixel (8, 8) is in
    expected = (30 / sigma * noisy[8, 8] + centre.sum()) / (30 / sigma + 64)
    np.testing.assert_allclose(found[8, 8], expected, rtol=1e-5)
    sigma = 10.0  # at 0, a corner is in one patch alone: its weight is 1 to lambda's 3
    still = np.full((8, 8), 0.5, np.float32)
    still[0, 0] += 0.01
    found = experiment.denoise(still, dct_dictionary(8, 9), sigma, sparsity=2)
    np.testing.assert_allclose(found[0, 0], (3 * still[0, 0] + still.mean()) / 4, rtol=1e-6)


def test_total_variation_has_one_weight_for_all_images():
    weights = experiment.TV_WEIGHTS
    keys = [f"{experiment.TV} {w}/{x}" for w in weights for x in ("psnr", "ssim", "image")]
    a, b = ({key: 0.0 for key in keys} for _ in range(2))
    for w, x, y in zip(weights[:3], (9.0, 6.0, 0.0), (0.0, 6.0, 9.0), strict=True):
        a[f"{experiment.TV} {w}/psnr"], b[f"{experiment.TV} {w}/psnr"] = x, y
    assert experiment.choose_tv_weight({("a", 25): [a], ("b", 25): [b]}, 25) == weights[1]
    assert a[f"{experiment.TV}/psnr"] == b[f"{experiment.TV}/psnr"] == 6


def test_the_verdict_names_the_best_and_the_gains():
    point = {f"{name}/psnr": 20.0 + i for i, name in enumerate(experiment.METHODS)}
    text = experiment.verdict(SIZE, {("a", 25): [point], ("b", 25): [point]})
    assert "**total variation** is best" in text and "+2.00 dB on the DCT, +1.00 on" in text
    assert "-1.00 on non-local means" in text and "It is best on every image." in text
