"""The quick part of `make faults`: the same harnesses, few trials."""

import signal

import pytest

from experiments.faults import kills, numbers
from experiments.faults.tally import Tally, check, check_kept

QUICK = {
    kills.sigkill: {
        "kills": 2,
        "settings": ("num_train_steps=100", "log_every_steps=5", "eval_every_steps=50"),
    },
    kills.told_to_stop: {"signals": (signal.SIGTERM,)},
    numbers.bad_images: {},
}


@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.__name__)
def test_a_fault_is_survived(fault, tmp_path, photo_patches_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(photo_patches_dir))
    tally = Tally(fault.__name__)
    fault(tally, tmp_path, **QUICK[fault])
    assert tally.good, "\n".join(tally.failures)
    assert tally.lost == 0


def test_a_fault_that_is_not_survived_is_counted_and_told():
    tally = Tally("fault")
    assert not tally.good  # what was never tried is not survived
    with tally.trial("first"):
        pass
    assert tally.good
    with tally.trial("second"):
        check(False, "exit code 1")
    with tally.trial("third"):
        check_kept(False, "checkpoint 10 is gone")
    with tally.trial("fourth"):
        raise KeyError("unforeseen")
    assert (tally.tried, tally.survived, tally.lost, tally.good) == (4, 1, 1, False)
    assert "fault, second: exit code 1" in tally.failures[0]
    assert "KeyError: 'unforeseen'" in tally.failures[2]
