"""How a run holds its workdir, and how it ends when it is told to."""

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

log = logging.getLogger("laser_jax")

EXIT_CODE = 75  # sysexits' EX_TEMPFAIL: what was wanted can be had by trying again


class Stopped(Exception):
    """A run was told to stop and has written its checkpoint."""


class LostProcess(Stopped):
    """Another process of this job is gone; the checkpoints written before stay."""


def leave(stopped):
    """Ends the process with `EXIT_CODE`, having said why."""
    print(stopped, file=sys.stderr, flush=True)
    if isinstance(stopped, LostProcess):
        os._exit(EXIT_CODE)  # an ordinary exit waits for the other processes first
    sys.exit(EXIT_CODE)


# How the transports between processes (Gloo, NCCL, gRPC) tell of one that is gone.
_OF_OTHERS = re.compile("gloo|nccl|heartbeat|coordination|connection reset|socket", re.IGNORECASE)


@contextlib.contextmanager
def needs_every_process(workdir):
    """Raises LostProcess where an error within tells of another process that is gone."""
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or not _OF_OTHERS.search(str(error)):
            raise
        raise LostProcess(
            f"another process of this job is gone ({str(error).splitlines()[0][:200]}). Start the "
            f"same command on every host again: it goes on from the newest checkpoint of {workdir}."
        ) from error


class WorkdirInUse(ValueError):
    """Another process trains in this workdir."""


@contextlib.contextmanager
def hold(workdir):
    """Holds a workdir for this process, and makes it if need be.

    A lock of the kernel, which releases it however the process ends: what a killed run leaves
    behind keeps nobody out.

    Raises:
      WorkdirInUse: if another process holds it.
      OSError: if the workdir cannot be written.
    """
    import fcntl  # not on Windows, where sparse coding works still

    path = pathlib.Path(workdir) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115, the lock lives as long as the file is open
    except OSError as error:
        raise OSError(f"the workdir {workdir} cannot be written: {error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise WorkdirInUse(
                f"the workdir {workdir} is in use: {file.read().strip()} trains there. Wait, stop "
                "it, or choose another --workdir."
            ) from error
        except OSError as error:  # a file system without locks
            log.warning("%s cannot be locked (%s): start no second run in it.", path, error)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        except OSError as error:
            raise OSError(f"the workdir {workdir} cannot be written: {error}") from error
        yield


class StopSignal:
    """SIGTERM and SIGINT as a wish to stop after the step; a second one ends at once.

    A context manager. With several processes all of them agree on the step: JAX tells all of a
    SIGTERM that one got.
    """

    def __init__(self):
        self._name, self._before = None, {}

    def __enter__(self):
        signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        with contextlib.suppress(ValueError):  # not the main thread: nothing is asked of it
            self._before = {number: signal.signal(number, self._receive) for number in signals}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, frame):
        if self._name is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._name = signal.Signals(number).name
        log.warning("%s: the step is finished and a checkpoint written; again: stop at once.",
                    self._name)  # fmt: skip
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's own handler tells the other processes

    def reason(self, step):
        """Returns the signal's name if all processes stop after this step, else None."""
        if jax.process_count() == 1:
            return self._name
        return "SIGTERM" if reached_preemption_sync_point(step) else None
