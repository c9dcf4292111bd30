"""open_source: the contract of every data set, and errors for invalid names."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from laser_jax.data import DATASETS, ImageSource, open_source, open_split

REPOSITORY = pathlib.Path(__file__).parents[2]


def test_data_sets_have_their_documented_names():
    assert DATASETS == (
        "photo_patches",
        "cifar10",
        "celeb_a",
        "imagenette",
        "imagenet2012",
        "digits",
        "folder:PATH",
    )


def test_error_for_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown data set 'cifar'; choose from photo_patches,"):
        open_source("cifar", split="train", image_size=32)


def test_error_for_an_unknown_split_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown split 'val'; choose from train, validation"):
        open_source("photo_patches", split="val", image_size=32)


@pytest.mark.parametrize("name", ["photo_patches", "cifar10"])
def test_a_size_that_a_set_does_not_have_raises_before_preparing(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} has images of 32 pixels only.*64"):
        open_source(name, split="train", image_size=64, data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_image_size_of_zero_raises(tmp_path):
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        open_source(f"folder:{tmp_path}", split="train", image_size=0)


def test_index_beyond_the_length_of_a_source_raises():
    source = ImageSource("numbers", "test", "", records=range(3), load=np.full(1, 7).__add__)
    assert [image[0] for image in source] == [7, 8, 9]
    with pytest.raises(IndexError, match="image 3 of 3 in numbers test"):
        source[3]


def test_a_remembered_image_is_loaded_once():
    loads = []
    source = ImageSource("n", "test", "", records=range(3), load=loads.append)
    source[1], source[1]
    assert loads == [1, 1]

    def load(record):
        loads.append(record)
        return np.zeros(1)

    loads.clear()
    source = ImageSource("n", "test", "", records=range(3), load=load, remember=True)
    source[1], source[1], source[2]
    assert loads == [1, 2]


def test_importing_and_reading_load_neither_tensorflow_nor_the_photographs_packages(
    photo_patches_dir,
):
    code = f"""
import sys
import laser_jax.data
assert not {{"jax", "grain", "tensorflow_datasets"}} & set(sys.modules)
source = laser_jax.data.open_source(
    "photo_patches", split="test", image_size=32, data_dir={str(photo_patches_dir)!r})
source[0]
assert not {{"jax", "tensorflow", "skimage", "sklearn", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, timeout=300)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_channels_other_than_1_and_3_raise(tmp_path, channels):
    with pytest.raises(ValueError, match=f"channels must be 1 .* or 3 .*, got {channels}"):
        open_source(f"folder:{tmp_path}", split="train", image_size=8, channels=channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_open_split_follows_the_config(tiny_config, channels):
    tiny_config.data.channels = channels
    assert open_split(tiny_config.data, "test")[0].shape == (32, 32, channels)
