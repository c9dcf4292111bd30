"""Faults of storage: damage, full disks, missing permissions, malicious files."""

import pickle
import shutil
import subprocess
import sys

import numpy as np

from tests.faults.evidence import read_checksums, read_curves, read_state
from tests.faults.small_disk import SmallDisk
from tests.faults.tally import check, check_kept
from tests.faults.trainer import ROOT, Trainer

SHORT = ("num_train_steps=200", "keep_checkpoints=100")


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "bits flipped": _flip,
}


def damaged_checkpoints(tally, directory):
    """A rerun after damage to any file of the newest checkpoint ends in the same state."""
    with Trainer(directory / "whole") as run:
        run.end()
    good, curves = read_state(run.workdir), read_curves(run.workdir)
    newest, fell_back = run.checkpoints()[-1], 0
    files = sorted(p for p in _step(run.workdir, newest).rglob("*") if p.is_file())
    largest = max(files, key=lambda p: p.stat().st_size)
    metadata = [p for p in files if p.name in ("_METADATA", "_CHECKPOINT_METADATA")]
    for name, damage in DAMAGE.items():
        for file in (largest, *metadata):
            place = file.relative_to(run.workdir)
            with tally.trial(f"{place} {name}"):
                copy = directory / f"{name}-{'-'.join(place.parts)}"
                shutil.copytree(run.workdir, copy)
                damage(copy / place)
                with Trainer(copy) as again:
                    output = again.end()
                if "is damaged" in output:
                    fell_back += 1
                    check(
                        f"falling back to checkpoint {run.checkpoints()[-2]}" in output,
                        output[-300:],
                    )
                    check_kept((copy / "damaged" / str(newest)).exists(), "it was deleted")
                state = read_state(copy)
                check_kept(all(np.array_equal(good[k], state[k]) for k in good), "state differs")
                check_kept(read_curves(copy) == curves, "curves differ")
    with tally.trial("all of them"):
        copy = directory / "all"
        shutil.copytree(run.workdir, copy)
        for step in run.checkpoints():
            for file in _step(copy, step).rglob("manifest.ocdbt"):
                file.write_bytes(b"")
        with Trainer(copy) as again:
            output = again.end(1)
        check("can be read; nothing was deleted" in output, output[-300:])
        check_kept(again.checkpoints() == run.checkpoints(), "checkpoints were deleted")
    tally.measured = f"went back to the one before {fell_back} times"


def _step(workdir, step):
    return workdir / "checkpoints" / str(step)


def full_disk(tally, directory, *, faults=("full", "read-only", "not permitted")):
    """A run on a disk that cannot be written ends with an error, and continues after repair."""
    with Trainer(directory / "whole", *SHORT) as whole:
        whole.end()
    good, reference = read_state(whole.workdir), read_checksums(whole.workdir)
    for fault in faults:
        with tally.trial(fault), SmallDisk(directory / f"disk {fault}", size="64m") as disk:
            workdir = disk.path / "run"
            options = {"log": directory / f"{fault}.log", "unprivileged": True}
            with Trainer(workdir, *SHORT, **options) as run:
                run.until(lambda run=run: len(run.checkpoints()) > 3, "checkpoints")
                kept = run.checkpoints()
                if fault == "read-only":  # not while files are open
                    run.process.terminate()
                    run.end(75)
                    disk.break_by(fault)
                else:
                    disk.break_by(fault)
                    _check_refused(run)
            check_kept(set(kept) <= set(run.checkpoints()), "a checkpoint is gone")
            with Trainer(workdir, *SHORT, **options) as run:
                _check_refused(run)
            disk.repair()
            with Trainer(workdir, *SHORT, **options) as run:
                check("resuming from step" in run.end(), "did not go on")
            state = read_state(workdir)
            check_kept(all(np.array_equal(good[k], state[k]) for k in good), "state differs")
            found = read_checksums(workdir)
            check_kept(all(found[step] == reference[step] for step in kept), "checkpoints differ")
            check_kept(read_curves(workdir) == read_curves(whole.workdir), "curves differ")


def _check_refused(run):
    """Checks that a run ends with an error that names what cannot be written."""
    output = run.end(1)
    check("written" in output and "Traceback" not in output, output[-500:])


def full_disk_while_preparing(tally, directory):
    """A data set that cannot be written is an error; after repair it is prepared."""
    command = [
        sys.executable, "main.py", "--config=configs/tiny.py", "--mode=prepare",
        f"--workdir={directory / 'run'}",
    ]  # fmt: skip
    for fault in ("full", "read-only"):
        with tally.trial(fault), SmallDisk(directory / f"disk {fault}", size="32m") as disk:
            disk.break_by(fault)
            arguments = [*command, f"--config.data.data_dir={disk.path}"]
            ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
            check(ended.returncode == 1, f"exit code {ended.returncode}")
            check("could not be prepared" in ended.stderr, ended.stderr[-300:])
            check("Traceback" not in ended.stderr, ended.stderr[-300:])
            disk.repair()
            ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
            check(ended.returncode == 0, ended.stderr[-300:])


def no_permission(tally, directory):
    """A read-only workdir is refused; a read-only compilation cache is not used."""
    workdir = directory / "run"
    workdir.mkdir(mode=0o555)
    with tally.trial("workdir"), Trainer(workdir, unprivileged=True) as run:
        output = run.end(1)
        check(f"the workdir {workdir} cannot be written" in output, output[-300:])
        check("Traceback" not in output, output[-300:])
        check_kept(not any(workdir.iterdir()), "something was written")
    cache = directory / "cache"
    cache.mkdir(mode=0o555)
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    with (
        tally.trial("compilation cache"),
        Trainer(directory / "free", environment=environment, unprivileged=True) as run,
    ):
        run.end()


class _Bomb:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def planted_files(tally, directory):
    """Pickles in place of weights and checkpoint files are not executed."""
    from laser_jax.pretrained import weights

    mark = directory / "ran"
    bomb = pickle.dumps(_Bomb(mark))
    pickle.loads(bomb)
    check(mark.exists(), "the pickle has no effect")
    mark.unlink()
    with tally.trial("weights"):
        file = directory / weights.INCEPTION_FILE
        file.write_bytes(bomb)
        refused = False
        try:
            weights.load_inception(file)
        except ValueError as error:
            refused = "which no array needs" in str(error)
        check(refused and not mark.exists(), "it was not refused")
    with Trainer(directory / "run") as run:
        run.end()
    files = [p for p in _step(run.workdir, run.checkpoints()[-1]).rglob("*") if p.is_file()]
    for file in files:
        with tally.trial(f"checkpoint's {file.name}"):
            copy = directory / "copy"
            shutil.copytree(run.workdir, copy)
            (copy / file.relative_to(run.workdir)).write_bytes(bomb)
            read_state(copy)
            check(not mark.exists(), "it was loaded")
            shutil.rmtree(copy)
