"""Gray images (`data.channels = 1`) from the data to the figures."""

import json

import numpy as np
import pytest

import laser_jax
from laser_jax import evaluate
from laser_jax.figures import comparisons, heatmaps
from laser_jax.figures.sheets import atom_sheet, reconstruction_grid
from laser_jax.sparse import SparseCode
from laser_jax.training import loop


@pytest.mark.parametrize("lpips", [0.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_gray_run_trains_evaluates_and_loads(lpips, tiny_config, few_images, tmp_path):
    tiny_config.data.update(name=f"folder:{few_images}", channels=1, batch_size=8)
    tiny_config.eval.batch_size = 4
    tiny_config.num_train_steps = 2
    tiny_config.model.bottleneck = "dl"
    tiny_config.model.patch_size = 4
    tiny_config.loss.update(
        perceptual_weight=lpips, perceptual_net="alex", mr_dct_weight=0.1, mr_grad_weight=0.1
    )
    tiny_config.adversarial.update(weight=0.1, start_step=1, warmup_steps=0, num_hiddens=8)
    tiny_config.optimizer.warmup_steps = 1
    state = loop.train(tiny_config, tmp_path)
    assert state.params["encoder"]["DownConv_0"]["kernel"].shape[2] == 1
    found = evaluate.evaluate(tiny_config, tmp_path)
    assert found["psnr"] > 5 and (found.get("perceptual_loss", 0) > 0) == (lpips > 0)
    assert json.loads((tmp_path / "config.json").read_text())["data"]["channels"] == 1
    for name in ("reconstructions.png", "test_reconstructions.png"):
        assert (tmp_path / name).stat().st_size > 5_000

    tiny_config.data.channels = 3
    with pytest.raises(ValueError, match="different model:\n  data.channels: 1 stored, 3 given"):
        evaluate.evaluate(tiny_config, tmp_path)

    trained = laser_jax.load(tmp_path)
    images = np.random.default_rng(0).integers(256, size=(2, 32, 32, 1), dtype=np.uint8)
    assert trained.reconstruct(images).shape == images.shape
    np.testing.assert_allclose(
        trained.decode(trained.encode(images)), trained.reconstruct(images), atol=1e-5
    )
    with pytest.raises(ValueError, match=r"images must have shape \(b, H, W, 1\)"):
        trained.reconstruct(images.repeat(3, -1))


def test_figures_show_gray_images_in_gray():
    a, b = np.random.default_rng(0).random((2, 3, 8, 8, 1)).astype(np.float32)
    in_rgb = [x.repeat(3, -1) for x in (a, b)]
    grid = reconstruction_grid(a, b)
    np.testing.assert_allclose(grid, reconstruction_grid(*in_rgb), atol=1e-6)
    np.testing.assert_array_equal(atom_sheet(a), atom_sheet(in_rgb[0]))
    code = SparseCode(np.zeros((3, 2, 2, 1), int), np.ones((3, 2, 2, 1)))
    figures = [
        comparisons.reconstruction_comparison(a, {"vq": b}),
        heatmaps.heatmap_figure(a, heatmaps.code_maps(code, has_coefficients=False)),
    ]
    for figure in figures:
        np.testing.assert_allclose(figure.axes[0].images[0].get_array(), in_rgb[0][0])
    lines = comparisons.channel_slice(a[0, 4], {"vq": b[0, 4]})
    assert [axes.get_ylabel() for axes in lines.axes] == ["gray"]
