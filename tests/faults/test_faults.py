"""The quick part of `make faults`: the same functions, few trials."""

import signal

import pytest

from tests.faults import kills, numbers
from tests.faults.tally import Tally, check, check_kept

QUICK = {
    kills.sigkill: {
        "kills": 2,
        "settings": ("num_train_steps=100", "log_every_steps=5", "eval_every_steps=50"),
    },
    kills.stop_signals: {"signals": (signal.SIGTERM,)},
    numbers.bad_images: {},
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", QUICK, ids=lambda fault: fault.__name__)
def test_a_run_recovers_from_a_fault(fault, tmp_path, photo_patches_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(photo_patches_dir))
    tally = Tally(fault.__name__)
    fault(tally, tmp_path, **QUICK[fault])
    assert tally.passed, "\n".join(tally.failures)
    assert tally.lost == 0


def test_failed_trials_are_counted_and_reported():
    tally = Tally("fault")
    assert not tally.passed  # not tried yet
    with tally.trial("first"):
        pass
    assert tally.passed
    with tally.trial("second"):
        check(False, "exit code 1")
    with tally.trial("third"):
        check_kept(False, "checkpoint 10 is gone")
    with tally.trial("fourth"):
        raise KeyError("unforeseen")
    assert (tally.tried, tally.survived, tally.lost, tally.passed) == (4, 1, 1, False)
    assert "fault, second: exit code 1" in tally.failures[0]
    assert "KeyError: 'unforeseen'" in tally.failures[2]
