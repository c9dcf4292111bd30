import csv

import numpy as np
import pytest

from experiments import latent_codecs, patch_size
from experiments.results import Results

SIZE = patch_size.Size(
    entries=(8,), patches=(1, 2), images=2, side=16, signals=300, iterations=2, rounds=1,
    latents=latent_codecs.SIZES["small"]._replace(seeds=2), latent_patches=(1, 2),
)  # fmt: skip


def test_a_small_run_has_its_tables_and_figures(tmp_path, monkeypatch):
    asked = []

    def point(out, size, settings, seed):
        asked.append((settings["patch_size"], settings["sparsity_level"], seed))
        return {"psnr": 20.0 + 2 * seed, "bpp": 0.5, "lpips": 0.1}

    monkeypatch.setattr(latent_codecs, "latent_point", point)
    patch_size.run(Results(tmp_path, "title"), SIZE)
    with open(tmp_path / "pixels.csv") as file:
        rows = {(row["patch"], row["method"]): row for row in csv.DictReader(file)}
    assert float(rows["1x1", "K-SVD"]["MSE"]) < 1e-6 < float(rows["2x2", "K-SVD"]["MSE"])
    assert float(rows["2x2", "K-SVD"]["MSE"]) < float(rows["2x2", "VQ"]["MSE"])
    assert rows["2x2", "VQ"]["patches an image"] == "64"
    assert float(rows["2x2", "VQ"]["bits a pixel"]) == 0.75  # log2 8 a patch of 4
    # log2 C(8, 4) + 4 x 16 a pixel, a quarter of it in patches of 4.
    assert float(rows["1x1", "K-SVD"]["bits a pixel"]) == pytest.approx(np.log2(70) + 64)
    assert float(rows["2x2", "K-SVD"]["bits a pixel"]) == pytest.approx((np.log2(70) + 64) / 4)
    # As many atoms a latent at every patch size.
    assert asked == [(1, 2, 0), (1, 2, 1), (2, 8, 0), (2, 8, 1)]
    with open(tmp_path / "latents.csv") as file:
        assert [row["PSNR, dB"] for row in csv.DictReader(file)] == ["21.00 ± 1.00"] * 2
    for name in ("pixels", "pictures"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
