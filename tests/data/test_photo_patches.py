"""photo_patches: the windows, and the cache they are prepared into."""

import hashlib
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from laser_jax.data import DataUnavailable, open_source, prepare
from laser_jax.data import photo_patches as pp

REPOSITORY = pathlib.Path(__file__).parents[2]


def open_split(split, data_dir):
    return open_source("photo_patches", split=split, image_size=32, data_dir=data_dir)


def window_count(name):
    height, width, _ = pp.read_photograph(name).shape
    return sum(
        ((height - side) // (side // 2) + 1) * ((width - side) // (side // 2) + 1)
        for side in (32, 64, 128)
    )


@pytest.mark.parametrize("split", pp.PHOTOGRAPHS)
def test_a_split_has_every_window_of_its_photographs(split, photo_patches_dir):
    expected = sum(window_count(name) for name in pp.PHOTOGRAPHS[split])
    assert len(open_split(split, photo_patches_dir)) == expected


def test_window_counts_equal_the_documented_ones():
    counts = {s: sum(map(window_count, names)) for s, names in pp.PHOTOGRAPHS.items()}
    assert counts == {"train": 6876, "validation": 581, "test": 2339}


def test_no_photograph_is_in_two_splits():
    names = [name for names in pp.PHOTOGRAPHS.values() for name in names]
    assert len(set(names)) == len(names) == len(pp.FILES)
    assert pp.PHOTOGRAPHS["validation"] == ("chelsea",)
    assert pp.PHOTOGRAPHS["test"] == ("coffee", "rocket")


def test_a_photograph_is_the_one_its_package_loads():
    import skimage.data

    np.testing.assert_array_equal(pp.read_photograph("coffee"), skimage.data.coffee())


def test_the_first_windows_of_test_are_coffee_from_the_top_left(photo_patches_dir):
    test, coffee = open_split("test", photo_patches_dir), pp.read_photograph("coffee")
    np.testing.assert_array_equal(test[0], coffee[:32, :32])
    np.testing.assert_array_equal(test[1], coffee[:32, 16:48])
    columns = (coffee.shape[1] - 32) // 16 + 1
    np.testing.assert_array_equal(test[columns], coffee[16:48, :32])


def test_the_last_window_of_test_is_rocket_at_128_pixels(photo_patches_dir):
    test, rocket = open_split("test", photo_patches_dir), pp.read_photograph("rocket")
    bottom, right = (128 + (side - 128) // 64 * 64 for side in rocket.shape[:2])
    window = rocket[bottom - 128 : bottom, right - 128 : right].astype(float)
    mean = window.reshape(32, 4, 32, 4, 3).mean((1, 3))
    np.testing.assert_array_equal(test[len(test) - 1], np.floor(mean + 0.5))


def test_area_reduction_rounds_the_mean():
    photograph = np.zeros((64, 64, 3), np.uint8)
    photograph[::2, ::2] = 2  # mean of each 2x2 block 0.5, up to 1
    photograph[0, 0] = 1  # 0.25, down to 0
    (window,) = pp.cut_windows(photograph, 2)
    assert window[0, 0, 0] == 0
    assert (window.reshape(-1, 3)[1:] == 1).all()


def test_a_photograph_may_be_as_small_as_a_window_and_no_smaller():
    with pytest.raises(ValueError):
        pp.cut_windows(np.zeros((31, 100, 3), np.uint8), 1)
    assert len(pp.cut_windows(np.zeros((32, 32, 3), np.uint8), 1)) == 1


def test_windows_equal_those_of_the_stored_digest():
    """If this fails the windows changed: raise `PhotoPatches.VERSION`, then the digest."""
    chelsea = pp.read_photograph("chelsea")  # a PNG: no decoder's rounding in it
    digest = hashlib.sha256()
    for reduction in pp.REDUCTIONS:
        digest.update(pp.cut_windows(chelsea, reduction).tobytes())
    assert str(pp.PhotoPatches.VERSION) == "1.0.0"
    assert digest.hexdigest()[:16] == "8d1e6d58e613cc0a"


def test_the_description_names_photographs_and_windows(photo_patches_dir):
    assert open_split("test", photo_patches_dir).description == (
        "photo_patches test: coffee, rocket; 32x32 windows area-resized from 32/64/128"
    )


def test_preparing_again_changes_nothing(photo_patches_dir):
    def state():
        return {f: f.stat().st_mtime_ns for f in photo_patches_dir.rglob("*.array_record*")}

    before = state()
    prepare("photo_patches", image_size=32, data_dir=photo_patches_dir)
    assert state() == before and len(before) == 3


def test_missing_photograph_is_named_in_the_error(monkeypatch, tmp_path):
    monkeypatch.setitem(pp.FILES, "coffee", ("skimage", "data/nothing.png"))
    with pytest.raises(DataUnavailable, match=r"'coffee'.*'skimage'.*nothing\.png"):
        open_split("test", tmp_path)


@pytest.fixture
def one_photograph(monkeypatch):
    monkeypatch.setattr(pp, "PHOTOGRAPHS", dict.fromkeys(pp.PHOTOGRAPHS, ("chelsea",)))


def test_an_interrupted_preparation_leaves_nothing_to_read(one_photograph, monkeypatch, tmp_path):
    def interrupted(photograph, reduction):
        yield from [photograph[:32, :32]] * 3
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pp, "cut_windows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_split("train", tmp_path)
    # What a killed process would leave beside it.
    half = tmp_path / "photo_patches" / "incomplete.ABCDEF_1.0.0"
    half.mkdir(parents=True)
    (half / "photo_patches-train.array_record-00000-of-00001").write_bytes(b"half")
    assert len(open_split("train", tmp_path)) == window_count("chelsea")


def test_a_cache_with_a_file_missing_raises(photo_patches_dir, tmp_path):
    shutil.copytree(photo_patches_dir, tmp_path, dirs_exist_ok=True)
    (lost,) = tmp_path.rglob("*test.array_record*")
    lost.unlink()
    with pytest.raises(DataUnavailable, match=r"not whole \(1 files missing.*delete"):
        open_split("train", tmp_path)


def test_a_cache_without_its_index_raises(photo_patches_dir, tmp_path):
    shutil.copytree(photo_patches_dir, tmp_path, dirs_exist_ok=True)
    (tmp_path / "photo_patches" / "1.0.0" / "dataset_info.json").unlink()
    with pytest.raises(DataUnavailable, match=r"not whole.*delete"):
        open_split("train", tmp_path)


def test_processes_that_prepare_at_once_agree(tmp_path):
    code = f"""
import laser_jax.data.photo_patches as pp
from laser_jax.data import open_source
pp.PHOTOGRAPHS = dict.fromkeys(pp.PHOTOGRAPHS, ("chelsea",))
for split in pp.PHOTOGRAPHS:
    source = open_source("photo_patches", split=split, image_size=32, data_dir={str(tmp_path)!r})
    print(len(source), source[0].sum())
"""
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert b"\r" not in results[0][1]  # no progress bar where there is no terminal


def test_gray_windows_are_the_luma_of_the_windows(photo_patches_dir):
    data = {"image_size": 32, "data_dir": photo_patches_dir}
    colour = open_source("photo_patches", split="test", **data)[5]
    gray = open_source("photo_patches", split="test", channels=1, **data)[5]
    np.testing.assert_array_equal(gray[..., 0], Image.fromarray(colour).convert("L"))
