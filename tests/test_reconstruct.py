"""python -m laser_jax reconstruct, on a stored run."""

import csv
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

import laser_jax
from laser_jax.__main__ import main
from laser_jax.commands import pictures as pictures_module
from laser_jax.commands import reconstruct

STORED = pathlib.Path(__file__).parent / "stored" / "vq.tar.gz"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored")
    with tarfile.open(STORED) as archive:
        archive.extractall(path, filter="data")
    return path / "vq"


@pytest.fixture
def pictures(tmp_path):
    """A PNG of odd sides, and a directory with a JPEG, a gray WebP below it, and a text."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(256, size=(37, 50, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "odd size.png")
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    Image.fromarray(rgb[:32, :32]).save(folder / "square.JPG", "JPEG")
    Image.fromarray(rgb[:37, :50, 0]).save(folder / "below" / "gray.webp")
    (folder / "notes.txt").write_text("no picture")
    return tmp_path


def run(workdir, pictures, *names, out="out", flags=()):
    paths = [str(pictures / name) for name in names]
    return main(["reconstruct", f"--workdir={workdir}", f"--out={pictures / out}", *flags, *paths])


def test_pictures_are_reconstructed_in_their_own_size(workdir, pictures, capsys):
    assert run(workdir, pictures, "odd size.png", "pictures") == 0
    out = pictures / "out"
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert found == ["below/gray.png", "odd size.png", "square.png"]
    assert Image.open(out / "odd size.png").size == (50, 37)
    assert Image.open(out / "below/gray.png").size == (50, 37)
    square = np.asarray(Image.open(pictures / "pictures" / "square.JPG"))
    expected = laser_jax.load(workdir).reconstruct(square[None])[0]
    np.testing.assert_allclose(
        np.asarray(Image.open(out / "square.png")), 255 * expected, atol=0.51
    )
    assert capsys.readouterr().out.count(" dB\n") == 4  # and their mean
    with open(out / "qualities.csv", newline="") as file:
        rows = {pathlib.Path(row["picture"]).name: row for row in csv.DictReader(file)}
    assert set(rows) == {"odd size.png", "square.JPG", "gray.webp"}
    row = rows["odd size.png"]
    assert (row["width"], row["height"]) == ("50", "37") and row["result"].endswith("odd size.png")
    original, found = (
        np.asarray(Image.open(path), float) / 255
        for path in (pictures / "odd size.png", out / "odd size.png")
    )
    psnr = -10 * np.log10(np.mean((original - found) ** 2))
    assert float(row["psnr"]) == pytest.approx(psnr, abs=1e-3) and -1 < float(row["ssim"]) < 1


def test_side_by_side_puts_originals_left_of_results(workdir, pictures):
    assert run(workdir, pictures, "odd size.png", flags=["--side-by-side"]) == 0
    found = np.asarray(Image.open(pictures / "out" / "odd size.png"))
    assert found.shape == (37, 100, 3)
    np.testing.assert_array_equal(found[:, :50], np.asarray(Image.open(pictures / "odd size.png")))


def test_existing_result_is_kept_unless_overwrite_is_given(workdir, pictures, capsys):
    (pictures / "out").mkdir()
    (pictures / "out" / "odd size.png").write_text("mine")
    assert run(workdir, pictures, "odd size.png") == 1
    assert (pictures / "out" / "odd size.png").read_text() == "mine"
    assert "--overwrite" in capsys.readouterr().err
    assert run(workdir, pictures, "odd size.png", flags=["--overwrite"]) == 0


def rows_of(out):
    with open(out / "qualities.csv", newline="") as file:
        return {pathlib.Path(row["result"]).name: row for row in csv.DictReader(file)}


def test_qualities_of_earlier_commands_are_kept(workdir, pictures, capsys):
    out = pictures / "out"
    assert run(workdir, pictures, "odd size.png") == 0
    assert run(workdir, pictures, "pictures/square.JPG") == 0
    first = rows_of(out)
    assert set(first) == {"odd size.png", "square.png"}
    (pictures / "other").mkdir()
    Image.new("RGB", (32, 32)).save(pictures / "other/square.png")
    assert run(workdir, pictures, "other", flags=["--overwrite"]) == 0
    second = rows_of(out)
    assert second["odd size.png"] == first["odd size.png"] and len(second) == 2
    assert second["square.png"]["psnr"] != first["square.png"]["psnr"]
    (out / "qualities.csv").write_text("mine")
    assert run(workdir, pictures, "pictures/below/gray.webp") == 1
    assert "qualities.csv is no file of this command" in capsys.readouterr().err
    assert (out / "qualities.csv").read_text() == "mine" and not (out / "gray.png").exists()


def test_qualities_are_written_when_an_error_ends_the_command(workdir, pictures, monkeypatch):
    real, calls = pictures_module.write_picture, []

    def full(path, image):
        if len(calls) == 1:
            raise OSError("no space left")
        calls.append(path)
        real(path, image)

    monkeypatch.setattr(reconstruct, "write_picture", full)
    assert run(workdir, pictures, "odd size.png", "pictures") == 1
    assert set(rows_of(pictures / "out")) == {"odd size.png"}


def test_pictures_of_one_name_keep_their_suffixes(workdir, pictures):
    image = Image.open(pictures / "pictures" / "square.JPG")
    image.save(pictures / "pictures" / "square.png")
    assert run(workdir, pictures, "pictures") == 0
    found = {path.name for path in (pictures / "out").glob("*.png")}
    assert found == {"square.JPG.png", "square.png.png"}


def test_unreadable_picture_is_named_and_the_others_are_written(workdir, pictures, capsys):
    (pictures / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(workdir, pictures, "pictures") == 1
    error = capsys.readouterr().err
    assert "broken.png cannot be read" in error and "1 of 3 pictures" in error
    assert (pictures / "out" / "square.png").exists()


@pytest.mark.parametrize(
    "names, out, message",
    [
        (["missing.png"], "out", "missing.png is no file and no directory"),
        (["empty"], "out", "has no JPEG, PNG or WebP picture"),
        (["odd size.png"], ".", "is one of the pictures; choose another --out"),
        (["odd size.png", "empty/../odd size.png"], "out", "would both be written to"),
    ],
)
def test_bad_paths_are_errors_before_anything_is_written(
    names, out, message, workdir, pictures, capsys
):
    (pictures / "empty").mkdir()
    assert run(workdir, pictures, *names, out=out) == 1
    assert message in capsys.readouterr().err
    assert not (pictures / "out").exists()


def test_workdir_without_a_run_is_a_clear_error(pictures, capsys):
    assert run(pictures / "nowhere", pictures, "odd size.png") == 1
    assert "holds no run" in capsys.readouterr().err and not (pictures / "out").exists()
