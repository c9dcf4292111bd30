"""Batches that processes read, and random parts of whole images."""

import itertools

import numpy as np
import pytest
from PIL import Image

from laser_jax.data import ImageSource, open_source, train_batches


def first(source, count, **options):
    return list(itertools.islice(train_batches(source, batch_size=4, seed=3, **options), count))


@pytest.mark.slow  # each process imports the libraries
def test_processes_read_the_batches_of_threads_in_order(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(256, size=(24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    source = open_source(f"folder:{tmp_path}", split="train", image_size=16)
    for crop in (0.5, 1.0):
        options = {"start_step": 5, "min_crop_area": crop}
        found = first(source, 6, num_workers=2, **options)
        np.testing.assert_array_equal(found, first(source, 6, **options))


def test_random_parts_come_from_whole_images_and_depend_on_seed_and_step_alone():
    whole = np.arange(8 * 16, dtype=np.uint8).reshape(8, 16, 1)
    source = ImageSource(
        "n", "train", "", range(5), load=lambda i: whole[:, 4:12], load_whole=lambda i: whole
    )
    batches = first(source, 8, min_crop_area=0.1)
    assert batches[0].shape == (4, 8, 8, 1) and batches[0].dtype == np.uint8
    columns = np.concatenate(batches) % 16
    assert columns.min() == 0 and columns.max() == 15  # of the whole, not of its centre
    assert len({image.tobytes() for batch in batches for image in batch}) == 32
    np.testing.assert_array_equal(first(source, 3, start_step=5, min_crop_area=0.1), batches[5:])
