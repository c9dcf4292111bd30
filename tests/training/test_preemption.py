import os
import signal
import subprocess
import sys

import jax
import pytest

from laser_jax.training import preemption


def test_a_workdir_is_held_by_one_process_and_released_however_that_ends(tmp_path):
    script = "import time\nfrom laser_jax.training.preemption import hold\n"
    script += f"with hold({str(tmp_path)!r}):"
    script += "\n    print('held', flush=True)\n    time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = f"the workdir .* is in use: process {holder.pid} on {os.uname().nodename} trains"
    with pytest.raises(preemption.WorkdirInUse, match=message), preemption.hold(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with preemption.hold(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    with preemption.hold(tmp_path):  # released at the end too
        pass


def test_a_signal_is_a_wish_and_afterwards_what_it_was():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with preemption.StopSignal() as stop:
        assert stop.reason(1) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason(1) == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_ends_at_once():
    script = "import time\nfrom laser_jax.training.preemption import StopSignal\nwith StopSignal():"
    script += "\n    print('on', flush=True)\n    time.sleep(300)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        # Only once the first one is received: two that are pending become one.
        assert process.stderr.readline().startswith("SIGINT: the step is finished")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=100) == -signal.SIGINT


def test_an_error_of_another_process_is_told_as_such(monkeypatch):
    lost = ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer\nand more")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(preemption.LostProcess, match="(Gloo .* by peer).*every host again.*runs/a"),
        preemption.needs_every_process("runs/a"),
    ):
        raise lost
    for error in (preemption.Stopped("told to"), ValueError("bad value")):
        with pytest.raises(type(error)) as raised, preemption.needs_every_process("runs/a"):
            raise error
        assert raised.value is error
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    with pytest.raises(ValueError) as raised, preemption.needs_every_process("runs/a"):
        raise lost
    assert raised.value is lost


def test_who_lost_a_process_leaves_without_waiting_for_it():
    script = "import atexit, time\nfrom laser_jax.training import preemption"
    script += "\natexit.register(lambda: time.sleep(60))"
    script += "\npreemption.leave(preemption.LostProcess('one is gone'))"
    left = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert left.returncode == 75 and "one is gone" in left.stderr
