"""Long runs: memory, open files, compilation, and the cost of curves and checkpoints."""

import contextlib
import os
import re
import subprocess
import sys
import time
from unittest import mock

import numpy as np

from configs import default
from laser_jax.training import loop
from tests.faults.tally import check
from tests.faults.trainer import ROOT, Trainer


def long_run(tally, directory, *, steps=20_000, most_growth=0.02):
    """Memory and open files of a long run do not grow, and nothing is compiled again."""
    settings = (f"num_train_steps={steps}", f"eval_every_steps={steps // 20}",
                f"checkpoint_every_steps={steps // 50}", "log_every_steps=100")  # fmt: skip
    samples = []  # share of the steps made, MB resident, open files
    with (
        tally.trial(f"{steps} steps"),
        Trainer(directory / "run", *settings, environment={"JAX_LOG_COMPILES": "1"}) as run,
    ):
        while run.alive:
            with contextlib.suppress(OSError):  # it may end meanwhile
                samples.append((_progress(run, steps), *_held(run.process.pid)))
            time.sleep(1)
        output = run.end()
        settled = output.index(f"step {steps // 10 + 100}/")  # two validations are behind it
        again = re.findall(r"Compiling (\S+)", output[settled : output.index(f"step {steps}/")])
        check(not again, f"compiled again: {again}")
        share, memory, files = np.array(samples).T
        early, late = (share > 0.25) & (share < 0.5), (share > 0.75) & (share < 1)
        growth = np.median(memory[late]) / np.median(memory[early]) - 1
        check(growth < most_growth, f"memory grew by {growth:.1%} between the quarters")
        more = np.median(files[late]) - np.median(files[early])
        check(more <= 0, f"{more} more files are open")
        tally.measured = (
            f"{np.median(memory[early]):.0f} MB in the second quarter, {growth:+.1%} in the last; "
            f"{np.median(files[late]):.0f} open files; no compilation after step {steps // 10}"
        )


def _progress(run, steps):
    found = re.findall(r"step (\d+)/", run.output)
    return int(found[-1]) / steps if found else 0.0


def _held(pid):
    """Returns the resident memory of a process in MB, and its number of open files."""
    with open(f"/proc/{pid}/statm") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir(f"/proc/{pid}/fd"))


def overhead(tally, directory, *, steps=1000, most=0.05):
    """The share of time that a run at default settings spends on curves and checkpoints."""
    spent = {}
    with tally.trial(f"{steps} steps of configs/default.py"), contextlib.ExitStack() as stack:
        for owner, names in ((loop.Reporter, ("train", "flush")),
                             (loop.Checkpoints, ("save", "check"))):  # fmt: skip
            for name in names:
                timed = _timed(getattr(owner, name), spent)
                stack.enter_context(mock.patch.object(owner, name, timed))
        config = default.get_config()
        config.num_train_steps = config.eval_every_steps = steps
        start = time.perf_counter()
        loop.train(config, directory / "run")
        seconds = time.perf_counter() - start
        share = sum(spent.values()) / seconds
        check(share < most, f"{share:.1%} of {seconds:.0f} s: {spent}")
        tally.measured = f"{share:.2%} of {seconds:.0f} s"


def _timed(method, spent):
    """Returns a method that adds its seconds to `spent`."""

    def call(self, *args, **kwargs):
        if isinstance(self, loop.Reporter):
            self.check_finite()  # waits for the step, which is not overhead
        start = time.perf_counter()
        result = method(self, *args, **kwargs)
        spent[method.__name__] = spent.get(method.__name__, 0.0) + time.perf_counter() - start
        return result

    return call


def second_start(tally, directory, *, most=0.5):
    """With JAX's persistent cache a second start compiles in at most half of the first's time."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(directory / "cache")}
    seconds = []
    with tally.trial("two starts"):
        for start in ("first", "second"):
            command = [sys.executable, "-m", "tests.faults.compile_time", directory / start]
            ended = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
            )
            check(ended.returncode == 0, ended.stderr[-1500:])
            seconds.append(float(ended.stdout.splitlines()[-1]))
        first, second = seconds
        check(second <= most * first, f"{first:.1f} s, then {second:.1f}")
        tally.measured = f"{first:.1f} s of compiling, then {second:.1f}"
