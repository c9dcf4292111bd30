"""python -m laser_jax compress and decompress, on a stored run."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import laser_jax
from laser_jax import pixels
from laser_jax.__main__ import main
from laser_jax.evaluation.codec import fit_codec, write_tables
from tests.test_reconstruct import pictures, workdir  # noqa: F401


@pytest.fixture(scope="module")
def ready(workdir, tmp_path_factory):  # noqa: F811
    """The stored run with tables."""
    path = tmp_path_factory.mktemp("ready") / "vq"
    shutil.copytree(workdir, path)
    trained = laser_jax.load(path)
    images = np.random.default_rng(0).integers(256, size=(16, 32, 32, 3), dtype=np.uint8)
    codec = fit_codec(trained.model, trained.variables, images, images=16, batch_size=16)
    write_tables(path, int(trained.state.step), codec.tables)
    return path


def run(command, run_dir, out, *names):
    return main([command, f"--workdir={run_dir}", f"--out={out}", *map(str, names)])


def test_pictures_come_back_in_their_own_size(ready, pictures, capsys):  # noqa: F811
    files, back = pictures / "files", pictures / "back"
    assert run("compress", ready, files, pictures / "odd size.png", pictures / "pictures") == 0
    said = capsys.readouterr().out
    assert said.count(" dB\n") == 3 and "bytes in all" in said and "bits a pixel" in said
    names = sorted(path.relative_to(files).as_posix() for path in files.rglob("*.laser"))
    assert names == ["below/gray.laser", "odd size.laser", "square.laser"]
    assert run("decompress", ready, back, files) == 0
    assert Image.open(back / "below/gray.png").size == (50, 37)
    assert Image.open(back / "odd size.png").size == (50, 37)
    data = (files / "square.laser").read_bytes()
    (expected,) = laser_jax.load(ready).decompress([data])
    np.testing.assert_array_equal(np.asarray(Image.open(back / "square.png")), expected)


@pytest.mark.slow  # a process that imports JAX
def test_another_process_with_one_thread_decodes_the_same_picture(ready, pictures):  # noqa: F811
    files, back = pictures / "files", pictures / "back"
    assert run("compress", ready, files, pictures / "odd size.png") == 0
    (expected,) = laser_jax.load(ready).decompress([(files / "odd size.laser").read_bytes()])
    program = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from laser_jax.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "decompress", f"--workdir={ready}", f"--out={back}"]
    subprocess.run([*command, str(files)], check=True, timeout=300)
    np.testing.assert_array_equal(np.asarray(Image.open(back / "odd size.png")), expected)


def test_damaged_file_is_named_and_the_others_are_written(ready, pictures, capsys):  # noqa: F811
    files, back = pictures / "files", pictures / "back"
    assert run("compress", ready, files, pictures / "pictures") == 0
    damaged = files / "square.laser"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert run("decompress", ready, back, files) == 1
    error = capsys.readouterr().err
    assert "square.laser cannot be read: the file is damaged" in error and "1 of 2 files" in error
    assert (back / "below/gray.png").exists() and not (back / "square.png").exists()


def test_picture_that_no_file_holds_is_named_and_the_others_are_written(tmp_path, capsys):
    folder, files = tmp_path / "pictures", tmp_path / "files"
    folder.mkdir()
    for name, shape in (("a long.png", (1, 70_000)), ("b small.png", (8, 8))):
        Image.fromarray(np.zeros(shape, np.uint8)).save(folder / name)
    assert main(["compress", "--codec=pixels", f"--out={files}", str(folder)]) == 1
    said = capsys.readouterr()
    assert "a long.png cannot be converted: a file holds sides up to 65536" in said.err
    assert "1 of 2 pictures could not be converted" in said.err and "bytes in all" in said.out
    assert [path.name for path in files.iterdir()] == ["b small.laser"]


def test_names_that_are_not_utf8_are_printed_with_escapes(ready, pictures, capsys):  # noqa: F811
    name, files, back = "\udcff", pictures / "files", pictures / "back"  # the byte 255
    (pictures / "pictures/square.JPG").rename(pictures / f"pictures/{name}.jpg")
    shutil.rmtree(pictures / "pictures/below")
    assert run("compress", ready, files, pictures / "pictures") == 0
    assert run("decompress", ready, back, files) == 0
    assert run("reconstruct", ready, pictures / f"out {name}", back) == 0
    assert capsys.readouterr().out.count(r"\udcff") == 5
    assert run("decompress", ready, back, pictures / f"{name}.laser") == 1
    assert r"\udcff.laser is no file" in capsys.readouterr().err


def test_run_without_tables_is_a_clear_error(workdir, pictures, capsys):  # noqa: F811
    for command in ("compress", "decompress"):
        assert run(command, workdir, pictures / "out", pictures / "odd size.png") == 1
        assert "has no tables of tokens for step 20" in capsys.readouterr().err
    assert not (pictures / "out").exists()


def test_pixel_codec_needs_no_run(ready, pictures, capsys):  # noqa: F811
    files, back = pictures / "files", pictures / "back"
    Image.open(pictures / "odd size.png").convert("L").save(pictures / "pictures/flat.png")
    options = ["--codec=pixels", "--quality=40", f"--out={files}"]
    assert main(["compress", *options, str(pictures / "pictures")]) == 0
    said = capsys.readouterr().out
    assert said.count(" dB\n") == 3 and "bytes in all" in said
    # Its files are recognised, with a run and without.
    square = pictures / "files/square.laser"
    assert main(["decompress", f"--out={back}", str(files)]) == 0
    assert run("decompress", ready, pictures / "again", square) == 0
    assert Image.open(back / "flat.png").mode == "L"
    shown = [np.asarray(Image.open(pictures / name / "square.png")) for name in ("back", "again")]
    np.testing.assert_array_equal(*shown)
    (expected,) = pixels.decompress([square.read_bytes()])
    np.testing.assert_array_equal(shown[0], expected)


def test_codec_options_that_do_not_fit_are_clear_errors(ready, pictures, capsys):  # noqa: F811
    name = str(pictures / "odd size.png")
    common = [f"--out={pictures / 'out'}", name]
    assert main(["compress", f"--workdir={ready}", "--quality=3", *common]) == 1
    assert "--quality is an option of --codec=pixels" in capsys.readouterr().err
    assert main(["compress", "--codec=pixels", "--quality=101", *common]) == 1
    assert "quality must be from 1 to 100, got 101" in capsys.readouterr().err
    assert main(["compress", "--codec=pixels", "--checkpoint=best", *common]) == 1
    assert "--checkpoint is an option of --workdir" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compress", *common])
    assert "--workdir --codec is required" in capsys.readouterr().err
    assert not (pictures / "out").exists()
    files = pictures / "files"
    assert run("compress", ready, files, name) == 0
    assert main(["decompress", f"--out={pictures / 'out'}", str(files)]) == 1
    error = capsys.readouterr().err
    assert "written by another model" in error and "Give --workdir of the run" in error
