"""Reports of a run: TensorBoard curves (by CLU), progress, and its final metrics and figure."""

import contextlib
import logging
import os
import shlex
import socket
import time

import jax
import jax.numpy as jnp
import numpy as np
from clu import metric_writers, parameter_overview
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter

from laser_jax.evaluation.codec import TokenCodec, fit_codec, read_tables, write_tables
from laser_jax.evaluation.split import (
    evaluate_split,
    evenly_spaced_images,
    make_eval_step,
    quality_title,
)
from laser_jax.figures import atom_sheet, reconstruction_figure, reconstruction_grid
from laser_jax.files import optional_file, write_json
from laser_jax.images import to_network, to_unit
from laser_jax.metrics import ssim
from laser_jax.models.inference import decode_atoms, reconstruct
from laser_jax.paths import printable
from laser_jax.training.profiling import Profile
from laser_jax.training.progress import Progress, table
from laser_jax.training.workdir import flat_config

log = logging.getLogger("laser_jax")

# The true rate before the last step: tables of a quick fit, and part of the split.
QUICK, QUICK_SIGNALS = {"most_steps": 200}, 2**14


class NotFiniteError(FloatingPointError):
    """The loss, a gradient or the state after a step is not finite."""


class CurvesNotWritten(OSError):
    """TensorBoard event files cannot be written."""


class Reporter:
    """Collects and writes the metrics of a run; a context manager that closes its writers.

    `PriorReporter` overrides what is measured and drawn.
    """

    _figure_name = "reconstructions.png"
    _next = "python main.py --workdir={workdir} --mode=evaluate"

    def __init__(self, setup, workdir, images, validation, state):
        self.workdir, self._images, self._validation = workdir, images, validation
        self._config, self._mesh, self._model = config, mesh, _ = (
            setup.config, setup.mesh, setup.model,
        )  # fmt: skip
        self._compile(setup)
        self._is_main = jax.process_index() == 0
        # Steps that may be in flight. Virtual CPU devices share few threads, so that two steps
        # can deadlock.
        self._in_flight = 0 if mesh.size > 1 and jax.default_backend() == "cpu" else 1
        self._metrics = []  # of the steps since the last report, on the device
        self._checked = 0  # how many of them were checked for finite values
        self._skipped = 0  # steps skipped since the start because they were not finite
        self._clock, self._timed_steps = None, 0  # since the last report, without compilation
        self._speeds = []
        self._first, self._last = int(state.step), config.num_train_steps
        with self._writing():
            if self._is_main:
                self._discard_later_points()
            self._writer = metric_writers.create_default_writer(
                workdir, just_logging=not self._is_main, asynchronous=True
            )
            if self._first == 0:
                self._writer.write_hparams(
                    {
                        key: printable(value) if isinstance(value, str) else value
                        for key, value in flat_config(config).items()
                    }
                )
        if self._first == 0:
            log.info("%s", parameter_overview.get_parameter_overview(state.params))
        self._progress = Progress(self._first, config.num_train_steps)
        self._profile = Profile(workdir, config.profile_step)

    def _compile(self, setup):
        """Makes the jitted functions of the reports."""
        self._eval_step = make_eval_step(setup.model, setup.image_loss, setup.lpips_params)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self._progress.close()
        try:
            with self._writing():
                self._profile.close()
                self._writer.close()
        except CurvesNotWritten as second:
            if error is None:
                raise
            log.error("%s", second)  # the first error is raised

    def flush(self):
        """Blocks until every point is written."""
        with self._writing():
            self._writer.flush()

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except Exception as error:  # of TensorFlow, CLU or the system
            cause = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise CurvesNotWritten(
                f"TensorBoard event files in {self.workdir} cannot be written: "
                f"{type(cause).__name__}: {cause}\nThe checkpoints are kept. Once there is space, "
                "the same command resumes from the newest."
            ) from error

    def _discard_later_points(self):
        """Makes TensorBoard discard the points of steps that this run will repeat."""
        if not any(self.workdir.glob("events.out.tfevents.*")):
            return
        # TensorBoard reads files in the order of their names: this name sorts after those of
        # earlier processes and before that of this process.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        start = SessionLog(status=SessionLog.START)
        with open(self.workdir / f"{name}-resumed", "wb") as file:
            records = RecordWriter(file)
            for event in (
                Event(file_version="brain.Event:2"),
                # Twice, because TensorBoard ignores the first start of a run.
                *2 * [Event(step=self._first + 1, session_log=start)],
            ):
                event.wall_time = time.time()
                records.write(event.SerializeToString())

    def step(self, step, metrics):
        """Records the metrics of a step that may still be running."""
        self._metrics.append((step, metrics))
        self._progress.advance()
        with self._writing():
            self._profile.step(step)
        if self._clock is None:
            self.check_finite()  # the first step compiles and is not timed
            self._clock = time.monotonic()
        else:
            self._timed_steps += 1
            self.check_finite(len(self._metrics) - self._in_flight)

    def check_finite(self, count=None):
        """Waits for the first `count` steps since the last report (None: all) and checks them.

        Raises:
          NotFiniteError: if a step was not finite and must not be skipped.
        """
        for step, metrics in self._metrics[self._checked : count]:
            if not metrics["finite"]:
                self._skip(step, metrics)
            self._checked += 1

    def _skip(self, step, metrics):
        config, skips = self._config, self._config.not_finite == "skip"
        message = (
            f"step {step} is not finite (loss {float(metrics['loss'])}, norm of the gradient "
            f"{float(metrics['grad_norm'])})"
        )
        if not skips or self._skipped == config.max_skipped_steps:
            message += f", after {self._skipped} skipped steps (max_skipped_steps)" * skips
            raise NotFiniteError(
                f"{message}. The last checkpoint is kept in {self.workdir}. Try a smaller "
                f"optimizer.learning_rate, now {config.optimizer.learning_rate}"
                + ("." if skips else ", or --config.not_finite=skip to skip such steps.")
            )
        self._skipped += 1
        log.warning(
            "%s and is skipped (%d of at most %d).",
            message, self._skipped, config.max_skipped_steps,
        )  # fmt: skip

    def train(self, step, images, reconstruction):
        """Writes the `train/` curves: means since the last report, SSIM of the last batch."""
        self.check_finite()
        seconds = time.monotonic() - self._clock
        steps = [metrics for _, metrics in jax.device_get(self._metrics)]
        scalars = {"train/skipped_steps": float(self._skipped)}
        if steps[-1]["finite"]:
            scalars |= self._batch_scalars(images, reconstruction)
        steps = [metrics for metrics in steps if metrics.pop("finite")]
        if steps:
            scalars |= {  # a term that started since the last report has fewer values
                f"train/{name}": float(np.mean([m[name] for m in steps if name in m]))
                for name in steps[-1]
            }
            scalars["train/learning_rate"] = float(steps[-1]["learning_rate"])
        if self._timed_steps:
            self._speeds.append(self._timed_steps * self._config.data.batch_size / seconds)
            scalars["train/images_per_second"] = self._speeds[-1]
            scalars["train/device_images_per_second"] = self._speeds[-1] / self._mesh.size
        with self._writing():
            self._writer.write_scalars(step, scalars)
        if steps:
            self._progress.report(step, scalars)
        self._metrics, self._checked = [], 0
        self._restart_clock()

    def _batch_scalars(self, images, reconstruction):
        """Returns further curves of the last batch."""
        return {"train/ssim": float(_mean_ssim(images, reconstruction))}

    def validate(self, step, state):
        """Writes the `val/` curves over the whole split, and pictures.

        Returns:
          The metrics, a dict of floats.
        """
        metrics = self._measure(step, state)
        if step > self._first:  # otherwise the run had ended, and its points exist
            pictures = self._pictures(state)
            with self._writing():
                self._writer.write_scalars(step, {f"val/{k}": v for k, v in metrics.items()})
                self._writer.write_images(step, {k: v[None] for k, v in pictures.items()})
                self._writer.flush()
        self._restart_clock()
        return metrics

    def end_at(self, step, state):
        """Makes a validated step the last of the run; returns the metrics of a last step."""
        self._last = step
        return self._measure(step, state)

    def _measure(self, step, state):
        """Returns the metrics of the validation split."""
        variables = state.eval_variables()
        metrics = evaluate_split(
            self._eval_step, self._model, variables, self._validation,
            mesh=self._mesh, config=self._config,
        )  # fmt: skip
        del metrics["images"]
        if self._config.eval.table_images:
            metrics["bits_per_pixel"] = self._rate(step, variables)
        return metrics

    def _pictures(self, state):
        """Returns the pictures of a validation, `(H, W, 3)` by name."""
        variables = state.eval_variables()
        return {
            "val/reconstructions": reconstruction_grid(*self._samples(variables)),
            "atoms": atom_sheet(decode_atoms(self._model, variables)),
        }

    def _rate(self, step, variables):
        """Returns the bits a pixel of the coded validation split; stores the last step's tables."""
        config, last = self._config, step >= self._last
        tables = read_tables(self.workdir, step)
        if tables is not None:
            codec = TokenCodec(self._model, jax.device_get(variables), tables)
        else:
            number = config.eval.table_images
            codec = fit_codec(
                self._model, variables, self._images, batch_size=config.eval.batch_size,
                images=number if last else -(-number // 4), **({} if last else QUICK),
            )  # fmt: skip
        if last and tables is None and self._is_main:
            write_tables(self.workdir, step, codec.tables)
        size, pixels = codec.split_size(
            self._validation, batch_size=config.eval.batch_size,
            most_signals=None if last else QUICK_SIGNALS,
        )  # fmt: skip
        return 8 * size / pixels

    def finish(self, state, quality):
        """Writes `metrics.json` and a figure, and logs what to do next.

        Args:
          state: the final state.
          quality: its validation metrics, from `validate`.
        """
        metrics = {"step": int(state.step), **{f"val/{k}": v for k, v in quality.items()}}
        metrics |= self._final_metrics(quality)
        if self._speeds:
            metrics["images_per_second"] = float(np.median(self._speeds))
            metrics["device_images_per_second"] = metrics["images_per_second"] / self._mesh.size
        self._progress.close()
        if not self._is_main:
            return
        shown = {name.removeprefix("val/"): value for name, value in metrics.items()}
        log.info("validation (%s)\n%s", self._validation.description, table(shown))
        write_json(self.workdir / "metrics.json", metrics)
        figure = self.workdir / self._figure_name
        with optional_file(figure):
            self._draw(figure, state, shown)
        workdir = shlex.quote(str(self.workdir))
        log.info(
            "Next:\n"
            "  %s\n"
            "  %s\n"
            "  tensorboard --logdir=%s",
            figure, self._next.format(workdir=workdir), workdir,
        )  # fmt: skip

    def _final_metrics(self, quality):
        """Returns further entries of `metrics.json`."""
        return {}

    def _draw(self, figure, state, shown):
        """Writes the figure of the finished run."""
        reconstruction_figure(
            *self._samples(state.eval_variables()), figure,
            title=quality_title(self._validation, shown),
        )  # fmt: skip

    def _samples(self, variables):
        """Returns some validation images and their reconstructions, in [0, 1]."""
        images = evenly_spaced_images(self._validation)
        return images / 255, np.asarray(reconstruct(self._model, variables, images))

    def _restart_clock(self):
        self._clock, self._timed_steps = time.monotonic(), 0


@jax.jit
def _mean_ssim(images, reconstruction):
    """Returns the mean SSIM of reconstructions in [0, 1] of a batch of uint8 images."""
    return jnp.mean(ssim(to_unit(to_network(images)), reconstruction))
