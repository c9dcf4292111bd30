"""The checkpoints of a workdir.

checkpoints/<step>/  orbax checkpoints, renamed into place once complete: the newest ones, and the
                     best by a validation metric
damaged/<step>/      checkpoints that could not be read, or whose checksums are wrong
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

# Validation metrics that can select the best checkpoint; 1: the largest, -1: the smallest.
BEST_METRICS = {"psnr": 1, "ssim": 1, "loss": -1, "bits_per_token": -1, "masked_bits_per_token": -1}
WHICH = ("newest", "best")


class DamagedCheckpoints(OSError):
    """A workdir has checkpoints, but none of them can be read."""


class CheckpointNotWritten(OSError):
    """A checkpoint could not be written. Earlier checkpoints are unchanged."""


class Checkpoints:
    """The checkpoints of a workdir; a context manager that waits for the last write."""

    def __init__(self, workdir, *, best_metric="psnr", keep=None):
        """Opens the checkpoints of a workdir.

        Args:
          workdir: path of the run.
          best_metric: one of `BEST_METRICS`; the best checkpoint is kept too.
          keep: number of newest checkpoints to keep; None opens them read-only.
        """
        self._workdir, self._writes = resolve_workdir(workdir), keep is not None
        self._best_metric, self._keep = best_metric, keep
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self if self._writes else None,
            create=self._writes,
            cleanup_tmp_directories=self._writes,  # partial writes of a killed run
        )
        with self._writing() if self._writes else contextlib.nullcontext():
            self._manager = ocp.CheckpointManager(
                self._workdir / "checkpoints",
                options=options,
                item_handlers=ocp.StandardCheckpointHandler(),  # without it, reading metadata warns
            )
        self._verify_next = self.latest_step() is None  # only the first checkpoint of a run
        self._metrics = {}  # step -> its validation metrics, None without validation
        for step in self._manager.all_steps():
            with contextlib.suppress(Exception):  # damaged: `restore` reports it
                self._metrics[step] = self._manager.metadata(step).custom_metadata["metrics"]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, LostProcess):
            return  # finishing a write needs every process
        try:
            with self._writing():
                self._manager.close()
        except CheckpointNotWritten as second:
            if error is None:
                raise
            log.error("%s", second)  # the first error is raised

    def latest_step(self):
        """Returns the step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def steps_since_best(self):
        """Returns the steps from the best validation to the newest one; 0 without any."""
        best = self._best_first(list(self._metrics))
        return max(best) - best[0] if best else 0

    def save(self, state, metrics=None):
        """Writes a state in the background, unless there is a checkpoint of its step.

        Args:
          state: the `TrainState`.
          metrics: its validation metrics, a dict of floats; None without validation.

        Raises:
          CheckpointNotWritten: if this or the previous checkpoint cannot be written, or the
            first one of a run cannot be read back.
        """
        step = int(state.step)
        if step == self.latest_step():
            return
        with self._writing():
            self._check_writable()
            # A copy, because the next step donates these buffers during the write.
            self._metrics[step] = metrics
            self._manager.save(
                step, args=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)),
                custom_metadata={"checksums": checksums(state), "metrics": metrics},
            )  # fmt: skip
        if self._verify_next:
            self._verify(step, state)
            self._verify_next = False

    def _verify(self, step, state):
        """Raises CheckpointNotWritten unless the checkpoint can be read back."""
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
                f"{_one_line(error)}\nTry another --workdir, on another disk or with another name."
            ) from error

    def check(self):
        """Raises CheckpointNotWritten if a write in the background has failed."""
        with self._writing():
            self._manager.check_for_errors()

    def _check_writable(self):
        # If orbax cannot create a directory, its threads deadlock for minutes.
        if jax.process_index() == 0:
            probe = self._workdir / "checkpoints" / f".probe.{os.getpid()}"
            probe.mkdir()
            probe.rmdir()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # of orbax, tensorstore or the system
            path = self._workdir / "checkpoints"
            steps = [int(p.name) for p in path.glob("*") if p.name.isdigit()]
            raise CheckpointNotWritten(
                f"no checkpoint can be written in {path}: {_one_line(error)}\n"
                + (f"Checkpoint {max(steps)} is intact" if steps else "There is none yet")
                + "; once there is space, the same command resumes from there."
            ) from error

    def restore(self, abstract_state, which="newest"):
        """Returns the state of the newest, or best, intact checkpoint.

        Damaged checkpoints are logged. If this object can write, they are also moved to
        `damaged/`, because their steps will be written again. Nothing is deleted.

        Args:
          abstract_state: shapes, dtypes and shardings of the state. Its `extra` is empty in the
            result if the checkpoint has none.
          which: one of `WHICH`.

        Raises:
          DamagedCheckpoints: if no checkpoint is intact.
          FileNotFoundError: if there is none.
        """
        steps, damaged = self._steps(which), {}
        if not steps:
            raise FileNotFoundError(
                f"{self._workdir} holds no checkpoint"
                + (" with a validation." if self.latest_step() is not None else " yet.")
            )
        for step in steps:
            try:
                state = self._read(step, abstract_state)
            except Exception as error:  # reading a damaged file can raise anything
                damaged[step] = _one_line(error)
                log.warning(
                    "checkpoint %d of %s is damaged: %s", step, self._workdir, damaged[step]
                )
                continue
            if damaged:
                log.warning("falling back to checkpoint %d, the %s intact one", step, which)
                self._move_damaged(damaged)
            return state
        raise DamagedCheckpoints(
            f"no checkpoint of {self._workdir} can be read; nothing was deleted.\n"
            + "\n".join(f"  {step}: {reason}" for step, reason in damaged.items())
        )

    def should_preserve(self, checkpoints, *, context):
        """Returns which checkpoints to keep; called by orbax after each write."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-self._keep :], *self._best_first(steps)[:1]}
        return [step in kept for step in steps]

    def _steps(self, which):
        steps = sorted(self._manager.all_steps(), reverse=True)
        return steps if which == "newest" else self._best_first(steps)

    def _best_first(self, steps):
        """Returns the steps with a validation, best first; among equals the latest first."""
        name, sign = self._best_metric, BEST_METRICS[self._best_metric]
        good = {step: sign * self._metrics[step][name] for step in steps if self._metrics.get(step)}
        return sorted(good, key=lambda step: (good[step], step), reverse=True)

    def _read(self, step, abstract_state):
        # A discriminator that was added later is not in the checkpoints before it.
        extra = getattr(abstract_state, "extra", None)
        if extra and not self._manager.item_metadata(step).tree.get("extra"):
            abstract_state = abstract_state.replace(extra={})
        state = self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))
        metadata = self._manager.metadata(step)
        if metadata.init_timestamp_nsecs is None:
            raise ValueError("its metadata is missing")
        # Checkpoints of older versions have no checksums.
        written = (metadata.custom_metadata or {}).get("checksums")
        if written is not None:
            read = checksums(state)
            differ = [name for name in written | read if written.get(name) != read.get(name)]
            if differ:
                raise ValueError(f"wrong checksums: {', '.join(differ)}")
        return state

    def _move_damaged(self, steps):
        if not self._writes:
            return
        if jax.process_index() == 0:
            for step in steps:
                target = self._workdir / "damaged" / str(step)
                target.parent.mkdir(exist_ok=True)
                while target.exists():
                    target = target.with_name(f"{target.name}-again")
                (self._workdir / "checkpoints" / str(step)).rename(target)
        if jax.process_count() > 1:
            sync_global_devices("damaged checkpoints are moved")
        self._manager.reload()


def _one_line(error):
    text = " ".join(str(error).split())
    if len(text) > 300:  # tensorstore puts the full path first and the cause last
        text = f"{text[:140]} ... {text[-140:]}"
    return f"{type(error).__name__}: {text}"


def checksums(state):
    """Returns path -> CRC-32 of the dtype, shape and values of each array of a state."""

    def checksum(x):
        x = np.ascontiguousarray(jax.device_get(x))
        return zlib.crc32(x.tobytes(), zlib.crc32(f"{x.dtype}{x.shape}".encode()))

    return {jax.tree_util.keystr(path): checksum(x) for path, x in jax.tree.leaves_with_path(state)}
