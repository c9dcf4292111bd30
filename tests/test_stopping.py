import os
import signal
import subprocess
import sys
import time

import pytest

from laser_jax import stopping


def test_a_workdir_is_held_by_one_process_and_released_however_that_ends(tmp_path):
    script = f"import time\nfrom laser_jax.stopping import hold\nwith hold({str(tmp_path)!r}):"
    script += "\n    print('held', flush=True)\n    time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = f"the workdir .* is in use: process {holder.pid} on {os.uname().nodename} trains"
    with pytest.raises(stopping.WorkdirInUse, match=message), stopping.hold(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with stopping.hold(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    with stopping.hold(tmp_path):  # released at the end too
        pass


def test_a_signal_is_a_wish_and_afterwards_what_it_was():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stopping.StopSignal() as stop:
        assert stop.reason(1) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason(1) == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_ends_at_once():
    script = "import time\nfrom laser_jax.stopping import StopSignal\nwith StopSignal():"
    script += "\n    print('on', flush=True)\n    time.sleep(1)\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT
