"""The states that a workdir keeps.

checkpoints/<step>/  orbax checkpoints, written to the side and then renamed: the newest ones, and
                     the best by a metric of validation
damaged/<step>/      checkpoints that could not be read, or whose values are not those written
"""

import contextlib
import logging
import os
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import sync_global_devices

from laser_jax.paths import resolve_workdir
from laser_jax.training.preemption import LostProcess

log = logging.getLogger("laser_jax")

# Metrics of validation by which a checkpoint may be the best; -1: the smallest is.
BEST_METRICS = {"psnr": 1, "ssim": 1, "loss": -1}
WHICH = ("newest", "best")


class DamagedCheckpoints(OSError):
    """A workdir has checkpoints, and none of them can be read."""


class CheckpointNotWritten(OSError):
    """A checkpoint could not be written; those before are as they were."""


class Checkpoints:
    """The checkpoints of a workdir; a context manager that waits for the last write."""

    def __init__(self, workdir, *, best_metric="psnr", keep=None):
        """Opens them.

        Args:
          workdir: path of the run.
          best_metric: one of `BEST_METRICS`; the best checkpoint by it stays too.
          keep: newest checkpoints that stay when one is written; None: all, and only to read.
        """
        self._workdir, self._writes = resolve_workdir(workdir), keep is not None
        self._best_metric, self._keep = best_metric, keep
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self if self._writes else None,
            create=self._writes,
            cleanup_tmp_directories=self._writes,  # what a killed run was writing
        )
        with self._writing() if self._writes else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                self._workdir / "checkpoints",
                options=options,
                item_handlers=ocp.StandardCheckpointHandler(),  # or reading metadata warns
            )
        self._reads_back = self.latest_step() is None  # the first checkpoint, once it is written
        self._metrics = {}  # of each step's validation; None where there was none
        for step in self._manager.all_steps():
            with contextlib.suppress(Exception):  # damaged: `restore` says so
                self._metrics[step] = self._manager.metadata(step).custom_metadata["metrics"]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, LostProcess):
            return  # a write can only be finished together
        try:
            with self._writing():
                self._manager.close()
        except CheckpointNotWritten as second:
            if error is None:
                raise
            log.error("%s", second)  # the first error is the one to tell

    def latest_step(self):
        """Returns the step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, state, metrics=None):
        """Writes a state in the background, unless its step is there already.

        Args:
          state: the `TrainState`.
          metrics: of its validation, a dict of floats, if there was one.

        Raises:
          CheckpointNotWritten: if it, or the one before, cannot be written, or the first one of
            a run cannot be read back.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        with self._writing():
            self._check_writable()
            # A copy: the next step donates these buffers while they are being written.
            self._metrics[step] = metrics
            self._manager.save(
                step, args=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)),
                custom_metadata={"checksums": checksums(state), "metrics": metrics},
            )  # fmt: skip
        if self._reads_back:
            self._read_back(step, state)
            self._reads_back = False

    def _read_back(self, step, state):
        """Raises CheckpointNotWritten unless a checkpoint holds what was written."""
        with self._writing():
            self._manager.wait_until_finished()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        try:
            self._read(step, abstract)
        except Exception as error:
            raise CheckpointNotWritten(
                f"checkpoint {step} was written in {self._workdir} and cannot be read back: "
                f"{_one_line(error)}\nTry another --workdir, on another disk or of another name."
            ) from error

    def check(self):
        """Raises CheckpointNotWritten if a write in the background has failed since."""
        with self._writing():
            self._manager.check_for_errors()

    def _check_writable(self):
        # Where orbax cannot make a directory its threads wait for each other for minutes.
        if jax.process_index() == 0:
            probe = self._workdir / "checkpoints" / f".probe.{os.getpid()}"
            probe.mkdir()
            probe.rmdir()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # orbax, tensorstore and the system have each their own
            good = self._workdir / "checkpoints"
            steps = [int(p.name) for p in good.glob("*") if p.name.isdigit()]
            raise CheckpointNotWritten(
                f"no checkpoint can be written in {good}: {_one_line(error)}\n"
                + (f"Checkpoint {max(steps)} is whole" if steps else "There is none yet")
                + "; once there is room, the same command goes on from there."
            ) from error

    def restore(self, abstract_state, which="newest"):
        """Returns the newest, or best, state that is whole, laid out as `abstract_state` (with
        shardings).

        One that is not is named in the log, and moved to `damaged/` by who writes checkpoints, as
        its step will be written again; nothing is deleted.

        Raises:
          DamagedCheckpoints: if none is whole.
          FileNotFoundError: if there is none.
        """
        steps, damaged = self._steps(which), {}
        if not steps:
            raise FileNotFoundError(
                f"{self._workdir} holds no checkpoint"
                + (" that was validated." if self.latest_step() is not None else " yet.")
            )
        for step in steps:
            try:
                state = self._read(step, abstract_state)
            except Exception as error:  # whatever reading a spoiled file may come to
                damaged[step] = _one_line(error)
                log.warning(
                    "checkpoint %d of %s is damaged: %s", step, self._workdir, damaged[step]
                )
                continue
            if damaged:
                log.warning("going back to checkpoint %d, the %s that is whole", step, which)
                self._set_aside(damaged)
            return state
        raise DamagedCheckpoints(
            f"no checkpoint of {self._workdir} can be read; nothing was deleted.\n"
            + "\n".join(f"  {step}: {reason}" for step, reason in damaged.items())
        )

    def should_preserve(self, checkpoints, *, context):
        """Returns which of these stay: orbax's question, after each write."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self._keep :], *self._best_first(steps)[:1]}
        return [step in kept for step in steps]

    def _steps(self, which):
        steps = sorted(self._manager.all_steps(), reverse=True)
        return steps if which == "newest" else self._best_first(steps)

    def _best_first(self, steps):
        """Returns those of the steps that were validated; of equally good ones the later first."""
        name, sign = self._best_metric, BEST_METRICS[self._best_metric]
        good = {step: sign * self._metrics[step][name] for step in steps if self._metrics.get(step)}
        return sorted(good, key=lambda step: (good[step], step), reverse=True)

    def _read(self, step, abstract_state):
        state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))
        metadata = self._manager.metadata(step)
        if metadata.init_timestamp_nsecs is None:
            raise ValueError("its metadata are gone")
        # Checkpoints written before there were checksums have none.
        written = (metadata.custom_metadata or {}).get("checksums")
        if written is not None:
            read = checksums(state)
            differ = [name for name in written | read if written.get(name) != read.get(name)]
            if differ:
                raise ValueError(f"values are not those written: {', '.join(differ)}")
        return state

    def _set_aside(self, steps):
        if not self._writes:
            return
        if jax.process_index() == 0:
            for step in steps:
                aside = self._workdir / "damaged" / str(step)
                aside.parent.mkdir(exist_ok=True)
                while aside.exists():
                    aside = aside.with_name(f"{aside.name}-again")
                (self._workdir / "checkpoints" / str(step)).rename(aside)
        if jax.process_count() > 1:
            sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()


def _one_line(error):
    text = " ".join(str(error).split())
    if len(text) > 300:  # tensorstore tells the whole path first and the cause last
        text = f"{text[:140]} ... {text[-140:]}"
    return f"{type(error).__name__}: {text}"


def checksums(state):
    """Returns path -> CRC-32 of each array of a state, its dtype and shape among it."""

    def checksum(x):
        x = np.ascontiguousarray(jax.device_get(x))
        return zlib.crc32(x.tobytes(), zlib.crc32(f"{x.dtype}{x.shape}".encode()))

    return {jax.tree_util.keystr(path): checksum(x) for path, x in jax.tree.leaves_with_path(state)}
