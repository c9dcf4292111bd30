import csv

import numpy as np
import pytest

from experiments import inpaint as experiment
from experiments.results import Results
from laser_jax.sparse import dct_dictionary, decode, omp, unit_norm

SIZE = experiment.Size(
    side=32, missing=(0.5,), seeds=2, frequencies=9, sparsity=4, patches=300, iterations=2
)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    dictionary = unit_norm(rng.standard_normal((50, 64)).astype(np.float32))
    places = np.stack([rng.choice(50, 3, replace=False) for _ in range(40)])
    weights = rng.choice([-1, 1], (40, 3)) * rng.uniform(1, 2, (40, 3))
    signals = np.einsum("nk,nkd->nd", weights, np.asarray(dictionary)[places])
    return np.float32(signals), dictionary, rng


def test_with_all_pixels_observed_it_is_omp(problem):
    signals, dictionary, _ = problem
    found = experiment.masked_omp(signals, np.ones_like(signals), dictionary, sparsity=4)
    expected = decode(omp(signals, dictionary, sparsity=4), dictionary)
    np.testing.assert_allclose(found, expected, atol=0.05)  # it ends at TOLERANCE
    np.testing.assert_allclose(found, signals, atol=0.05)


def test_three_atoms_are_found_from_half_of_the_pixels_whatever_the_others_say(problem):
    signals, dictionary, rng = problem
    masks = np.float32(rng.random(signals.shape) < 0.6)
    garbage = np.where(masks > 0, signals, 1e3).astype(np.float32)
    found = experiment.masked_omp(garbage, masks, dictionary, sparsity=6)
    error = np.linalg.norm(found - signals, axis=-1) / np.linalg.norm(signals, axis=-1)
    assert np.mean(error < 0.05) > 0.9


def test_observed_pixels_stay_and_empty_patches_do_no_harm():
    image = np.float32(np.add.outer(np.arange(24), np.arange(24)) / 48)
    mask = np.ones((24, 24), np.float32)
    mask[2:14, 3:15] = 0  # larger than a patch
    found = experiment.inpaint(image * mask, mask, dct_dictionary(8, 9), sparsity=4)
    np.testing.assert_array_equal(found[mask > 0], image[mask > 0])
    assert np.all(np.isfinite(found))
    flat = np.full_like(image, 0.5)
    found = experiment.inpaint(flat * mask, mask, dct_dictionary(8, 9), sparsity=4)
    np.testing.assert_allclose(found, flat, atol=1e-5)  # an empty patch does not say 0


def test_a_small_run_has_its_tables_and_beats_what_is_missing(tmp_path):
    experiment.run(Results(tmp_path, "title"), SIZE)
    with open(tmp_path / "psnr.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["missing"] for row in rows} == {"50%"}
    for row in rows:
        damaged = float(row["damaged"].split()[0])
        for name in experiment.METHODS[1:]:
            assert float(row[name].split()[0]) > damaged + 5, (row["image"], name)
    assert (tmp_path / "images.png").stat().st_size > 10_000
