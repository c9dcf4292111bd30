"""Does to a run what can go wrong with one, and prints a line a fault.

    python -m experiments.faults [--only=sigkill,no_room] [--workdir=runs/faults]

Fails if a fault was not survived each time it was tried. What each line means is in the docstring
of the function it names. Without the right to mount a file system: `unshare -rm make faults`.
"""

import logging
import os
import pathlib
import shutil
import sys
import time

from absl import app, flags
from absl import logging as absl_logging

from experiments.faults import devices, disks, endurance, kills, numbers
from experiments.faults.tally import Tally

FAULTS = {
    function.__name__: function
    for function in (
        kills.sigkill, kills.told_to_stop, kills.two_trainers,
        disks.damaged_checkpoints, disks.no_room, disks.no_room_for_data, disks.no_permission,
        disks.planted_files,
        numbers.not_finite, numbers.bad_images, numbers.any_arguments, numbers.loader_threads,
        devices.numbers_of_devices, devices.other_numbers_of_devices, devices.lost_process,
        devices.told_together,
        endurance.second_start, endurance.upkeep, endurance.long_run,
    )
}  # fmt: skip
ONLY = flags.DEFINE_list("only", list(FAULTS), f"Faults to try, of {', '.join(FAULTS)}.")
WORKDIR = flags.DEFINE_string("workdir", "runs/faults", "Where the runs live that suffer.")


def main(argv):
    unknown = set(ONLY.value) - set(FAULTS)
    if unknown or len(argv) > 1:
        raise app.UsageError(f"unknown faults {sorted(unknown)} or arguments {argv[1:]}.")
    absl_logging.set_verbosity(absl_logging.ERROR)
    logging.getLogger("laser_jax").setLevel(logging.WARNING)
    workdir = pathlib.Path(WORKDIR.value).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    share_what_all_runs_need(workdir)
    tallies = []
    for name in ONLY.value:
        directory = workdir / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        tallies.append(suffer(name, directory))
    sys.exit(0 if all(tally.good for tally in tallies) else 1)


def share_what_all_runs_need(workdir):
    """One prepared data set and one compilation cache for all processes."""
    from laser_jax.data import prepare

    os.environ["TFDS_DATA_DIR"] = str(workdir / "data")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(workdir / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    prepare("photo_patches", image_size=32, data_dir=os.environ["TFDS_DATA_DIR"])


def suffer(name, directory):
    """Tries a fault, prints its line and returns its `Tally`."""
    start = time.monotonic()
    tally = Tally(name)
    FAULTS[name](tally, directory)
    print(
        f"{name:<25} tried {tally.tried:>3}  survived {tally.survived:>3}  lost {tally.lost}"
        f"  {time.monotonic() - start:>4.0f} s  {tally.seen}",
        flush=True,
    )
    print(*tally.failures, sep="\n\n", file=sys.stderr, flush=True)
    return tally


if __name__ == "__main__":
    app.run(main)
