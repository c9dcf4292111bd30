"""Images per second of the input pipeline alone, without a training step.

    python -m benchmarks.pipeline [--threads=1,2,4] [--batch_size=64] [--num_batches=60]

Reads, decodes, crops, flips and batches as training does, from the prepared `photo_patches`
(array_record) and from folders of JPEG files of 32 and 256 pixels a side, which it makes. Compare
with the images per second of `benchmarks.step`: training waits for its data where these are fewer.
Each row is timed after its first batches; times are means a batch.
"""

import argparse
import itertools
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

from benchmarks.timing import number, print_table
from laser_jax.data import open_source, train_batches
from laser_jax.data.photo_patches import PHOTOGRAPHS, read_photograph


def write_folder(path, side, count):
    """Writes `count` random windows of the training photographs as JPEG files."""
    rng = np.random.default_rng(0)
    photographs = [read_photograph(name) for name in PHOTOGRAPHS["train"]]
    path.mkdir()
    for i in range(count):
        image = photographs[i % len(photographs)]
        top, left = (rng.integers(size - side + 1) for size in image.shape[:2])
        window = Image.fromarray(image[top : top + side, left : left + side])
        window.save(path / f"{i:04}.jpg", quality=90)


def time_batches(source, *, threads, batch_size, num_batches):
    """Returns the milliseconds that a batch takes, once the threads are busy."""
    batches = train_batches(
        source, batch_size=batch_size, seed=0, crop_padding=4, num_threads=threads
    )
    started = 2 * threads + 1  # batches that may have been read ahead
    times = [time.perf_counter() for _ in itertools.islice(batches, started + num_batches)]
    return 1e3 * (times[-1] - times[started - 1]) / num_batches


def pipeline_table(sources, threads, batch_size, num_batches):
    """Prints a row for each source and number of threads.

    Args:
      sources: name -> `ImageSource`.
      threads: numbers of threads.
      batch_size, num_batches: images a batch, batches a row.
    """
    rows = []
    for name, source in sources.items():
        for count in threads:
            ms = time_batches(source, threads=count, batch_size=batch_size, num_batches=num_batches)
            rows.append((f"{name}, threads {count}", number(ms), f"{1e3 * batch_size / ms:.0f}"))
    print_table(f"Input pipeline, batch {batch_size}", ["source", "ms", "images/s"], rows)


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline")
    parser.add_argument("--threads", default="1,2,4", help="batches read at once")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--num_batches", type=int, default=60, help="batches timed in each row")
    parser.add_argument("--data_dir", help="where photo_patches is prepared")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        sources = {
            "photo_patches (array_record), 32 pixels": open_source(
                "photo_patches", split="train", image_size=32, data_dir=options.data_dir
            )
        }
        for side in (32, 256):
            path = pathlib.Path(directory, str(side))
            write_folder(path, side, 4 * options.batch_size)
            sources[f"folder of JPEG files, {side} pixels"] = open_source(
                f"folder:{path}", split="train", image_size=side
            )
        threads = [int(count) for count in options.threads.split(",")]
        pipeline_table(sources, threads, options.batch_size, options.num_batches)


if __name__ == "__main__":
    main()
