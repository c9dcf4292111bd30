"""Batches of images that do not depend on how they are read.

The training stream is one endless list of images, epoch after epoch, each shuffled
differently. Batch t is its rows `[t * batch_size, (t + 1) * batch_size)`, read by index. `(seed,
t)` is therefore the complete state of the data, and resuming takes no time.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from laser_jax.data.images import random_crop


def train_batches(
    source,
    *,
    batch_size,
    seed,
    start_step=0,
    flip=True,
    crop_padding=0,
    min_crop_area=1.0,
    num_threads=2,
    num_workers=0,
    process_index=0,
    process_count=1,
):
    """Returns endless shuffled and augmented batches, from step `start_step` on.

    Batch t depends on `source`, `batch_size`, `seed`, `flip`, `crop_padding`, `min_crop_area` and t
    alone. Each epoch of `len(source)` images has every image once; a batch may span two epochs.

    Args:
      source: sequence of uint8 `(H, W, C)` images, safe to index from threads.
      batch_size: images in the batch of all processes together.
      seed: of order and augmentation, `0 <= seed < 2**32`.
      start_step: the step whose batch comes first.
      flip: mirrors an image left to right, half of the time.
      crop_padding: pixels by which an image is extended on each side by reflection,
        and then cut back to its size at a random place. 0 is off.
      min_crop_area: below 1 an image is a random part of the whole one, resized
        (`laser_jax.data.images.random_crop`), and `crop_padding` is not used.
      num_threads: batches read at once, in each process that reads.
      num_workers: processes that read; 0: this one alone. They import the program's main
        module, which must not start anything when it is imported.
      process_index, process_count: process p of P gets rows `[p B / P, (p + 1) B / P)`
        of the batch.

    Returns:
      Iterator of uint8 `(batch_size / process_count, H, W, 3)`.

    Raises:
      ValueError: if `batch_size` is not divisible by `process_count`, the source has fewer
        images than a batch, or a number is out of range; on reading, of an image that is not
        uint8 `(H, W, C)` or not like the first.
    """
    _check_at_least(0, crop_padding=crop_padding)
    if min_crop_area < 1:
        records, transform = range(len(source)), _RandomPart(source, flip, min_crop_area)
    else:
        records, transform = source, _Augmentation(source, flip, crop_padding)
    return shuffled_batches(
        records,
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        transform=transform,
        num_threads=num_threads,
        num_workers=num_workers,
        process_index=process_index,
        process_count=process_count,
    )


def shuffled_batches(
    source,
    *,
    batch_size,
    seed,
    start_step=0,
    transform=None,
    num_threads=2,
    num_workers=0,
    process_index=0,
    process_count=1,
):
    """Returns endless shuffled batches of any records, from step `start_step` on.

    Args:
      source: sequence of arrays, or tuples of them, safe to index from threads.
      transform: maps a record and a NumPy generator to a record; None: nothing changes.
      batch_size, seed, start_step, num_threads, num_workers, process_index, process_count: as for
        `train_batches`.

    Raises:
      ValueError: as `train_batches`.
    """
    local_size = _local_size(batch_size, process_index, process_count)
    _check_at_least(0, start_step=start_step, num_threads=num_threads, num_workers=num_workers)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {seed}.")
    if len(source) < batch_size:
        raise ValueError(
            f"too few images: a batch of {batch_size} is larger than the data set, {len(source)}."
        )
    import grain

    # Practically endless: grain's own endless length overflows in batches of one image.
    epochs = 2**62 // len(source)
    records = grain.MapDataset.source(source).seed(seed).shuffle().repeat(epochs)
    if transform is not None:
        records = records.random_map(transform)
    # Batches of the process' size follow one another: those of step t, of process 0 to P - 1.
    batches = records.batch(local_size)[start_step * process_count + process_index :: process_count]
    return iter(_read(batches, num_threads, num_workers))


@dataclasses.dataclass(frozen=True)
class _RandomPart:
    """Random parts of whole images, of the size of the source's images, and flips."""

    source: Sequence
    flip: bool
    least_area: float

    @functools.cached_property
    def size(self):
        return self.source[0].shape[:2]

    def __call__(self, index, rng):
        image = random_crop(self.source.whole(index), rng, self.size, self.least_area)
        return augment(image, rng, flip=self.flip, crop_padding=0)


@dataclasses.dataclass(frozen=True)
class _Augmentation:
    """Random crops and flips of images that have the shape of the source's first."""

    source: Sequence
    flip: bool
    crop_padding: int

    @functools.cached_property
    def shape(self):
        return self.source[0].shape

    def __call__(self, image, rng):
        _check_image(image, self.shape)
        return augment(image, rng, flip=self.flip, crop_padding=self.crop_padding)


def augment(image, rng, *, flip, crop_padding):
    """Returns an image `(H, W, C)` cropped and flipped at random; see `train_batches`.

    Args:
      image: the image.
      rng: a NumPy generator.
      flip, crop_padding: as for `train_batches`.
    """
    p = crop_padding
    if p:
        height, width, _ = image.shape
        top, left = rng.integers(2 * p + 1, size=2)
        rows, columns = _reflected(height, p), _reflected(width, p)
        image = image[rows[top : top + height, None], columns[left : left + width]]
    if flip and rng.integers(2):
        image = image[:, ::-1]
    return image


@functools.cache
def _reflected(size, padding):
    """Returns the indices of a row of pixels that is extended by reflection."""
    return np.pad(np.arange(size), padding, mode="reflect")


def eval_batches(source, *, batch_size, process_index=0, process_count=1):
    """Returns every image once, in order, in batches of one shape.

    Args:
      source: sequence of uint8 `(H, W, C)` images, safe to index from threads.
      batch_size: images in the batch of all processes together.
      process_index, process_count: as in `train_batches`.

    Returns:
      Iterator of `(images, mask)`: uint8 `(batch_size / process_count, H, W, 3)`, and
      bool `(batch_size / process_count,)`, False where the last batch was filled up
      with zeros.

    Raises:
      ValueError: if `batch_size` is not divisible by `process_count` or a number is out of
        range; on reading, of an image that is not uint8 `(H, W, C)` or not like the first.
    """
    local_size = _local_size(batch_size, process_index, process_count)
    import grain

    def batch(step):
        first = step * batch_size + process_index * local_size
        rows = range(first, min(first + local_size, len(source)))
        shape = source[0].shape
        images = np.zeros((local_size, *shape), np.uint8)
        for row, index in enumerate(rows):
            image = source[index]
            _check_image(image, shape)
            images[row] = image
        return images, np.arange(local_size) < len(rows)

    steps = -(-len(source) // batch_size)
    return iter(_read(grain.MapDataset.range(steps).map(batch), num_threads=2))


def _check_at_least(least, **numbers):
    for name, value in numbers.items():
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def _check_image(image, shape):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape != shape:
        raise ValueError(
            f"images must be uint8 (H, W, C), all of the first one's shape {shape}, got "
            f"{image.dtype} of shape {image.shape}."
        )


def _local_size(batch_size, process_index, process_count):
    _check_at_least(1, batch_size=batch_size, process_count=process_count)
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must be in [0, {process_count}), got {process_index}.")
    if batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} is not divisible by the {process_count} processes."
        )
    return batch_size // process_count


def _read(batches, num_threads, num_workers=0):
    import grain

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
    batches = batches.to_iter_dataset(options)
    if not num_workers:
        return batches
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain reads flags of its own, which keep their defaults
    # The batches stay in order.
    return batches.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers))
