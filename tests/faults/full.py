"""Every fault at full length, and a table that counts them: half an hour.

    make faults, or python -m pytest tests/faults/full.py [-k "sigkill or full_disk"]

The docstring of a fault's function says what a run must do. Mounting the small disks needs root, or
`unshare -rm make faults`. pytest does not collect this file by itself; `test_faults.py` is the
quick part.
"""

import os
import time

import pytest

os.environ.pop("XLA_FLAGS", None)  # the suite's two devices and quick compilation are not a user's

from tests.faults import devices, disks, endurance, kills, numbers
from tests.faults.tally import Tally

FAULTS = (
    kills.sigkill, kills.stop_signals, kills.two_trainers,
    disks.damaged_checkpoints, disks.full_disk, disks.full_disk_while_preparing,
    disks.no_permission, disks.planted_files,
    numbers.not_finite, numbers.bad_images, numbers.any_arguments, numbers.loader_threads,
    devices.numbers_of_devices, devices.other_numbers_of_devices, devices.lost_process,
    devices.stop_signal_to_one_process,
    endurance.second_start, endurance.overhead, endurance.long_run,
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_run_recovers_from_fault(fault, tmp_path, photo_patches_dir, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(photo_patches_dir))
    tally, start = Tally(fault.__name__), time.monotonic()
    fault(tally, tmp_path)
    with capsys.disabled():
        print(f"\n{tally}  ({time.monotonic() - start:.0f} s)", flush=True)
    assert tally.passed, "\n\n".join(tally.failures)
