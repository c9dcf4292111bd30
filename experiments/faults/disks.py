"""What storage does to a run: damage, no room, no permission; and files that mean harm."""

import pickle
import shutil
import subprocess
import sys

import numpy as np

from experiments.faults.evidence import read_checksums, read_curves, read_state
from experiments.faults.small_disk import SmallDisk
from experiments.faults.tally import check, check_kept
from experiments.faults.trainer import ROOT, Trainer

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
    """Each file of the newest checkpoint damaged in each way: the run ends as it should."""
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
                    said = again.end()
                if "is damaged" in said:
                    fell_back += 1
                    check(f"going back to checkpoint {run.checkpoints()[-2]}" in said, said[-300:])
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
            said = again.end(1)
        check("can be read; nothing was deleted" in said, said[-300:])
        check_kept(again.checkpoints() == run.checkpoints(), "checkpoints were deleted")
    tally.seen = f"went back to the one before {fell_back} times"


def _step(workdir, step):
    return workdir / "checkpoints" / str(step)


def no_room(tally, directory, *, faults=("full", "read-only", "not permitted")):
    """The disk takes no more, under a run or before it goes on; mended, it goes on."""
    with Trainer(directory / "whole", *SHORT) as whole:
        whole.end()
    good, reference = read_state(whole.workdir), read_checksums(whole.workdir)
    for fault in faults:
        with tally.trial(fault), SmallDisk(directory / f"disk {fault}", size="64m") as disk:
            workdir = disk.path / "run"
            options = {"log": directory / f"{fault}.log", "obeys": True}
            with Trainer(workdir, *SHORT, **options) as run:
                run.until(lambda run=run: len(run.checkpoints()) > 3, "checkpoints")
                kept = run.checkpoints()
                if fault == "read-only":  # not while files are open
                    run.process.terminate()
                    run.end(75)
                    disk.spoil(fault)
                else:
                    disk.spoil(fault)
                    _check_refused(run)
            check_kept(set(kept) <= set(run.checkpoints()), "a checkpoint is gone")
            with Trainer(workdir, *SHORT, **options) as run:
                _check_refused(run)
            disk.mend()
            with Trainer(workdir, *SHORT, **options) as run:
                check("going on from step" in run.end(), "did not go on")
            state = read_state(workdir)
            check_kept(all(np.array_equal(good[k], state[k]) for k in good), "state differs")
            found = read_checksums(workdir)
            check_kept(all(found[step] == reference[step] for step in kept), "checkpoints differ")
            check_kept(read_curves(workdir) == read_curves(whole.workdir), "curves differ")


def _check_refused(run):
    """It ends with an error that says what cannot be written."""
    said = run.end(1)
    check("written" in said and "Traceback" not in said, said[-500:])


def no_room_for_data(tally, directory):
    """The data set cannot be written: it is said, and once there is room it is prepared."""
    command = [
        sys.executable, "main.py", "--config=configs/tiny.py", "--mode=prepare",
        f"--workdir={directory / 'run'}",
    ]  # fmt: skip
    for fault in ("full", "read-only"):
        with tally.trial(fault), SmallDisk(directory / f"disk {fault}", size="32m") as disk:
            disk.spoil(fault)
            arguments = [*command, f"--config.data.data_dir={disk.path}"]
            ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
            check(ended.returncode == 1, f"exit code {ended.returncode}")
            check("could not be prepared" in ended.stderr, ended.stderr[-300:])
            check("Traceback" not in ended.stderr, ended.stderr[-300:])
            disk.mend()
            ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
            check(ended.returncode == 0, ended.stderr[-300:])


def no_permission(tally, directory):
    """A workdir that may not be written is refused; a compilation cache is done without."""
    workdir = directory / "run"
    workdir.mkdir(mode=0o555)
    with tally.trial("workdir"), Trainer(workdir, obeys=True) as run:
        said = run.end(1)
        check(f"the workdir {workdir} cannot be written" in said, said[-300:])
        check("Traceback" not in said, said[-300:])
        check_kept(not any(workdir.iterdir()), "something was made")
    cache = directory / "cache"
    cache.mkdir(mode=0o555)
    environment = {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    with (
        tally.trial("compilation cache"),
        Trainer(directory / "free", environment=environment, obeys=True) as run,
    ):
        run.end()


class _Bomb:
    """A pickle that leaves a file behind where it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def planted_files(tally, directory):
    """Pickles in the place of weights, checkpoints and cached points run nothing."""
    from laser_jax.pretrained import weights

    mark = directory / "ran"
    bomb = pickle.dumps(_Bomb(mark))
    pickle.loads(bomb)
    check(mark.exists(), "the bomb is a dud")
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
