"""Faults of processes: killed, stopped by a signal, started twice."""

import random
import re
import signal
import time

import numpy as np

from tests.faults.evidence import read_checksums, read_curves, read_metrics, read_state
from tests.faults.tally import check, check_kept
from tests.faults.trainer import Trainer

# Long enough that every kill finds the run at work.
LONG = ("num_train_steps=1800", "log_every_steps=5", "eval_every_steps=200")


def sigkill(tally, directory, *, kills=20, settings=LONG, seed=0):
    """A run that is killed many times ends bit-identical to an undisturbed run.

    Half of the kills wait until a checkpoint is being written, the others for a random moment.
    """
    rng, during_writes = random.Random(seed), 0
    with Trainer(directory / "whole", *settings, "keep_checkpoints=100000") as whole:
        whole.end(seconds=1800)
    reference, killed = read_checksums(whole.workdir), directory / "killed"

    def check_checkpoints():
        """Each checkpoint of the killed run equals the undisturbed run's at the same step."""
        found = read_checksums(killed)
        newest = max(int(p.name) for p in (killed / "checkpoints").iterdir() if p.name.isdigit())
        check_kept(newest in found, f"checkpoint {newest}, the newest, is incomplete")
        for step, checksums in found.items():
            check_kept(checksums == reference[step], f"checkpoint {step} differs")

    for kill in range(kills):
        with tally.trial(f"SIGKILL {kill + 1}"), Trainer(killed, *settings) as run:
            before = max(run.checkpoints(), default=0)
            run.until(lambda run=run, b=before: max(run.checkpoints(), default=0) > b, "checkpoint")
            if kill:
                first = int(re.search(r"resuming from step (\d+)", run.output)[1])
                check(first == before > 0, f"began at {first}, not at {before}")
            if kill % 2:
                time.sleep(rng.uniform(0, 0.5))
                run.until(lambda: _being_written(killed), "checkpoint to be written")
                time.sleep(rng.uniform(0, 0.03))
            else:
                time.sleep(rng.uniform(0, 1.5))
            check(run.alive, "ended before it was killed")
            run.process.send_signal(signal.SIGKILL)
            check(run.process.wait() == -signal.SIGKILL, "survived SIGKILL")
            during_writes += _being_written(killed)
            check_checkpoints()
    with tally.trial("to the end"), Trainer(killed, *settings) as run:
        run.end(seconds=1800)
        check_checkpoints()
        a, b = (read_state(path) for path in (whole.workdir, killed))
        different = [name for name in a if not np.array_equal(a[name], b[name])]
        check_kept(not different and a.keys() == b.keys(), f"differ in the end: {different}")
        a, b = (read_metrics(path) for path in (whole.workdir, killed))
        check_kept(a == b, f"metrics {b}, not {a}")
        check_kept(read_curves(whole.workdir) == read_curves(killed), "curves differ")
    tally.measured = f"{during_writes} of {kills} during a checkpoint's write"


def _being_written(workdir):
    return any((workdir / "checkpoints").glob("*tmp*"))


def stop_signals(tally, directory, *, signals=(signal.SIGTERM, signal.SIGINT)):
    """On SIGTERM and Ctrl-C a run finishes its step, writes its checkpoint, and exits with 75."""
    waits = []
    for number in signals:
        with (
            tally.trial(number.name),
            Trainer(directory / number.name, "num_train_steps=100000") as run,
        ):
            run.until(lambda run=run: run.checkpoints()[-1:] > [0], "checkpoint")
            start = time.monotonic()
            run.process.send_signal(number)
            output = run.end(75)
            waits.append(time.monotonic() - start)
            step = re.search(
                rf"stopped by {number.name} after step (\d+); the same command", output
            )
            check(step, f"output {output[-300:]}")
            check_kept(run.checkpoints()[-1] == int(step[1]), "the last step is not kept")
    tally.measured = f"ended after {max(waits):.1f} s at most"


def two_trainers(tally, directory):
    """A second process on a workdir is refused; a killed one leaves no lock."""
    workdir = directory / "run"
    with tally.trial("a second one"), Trainer(workdir, "num_train_steps=100000") as first:
        first.until(lambda: first.checkpoints()[-1:] > [0], "checkpoint")
        with Trainer(workdir) as second:
            output = second.end(1)
        check(f"in use by process {first.process.pid} on" in output, f"output {output[-300:]}")
        check(first.alive, "the first one ended")
        first.process.kill()
        first.process.wait()
        kept = first.checkpoints()[-1]
    with tally.trial("after SIGKILL"), Trainer(workdir, f"num_train_steps={kept + 10}") as again:
        check(f"resuming from step {kept}" in again.end(), "did not go on")
