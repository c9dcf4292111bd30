import csv

import numpy as np
import pytest

from experiments import latent_codecs, reference, reference_patches, reference_speed
from experiments.results import Results

PATCHES = reference_patches.Size(
    entries=(8,), patches=(1, 2), images=2, side=16, signals=300, iterations=2, rounds=1,
    latents=latent_codecs.SIZES["small"]._replace(seeds=2), latent_patches=(1, 2),
)  # fmt: skip
SIZE = reference.Size(
    sparsity_level=3, images=2, side=24, pixels=600, iterations=2, batches=(1, 4), rounds=2,
    patches=PATCHES,
)  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The workdir of a small run, and the latent points it asked for."""
    workdir, asked = tmp_path_factory.mktemp("reference"), []

    def point(out, size, settings, seed):
        asked.append((settings["patch_size"], settings["sparsity_level"], seed))
        return {"psnr": 20.0 + 2 * seed, "bpp": 0.5, "lpips": 0.1}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_codecs, "latent_point", point)
        reference.run(Results(workdir, "title"), SIZE)
    return workdir, asked


def rows(workdir, name):
    with open(workdir / f"{name}.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_three_atoms_code_single_pixels_exactly(report):
    found = {row["method"]: row for row in rows(report[0], "errors")}
    mse = {name: float(row["MSE"]) for name, row in found.items()}
    # Three channels: three atoms with least squares are exact, whatever the pixel.
    assert mse["OMP, 3 atoms"] < 1e-6 < mse["OMP, 2 atoms"] < mse["OMP, 1 atom"] < mse["VQ"]
    assert mse["OMP, 3 atoms"] < mse["matching pursuit, 3 atoms"] < mse["OMP, 1 atom"]
    assert float(found["VQ"]["bits a pixel, 16-bit coefficients"]) == 4
    # log2 C(16, 3) + 3 x 16 = 57.1
    assert float(found["OMP, 3 atoms"]["bits a pixel, 16-bit coefficients"]) == 57.1
    assert mse["published: VQ"] == 0.00905


@pytest.mark.slow
def test_every_method_is_timed_at_every_batch(report):
    found = rows(report[0], "speed")
    assert [row["batch"] for row in found] == ["1", "4"]
    for row in found:
        ratio = float(row["matching pursuit, ms"]) / float(row["VQ, ms"])
        assert float(row["slowdown"]) == pytest.approx(ratio, abs=0.01) and ratio > 0
    assert found[1]["published slowdown"] == "18.3"


@pytest.mark.slow
def test_larger_patches_cost_fewer_bits(report):
    found = {(row["patch"], row["method"]): row for row in rows(report[0], "patches")}
    assert float(found["1x1", "K-SVD"]["MSE"]) < 1e-6 < float(found["2x2", "K-SVD"]["MSE"])
    assert float(found["2x2", "K-SVD"]["MSE"]) < float(found["2x2", "VQ"]["MSE"])
    assert found["2x2", "VQ"]["patches an image"] == "64"
    assert float(found["2x2", "VQ"]["bits a pixel"]) == 0.75  # log2 8 a patch of 4
    # log2 C(8, 4) + 4 x 16 a pixel, a quarter of it in patches of 4.
    bits = [float(found[patch, "K-SVD"]["bits a pixel"]) for patch in ("1x1", "2x2")]
    assert bits == pytest.approx([np.log2(70) + 64, (np.log2(70) + 64) / 4])


@pytest.mark.slow
def test_latents_have_as_many_atoms_at_every_patch_size(report):
    workdir, asked = report
    assert asked == [(1, 2, 0), (1, 2, 1), (2, 8, 0), (2, 8, 1)]
    assert [row["PSNR, dB"] for row in rows(workdir, "latents")] == ["21.00 ± 1.00"] * 2


@pytest.mark.parametrize("name", [
    "reconstructions", "codes", "coefficients", "channels", "usage", "embedding_0", "embedding_1",
    "distances_0", "distances_1", "speed", "patches", "pictures",
])  # fmt: skip
@pytest.mark.slow
def test_figure_is_drawn(report, name):
    assert (report[0] / f"{name}.png").stat().st_size > 5000


def test_errors_by_channel_and_as_colour_distance():
    original, image = np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2, 3))
    image[0, 0, 0] = [0.3, 0.4, 0.0]
    found = reference.errors(original, image)
    assert found == pytest.approx((0.25 / 6, 0.25, 0.045, 0.08, 0.0))


def test_the_verdict_says_which_goal_is_met():
    size = SIZE._replace(side=16)
    vq, pursuit = reference_speed.VQ, reference_speed.PURSUIT
    times = {vq: np.array([1.0, 4.0]), pursuit: np.array([3.0, 17.0])}
    text = reference_speed.verdict(size, times)
    assert "3.0 to 4.2 (published" in text and "every batch, is **not met**" in text
    assert "1.42 times that of batch 1; the goal, at most 1.1, is **not met**" in text
    times[pursuit] = np.array([3.0, 12.0])
    times[reference_speed.TORCH] = times[vq] * 2
    assert reference_speed.verdict(size, times).count("is met") == 2


def test_wrong_results_raise_before_timing():
    images, codebook = np.zeros((1, 2, 2, 3), np.float32), np.eye(3, dtype=np.float32)
    good = {reference_speed.VQ: images + codebook[0], reference_speed.OMP: images}
    reference_speed.check(images, codebook, good)
    with pytest.raises(AssertionError, match="VQ"):
        reference_speed.check(images, codebook, good | {reference_speed.VQ: images + 2})
