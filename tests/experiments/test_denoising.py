import dataclasses

import numpy as np
import pytest

from experiments import denoising
from experiments.results import Results

SIZE = dataclasses.replace(
    denoising.SIZES["small"], side=24, gray_atoms=32, color_atoms=32, patches=1024, passes=1,
    picture_batches=1, sweep=1024, missing=(0.5, 0.75),
)  # fmt: skip


@pytest.mark.slow
def test_every_method_restores_and_every_number_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(denoising, "CHUNK", 512)
    monkeypatch.setattr(denoising, "by_bm3d", denoising.by_means)  # not of the test's packages
    image = denoising.middle(denoising.color_pictures(400)["coffee"], SIZE.side)
    monkeypatch.setattr(denoising, "color_pictures", lambda side: {"coffee": image})
    monkeypatch.setattr(denoising, "gray_pictures", lambda side: {})
    out = Results(tmp_path, "denoising")
    denoising.run(out, SIZE)
    denoised, inpainted = (block["rows"] for block in out.blocks)
    assert [row[:2] for row in denoised] == [["colour", "coffee"]]
    for row in denoised:
        before, *after = (float(cell.split()[0]) for cell in row[3:])
        assert len(after) == 4 and min(after) > before + 3
        assert after[0] != after[1]  # the atoms did learn from the picture
    for row in inpainted:
        before, *after = (float(cell.split()[0]) for cell in row[3:])
        assert len(after) == 2 and min(after) > before + 10
    assert inpainted[0][3:] != inpainted[1][3:]  # the shares of missing pixels differ


def test_other_images_than_the_photographs_raise(tmp_path):
    with pytest.raises(ValueError, match="leave out --images=folder:here"):
        denoising.run(Results(tmp_path, "denoising", "folder:here"), SIZE)


@pytest.mark.slow
def test_bm3d_denoises_gray_and_coloured_pictures():
    pytest.importorskip("bm3d")
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 24, dtype=np.float32)[:, None, None], (24, 24, 3))
    for clean in (ramp[..., :1], ramp * np.float32([1, 0.5, 0.2])):
        noise = np.random.default_rng(0).normal(size=clean.shape)
        noisy = clean + np.float32(0.1 * noise)
        restored = denoising.by_bm3d(noisy, 0.1)
        assert restored.shape == clean.shape
        assert denoising.psnr(restored, clean) > denoising.psnr(noisy, clean) + 6


def test_patches_get_the_first_number_of_atoms_that_is_enough():
    rng = np.random.default_rng(0)
    atoms = np.linalg.qr(rng.normal(size=(64, 64)))[0].astype(np.float32)
    counts = np.array([0, 1, 2, 3, 8])
    rows = np.stack([atoms[:count].sum(0) for count in counts])
    found = denoising.sparsest(rows, atoms, np.full(len(rows), 1e-4, np.float32), stages=(2, 8))
    np.testing.assert_allclose(found, rows, atol=1e-2)


def test_gray_pictures_are_denoised_by_means():
    flat = np.full((24, 24, 1), 0.5, np.float32)
    noisy = flat + np.float32(0.1 * np.random.default_rng(0).normal(size=flat.shape))
    restored = denoising.by_means(noisy, 0.1)
    assert restored.shape == flat.shape
    assert denoising.psnr(restored, flat) > denoising.psnr(noisy, flat) + 6
