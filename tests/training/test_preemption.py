import os
import signal
import subprocess
import sys

import jax
import pytest

from laser_jax.training import preemption


def test_workdir_is_locked_by_one_process_until_it_ends_even_by_a_kill(tmp_path):
    script = "import time\nfrom laser_jax.training.preemption import lock_workdir\n"
    script += f"with lock_workdir({str(tmp_path)!r}):"
    script += "\n    print('held', flush=True)\n    time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    message = f"the workdir .* is in use by process {holder.pid} on {os.uname().nodename}"
    with pytest.raises(preemption.WorkdirInUse, match=message), preemption.lock_workdir(tmp_path):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with preemption.lock_workdir(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    with preemption.lock_workdir(tmp_path):  # released at the end of the block too
        pass


def test_stop_signal_reports_sigterm_and_restores_the_handlers():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with preemption.StopSignal() as stop:
        assert stop.reason(1) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason(1) == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_second_signal_ends_the_process_immediately():
    # Short sleeps: a signal that arrives just before a sleep does not interrupt it.
    script = "import time\nfrom laser_jax.training.preemption import StopSignal\nwith StopSignal():"
    script += "\n    print('on', flush=True)\n    for _ in range(30_000): time.sleep(0.01)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGINT)
        # After the first one is received, because two pending signals become one.
        assert process.stderr.readline().startswith("SIGINT: stopping after this step")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=100) == -signal.SIGINT


def test_error_of_a_peer_process_raises_lost_process(monkeypatch):
    lost = ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer\nand more")
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(preemption.LostProcess, match="(Gloo .* by peer).*every host again.*runs/a"),
        preemption.detect_lost_process("runs/a"),
    ):
        raise lost
    for error in (preemption.Stopped("told to"), ValueError("bad value")):
        with pytest.raises(type(error)) as raised, preemption.detect_lost_process("runs/a"):
            raise error
        assert raised.value is error
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    with pytest.raises(ValueError) as raised, preemption.detect_lost_process("runs/a"):
        raise lost
    assert raised.value is lost


def test_process_that_lost_a_peer_exits_without_waiting_for_it():
    script = "import atexit, time\nfrom laser_jax.training import preemption"
    script += "\natexit.register(lambda: time.sleep(60))"
    script += "\npreemption.exit_stopped(preemption.LostProcess('one died'))"
    left = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert left.returncode == 75 and "one died" in left.stderr
