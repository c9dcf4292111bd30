"""Stopping a run on a signal, lost processes, and the lock of a workdir."""

import contextlib
import logging
import os
import pathlib
import re
import signal
import socket
import sys

import jax
from jax.experimental.multihost_utils import reached_preemption_sync_point

from laser_jax.files import writing

log = logging.getLogger("laser_jax")

EXIT_CODE = 75  # sysexits' EX_TEMPFAIL: temporary failure, run the same command again


class Stopped(Exception):
    """A run received a signal to stop and has written its checkpoint."""


class LostProcess(Stopped):
    """Another process of this job died. Earlier checkpoints are kept."""


def exit_stopped(stopped):
    """Prints the reason and ends the process with `EXIT_CODE`."""
    print(stopped, file=sys.stderr, flush=True)
    if isinstance(stopped, LostProcess):
        os._exit(EXIT_CODE)  # sys.exit would wait for the other processes
    sys.exit(EXIT_CODE)


# Errors of the transports between processes (Gloo, NCCL, gRPC) when one of them dies.
_PEER_ERRORS = re.compile("gloo|nccl|heartbeat|coordination|connection reset|socket", re.IGNORECASE)


@contextlib.contextmanager
def detect_lost_process(workdir):
    """Raises LostProcess if an error in the block was caused by the death of another process."""
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or not _PEER_ERRORS.search(str(error)):
            raise
        raise LostProcess(
            f"another process of this job died ({str(error).splitlines()[0][:200]}). Run the same "
            f"command on every host again: it resumes from the newest checkpoint of {workdir}."
        ) from error


class WorkdirInUse(ValueError):
    """Another process is training in this workdir."""


@contextlib.contextmanager
def lock_workdir(workdir):
    """Locks a workdir for this process; the directory is created if it does not exist.

    The kernel releases the lock when the process ends, even if it is killed. A leftover `.lock`
    file blocks no later process.

    Raises:
      WorkdirInUse: if another process has locked it.
      OSError: if the workdir cannot be written.
    """
    import fcntl  # missing on Windows, where sparse coding still works

    path = pathlib.Path(workdir) / ".lock"
    with writing(f"the workdir {workdir}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 (closing the file releases the lock)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise WorkdirInUse(
                f"the workdir {workdir} is in use by {file.read().strip()}. Wait for it, stop it, "
                "or choose another --workdir."
            ) from error
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): do not start a second run here.", path, error)
        with writing(f"the workdir {workdir}"):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


class StopSignal:
    """Context manager: SIGTERM or SIGINT stops the run after the current step.

    A second signal ends the process immediately. With several processes, JAX forwards the SIGTERM
    of one process to the others, and all of them stop after the same step.
    """

    def __init__(self):
        self._name, self._previous_handlers = None, {}

    def __enter__(self):
        signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        with contextlib.suppress(ValueError):  # only the main thread can set handlers
            self._previous_handlers = {
                number: signal.signal(number, self._receive) for number in signals
            }
        return self

    def __exit__(self, *error):
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        if self._name is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._name = signal.Signals(number).name
        log.warning(
            "%s: stopping after this step, with a checkpoint. Send it again to stop immediately.",
            self._name,
        )
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's handler notifies the other processes

    def reason(self, step):
        """Returns the name of the signal if the run stops after this step, else None."""
        if jax.process_count() == 1:
            return self._name
        return "SIGTERM" if reached_preemption_sync_point(step) else None
