"""`main.py` in a process of its own, as a user starts it."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

from tests.faults.tally import check

ROOT = pathlib.Path(__file__).parents[2]


class Trainer:
    """A run of `configs/tiny.py`; a context manager that kills its process at the end.

    Attributes:
      workdir: of the run.
      process: its `Popen`.
    """

    def __init__(self, workdir, *settings, environment=None, log=None, unprivileged=False):
        """Starts it.

        Args:
          workdir: of the run.
          settings: as in `num_train_steps=400`, for `--config.num_train_steps=400`; a word that
            begins with -- is taken as it stands.
          environment: variables beside this process's own.
          log: file for its output; None: one beside the workdir.
          unprivileged: whether permissions hold for it even if it is started by root.
        """
        self.workdir = pathlib.Path(workdir)
        self._log = log or self.workdir.with_name(f"{self.workdir.name}.{time.monotonic_ns()}.log")
        arguments = ["--config=configs/tiny.py"]
        arguments += [word if word.startswith("--") else f"--config.{word}" for word in settings]
        first = [sys.executable, "-m", "tests.faults.drop_root"] if unprivileged else []
        with open(self._log, "w") as log:
            self.process = subprocess.Popen(
                [*first, sys.executable, "main.py", f"--workdir={workdir}", *arguments],
                cwd=ROOT, stdout=log, stderr=log, env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    @property
    def alive(self):
        return self.process.poll() is None

    @property
    def output(self):
        """Its output so far."""
        return self._log.read_text(errors="replace")

    def until(self, condition, what, seconds=180):
        """Waits until a condition holds, or raises NotSurvivedError with the end of the output."""
        deadline = time.monotonic() + seconds
        while not condition():
            check(self.alive, f"ended before {what}: {self._tail()}")
            check(time.monotonic() < deadline, f"no {what} in {seconds} s: {self._tail()}")
            time.sleep(0.005)

    def end(self, code=0, seconds=300):
        """Waits for its end, and raises NotSurvivedError unless that has the exit code."""
        try:
            found = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            check(False, f"no end in {seconds} s: {self._tail()}")
        codes = code if isinstance(code, tuple) else (code,)
        check(found in codes, f"exit code {found}, not {code}: {self._tail()}")
        return self.output

    def checkpoints(self):
        """Returns the steps of the complete checkpoints."""
        names = [path.name for path in (self.workdir / "checkpoints").glob("*")]
        return sorted(int(name) for name in names if name.isdigit())

    def _tail(self):
        return "\n".join(self.output.splitlines()[-12:])
