"""Batches: order, augmentation, resuming and sharing among processes."""

import collections
import itertools
import time

import numpy as np
import pytest

from laser_jax.data import eval_batches, open_source, train_batches

COUNT = 37


@pytest.fixture
def source():
    """Image i is of the pixel i, but its left half, of i + 100."""
    images = np.empty((COUNT, 8, 8, 3), np.uint8)
    images[:] = np.arange(COUNT)[:, None, None, None]
    images[:, :, :4] += 100
    return list(images)


def take(batches, count):
    return np.stack(list(itertools.islice(batches, count)))


def ids(batches):
    return batches.reshape(-1, 8, 8, 3)[:, 0, 0, 0] % 100


AUGMENTED = {"batch_size": 8, "seed": 3, "crop_padding": 2}


def test_batches_are_uint8_of_the_given_size(source):
    batch = next(train_batches(source, batch_size=8, seed=0))
    assert batch.shape == (8, 8, 8, 3) and batch.dtype == np.uint8


def test_each_epoch_has_every_image_once(source):
    stream = ids(take(train_batches(source, batch_size=8, seed=0), 3 * COUNT))
    epochs = stream.reshape(24, COUNT)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(COUNT))


def test_epochs_are_shuffled_differently(source):
    stream = ids(take(train_batches(source, batch_size=COUNT, seed=0), 3))
    orders = {tuple(epoch) for epoch in stream.reshape(3, COUNT)}
    assert len(orders | {tuple(range(COUNT))}) == 4


def test_other_seeds_give_other_batches(source):
    first, again = (take(train_batches(source, **AUGMENTED), 6) for _ in range(2))
    other = take(train_batches(source, **{**AUGMENTED, "seed": 4}), 6)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("num_threads", [1, 4])
def test_batches_do_not_depend_on_the_number_of_threads(source, num_threads):
    expected = take(train_batches(source, **AUGMENTED), 12)
    found = take(train_batches(source, **AUGMENTED, num_threads=num_threads), 12)
    np.testing.assert_array_equal(found, expected)


def test_threads_keep_the_order_when_images_take_unequal_time(source):
    class Slow(list):
        def __getitem__(self, index):
            time.sleep(0.002 * (index % 5 == 0))
            return super().__getitem__(index)

    expected = take(train_batches(source, **AUGMENTED), 12)
    found = take(train_batches(Slow(source), **AUGMENTED, num_threads=4), 12)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("start_step", [1, 5, 40])
def test_a_run_started_late_continues_the_same_batches(source, start_step):
    expected = take(train_batches(source, **AUGMENTED), start_step + 3)[start_step:]
    found = take(train_batches(source, **AUGMENTED, start_step=start_step), 3)
    np.testing.assert_array_equal(found, expected)


def test_a_later_start_reads_no_earlier_images(source):
    reads = []

    class Counting(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    batches = train_batches(Counting(source), batch_size=8, seed=0, start_step=10**9, num_threads=1)
    next(batches)
    batches.close()
    assert len(reads) < 10 * 8


@pytest.mark.parametrize("start_step", [0, 7])
@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_rows_of_the_one_batch(source, process_count, start_step):
    arguments = {**AUGMENTED, "start_step": start_step}
    expected = take(train_batches(source, **arguments), 6)
    parts = [
        take(train_batches(source, **arguments, process_index=p, process_count=process_count), 6)
        for p in range(process_count)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), expected)


def test_half_of_the_images_are_flipped_and_differently_each_epoch(source):
    batches = take(train_batches(source, batch_size=COUNT, seed=0), 20)
    flipped = batches[:, :, 0, 0, 0] < 100
    np.testing.assert_array_equal(batches[:, :, 0, 7, 0] < 100, ~flipped)
    assert 0.4 < flipped.mean() < 0.6
    by_image = collections.defaultdict(set)
    for image, flip in zip(ids(batches), flipped.ravel(), strict=True):
        by_image[image].add(bool(flip))
    assert all(len(seen) == 2 for seen in by_image.values())


def test_images_without_augmentation_are_unchanged(source):
    (batch,) = take(train_batches(source, batch_size=COUNT, seed=0, flip=False), 1)
    np.testing.assert_array_equal(batch[np.argsort(ids(batch))], source)


def test_crops_are_windows_of_the_reflected_image():
    image = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = {
        padded[top : top + 6, left : left + 6].tobytes() for top in range(5) for left in range(5)
    }
    arguments = {"batch_size": 1, "seed": 0, "flip": False, "crop_padding": 2}
    crops = {crop.tobytes() for crop in take(train_batches([image], **arguments), 400)}
    assert crops == windows


def test_a_data_set_smaller_than_the_batch_raises(source):
    with pytest.raises(ValueError, match=r"too few images: a batch of 38 .* 37"):
        train_batches(source, batch_size=38, seed=0)
    assert len(next(train_batches(source, batch_size=37, seed=0))) == 37


@pytest.mark.parametrize("make", [train_batches, eval_batches])
def test_a_batch_that_does_not_divide_raises(source, make):
    seed = {"seed": 0} if make is train_batches else {}
    with pytest.raises(ValueError, match="batch_size 8 is not divisible by the 3 processes"):
        make(source, batch_size=8, process_count=3, **seed)


def test_read_error_of_an_image_is_raised_in_the_main_thread(source):
    class Broken(list):
        def __getitem__(self, index):
            raise OSError(f"image {index} is gone")

    with pytest.raises(OSError, match="is gone"):
        next(train_batches(Broken(source), batch_size=8, seed=0))


@pytest.mark.parametrize("batch_size", [1, 8, 36, 37, 38])
def test_evaluation_has_every_image_once_in_order(source, batch_size):
    batches = list(eval_batches(source, batch_size=batch_size))
    assert {(images.shape, mask.shape) for images, mask in batches} == {
        ((batch_size, 8, 8, 3), (batch_size,))
    }
    images, mask = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_array_equal(images[mask], source)
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < COUNT)
    assert not images[~mask].any() and len(mask) - COUNT < batch_size


@pytest.mark.parametrize("process_count", [2, 4])
def test_evaluation_is_shared_among_processes(source, process_count):
    expected = list(eval_batches(source, batch_size=8))
    parts = [
        list(eval_batches(source, batch_size=8, process_index=p, process_count=process_count))
        for p in range(process_count)
    ]
    for whole, *shares in zip(expected, *parts, strict=True):
        for array, pieces in zip(whole, zip(*shares, strict=True), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), array)


def test_photo_patches_can_be_batched(photo_patches_dir):
    source = open_source(
        "photo_patches", split="validation", image_size=32, data_dir=photo_patches_dir
    )
    (batch,) = take(train_batches(source, batch_size=64, seed=0, flip=False), 1)
    known = {image.tobytes() for image in source}
    assert {image.tobytes() for image in batch} <= known
    assert sum(mask.sum() for _, mask in eval_batches(source, batch_size=64)) == len(source)
