import numpy as np
from PIL import Image

from laser_jax.figures import atom_sheet, reconstruction_figure, reconstruction_grid


def test_grid_shows_originals_reconstructions_and_errors():
    original = np.zeros((4, 8, 6, 3))
    reconstruction = np.full_like(original, 0.1)
    grid = reconstruction_grid(original, reconstruction)
    assert grid.shape == (3 * 10, 4 * 8, 3)
    np.testing.assert_allclose(grid[1:9, 1:7], 0)
    np.testing.assert_allclose(grid[11:19, 9:15], 0.1)
    np.testing.assert_allclose(grid[21:29, 25:31], 0.4)  # four times the error
    assert grid[0, 0, 0] == 1  # white between the images


def test_sheet_holds_every_atom_once():
    atoms = np.broadcast_to(np.arange(7).reshape(7, 1, 1, 1) / 10, (7, 4, 4, 3))
    sheet = atom_sheet(atoms)
    assert sheet.shape == (3 * 6, 3 * 6, 3)
    np.testing.assert_allclose(
        sheet[1::6, 1::6, 0].ravel(), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1, 1], atol=1e-6
    )


def test_figure_is_written_as_png(tmp_path):
    images = np.random.default_rng(0).random((5, 16, 16, 3))
    reconstruction_figure(images, images, tmp_path / "figure.png", title="5 images")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.format == "PNG" and picture.width > 500
