"""What a workdir keeps: the resolved config and the newest states.

config.json          the config, so that the workdir alone is enough
checkpoints/<step>/  orbax checkpoints, written to the side and then renamed: the newest ones, and
                     the best by a metric of validation
damaged/<step>/      checkpoints that could not be read, or whose values are not those written
"""

import contextlib
import json
import logging
import os
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.multihost_utils import sync_global_devices
from ml_collections import config_dict

from laser_jax.files import write_json
from laser_jax.stopping import LostProcess

log = logging.getLogger("laser_jax")

# A run goes on only where these are unchanged: shapes, or what the numbers mean, depend on them.
_FIXED = ("model", "data.name", "data.image_size", "seed")
# Switching these on or off changes the state's arrays, another value does not.
_SWITCHES = ("optimizer.ema_decay", "adversarial.weight")
# Keys that stored configs may not have yet, with the values that mean what those runs did.
_LATER = {
    "model": {
        "coefficient_l1_weight": 0.0,
        "coherence_weight": 0.0,
        "fsq_levels": (8, 5, 5, 5),
        "bit_price": 0.01,
        "coefficient_step": 0.25,
    },
    "loss": {"perceptual_weight": 0.0},
    "adversarial": {"weight": 0.0},
    "eval": {"perceptual": True, "checkpoint": "newest"},
    "weights": {"lpips": None, "inception": None},
    "best_metric": "psnr",
    "not_finite": "stop",
    "max_skipped_steps": 10,
}

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
        self._workdir, self._writes = _path(workdir), keep is not None
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
          CheckpointNotWritten: if it, or the one before, cannot be written.
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


def write_config(workdir, config):
    """Stores the config as `config.json` in the workdir, which is made if need be.

    Raises:
      OSError: if the workdir cannot be written.
    """
    path = _path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_json(path / "config.json", config.to_dict())
    except OSError as error:
        raise OSError(f"the workdir {path} cannot be written: {error}") from error


def read_config(workdir):
    """Returns the config stored in a workdir.

    Raises:
      FileNotFoundError: if the workdir holds no run.
    """
    path = _path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} holds no run (no config.json); train one with "
            f"python main.py --config=... --workdir={workdir}."
        )
    values = json.loads(path.read_text())
    for key, value in values["model"].items():
        if isinstance(value, list):  # JSON has no tuples
            values["model"][key] = tuple(value)
    for key, later in _LATER.items():
        stored = values.get(key, {} if isinstance(later, dict) else later)
        values[key] = {**later, **stored} if isinstance(later, dict) else stored
    return config_dict.ConfigDict(values)


def check_same_run(workdir, config):
    """Checks that a config continues the run a workdir holds, if it holds one.

    Raises:
      ValueError: if the workdir holds a run of another architecture, data set or seed.
    """
    if not (_path(workdir) / "config.json").exists():
        return
    stored = read_config(workdir)
    old, new = flat_config(stored), flat_config(config)
    for values in (old, new):
        values |= {f"{key} > 0": values[key] > 0 for key in _SWITCHES}
    fixed = (*_FIXED, *(f"{key} > 0" for key in _SWITCHES))
    if old["adversarial.weight"]:
        fixed += ("adversarial.num_hiddens", "adversarial.num_downsamples")
    differ = [
        f"  {key}: {old.get(key)} there, {new.get(key)} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and any(key == f or key.startswith(f"{f}.") for f in fixed)
    ]
    if differ:
        raise ValueError(
            f"the workdir {workdir} holds another run:\n" + "\n".join(differ) + "\n"
            "Choose another directory with --workdir, or the config that began this one."
        )


def flat_config(config):
    """Returns the config's values under their dotted names."""

    def walk(values, prefix):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield prefix + key, value

    return dict(walk(config.to_dict(), ""))


def _path(workdir):
    return pathlib.Path(workdir).expanduser().absolute()
