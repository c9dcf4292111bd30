"""What a run tells: TensorBoard through CLU, a bar or lines, and the files at its end."""

import json
import logging
import time

import jax
import jax.numpy as jnp
import numpy as np
from clu import metric_writers, parameter_overview

from laser_jax.checkpoint import flat_config
from laser_jax.evaluate import evaluate_split, make_eval_step, quality_title, spread
from laser_jax.figures import atom_sheet, reconstruction_figure, reconstruction_grid
from laser_jax.images import to_network, to_unit
from laser_jax.inference import decode_atoms, reconstruct
from laser_jax.metrics import ssim
from laser_jax.progress import Progress, table

log = logging.getLogger("laser_jax")


class NotFiniteError(FloatingPointError):
    """The loss is not finite any more."""


class Reporter:
    """Collects a run's metrics and writes them; a context manager that closes its writers."""

    def __init__(self, config, workdir, model, validation, mesh, state, lpips_params):
        self._config, self._workdir, self._model = config, workdir, model
        self._validation, self._mesh = validation, mesh
        self._eval_step = make_eval_step(model, config, lpips_params)
        self._ssim = jax.jit(lambda a, b: jnp.mean(ssim(to_unit(to_network(a)), b)))
        self._is_main = jax.process_index() == 0
        # Steps that may run while the host goes on. Virtual CPU devices share few threads: two
        # steps at once can wait for each other for ever.
        self._ahead = 0 if mesh.size > 1 and jax.default_backend() == "cpu" else 1
        self._metrics = []  # of the steps since the last report, on the device
        self._checked = 0  # how many of them are known to be finite
        self._clock, self._timed_steps = None, 0  # since the last report; compilation apart
        self._speeds = []
        self._writer = metric_writers.create_default_writer(
            workdir, just_logging=not self._is_main, asynchronous=True
        )
        first = int(state.step)
        if first == 0:
            log.info("%s", parameter_overview.get_parameter_overview(state.params))
            self._writer.write_hparams(flat_config(config))
        self._progress = Progress(first, config.num_train_steps)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._progress.close()
        self._writer.close()

    def step(self, step, metrics):
        """Takes in the metrics of a step that may still be running."""
        self._metrics.append((step, metrics))
        self._progress.advance()
        if self._clock is None:
            self.check_finite()  # the first step, which compiles, is not timed
            self._clock = time.monotonic()
        else:
            self._timed_steps += 1
            self.check_finite(len(self._metrics) - self._ahead)

    def check_finite(self, count=None):
        """Waits for the first `count` steps since the last report, all of them if None.

        Raises:
          NotFiniteError: if the loss of one of them, or its gradient, is not finite.
        """
        for step, metrics in self._metrics[self._checked : count]:
            loss, grad_norm = float(metrics["loss"]), float(metrics["grad_norm"])
            if not np.isfinite(loss + grad_norm):
                raise NotFiniteError(
                    f"the loss of step {step} is {loss}, the gradient's norm {grad_norm}. The last "
                    f"good checkpoint is kept in {self._workdir}; try a smaller "
                    f"optimizer.learning_rate, now {self._config.optimizer.learning_rate}."
                )
            self._checked += 1

    def train(self, step, images, reconstruction):
        """Writes the train/ curves: means since the last report, SSIM of the last batch."""
        self.check_finite()
        seconds = time.monotonic() - self._clock
        steps = [metrics for _, metrics in jax.device_get(self._metrics)]
        scalars = {  # a term that joined since the last report has fewer values
            f"train/{name}": float(np.mean([m[name] for m in steps if name in m]))
            for name in steps[-1]
        }
        scalars["train/learning_rate"] = float(steps[-1]["learning_rate"])
        scalars["train/ssim"] = float(self._ssim(images, reconstruction))
        if self._timed_steps:
            self._speeds.append(self._timed_steps * self._config.data.batch_size / seconds)
            scalars["train/images_per_second"] = self._speeds[-1]
        self._writer.write_scalars(step, scalars)
        self._progress.report(step, scalars)
        self._metrics, self._checked = [], 0
        self._restart_clock()

    def validate(self, step, state):
        """Writes the val/ curves over the whole split, reconstructions and the atoms."""
        variables = state.eval_variables()
        metrics = evaluate_split(
            self._eval_step, self._model, variables, self._validation,
            mesh=self._mesh, config=self._config,
        )  # fmt: skip
        scalars = {f"val/{name}": metrics[name] for name in metrics if name != "images"}
        self._writer.write_scalars(step, scalars)
        original, reconstruction = self._samples(variables)
        grid = reconstruction_grid(original, reconstruction)
        atoms = atom_sheet(decode_atoms(self._model, variables))
        self._writer.write_images(step, {"val/reconstructions": grid[None], "atoms": atoms[None]})
        self._writer.flush()
        self._restart_clock()
        return scalars

    def finish(self, state):
        """Validates, writes `metrics.json` and `reconstructions.png`, and says what to do next."""
        step = int(state.step)
        metrics = {"step": step, **self.validate(step, state)}
        if self._speeds:
            metrics["images_per_second"] = float(np.median(self._speeds))
        self._progress.close()
        if not self._is_main:
            return
        (self._workdir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        shown = {name.removeprefix("val/"): value for name, value in metrics.items()}
        reconstruction_figure(
            *self._samples(state.eval_variables()),
            self._workdir / "reconstructions.png",
            title=quality_title(self._validation, shown),
        )
        log.info("validation (%s)\n%s", self._validation.description, table(shown))
        log.info(
            "Look further:\n"
            "  %s\n"
            "  python main.py --workdir=%s --mode=evaluate\n"
            "  tensorboard --logdir=%s",
            self._workdir / "reconstructions.png", self._workdir, self._workdir,
        )  # fmt: skip

    def _samples(self, variables):
        """Validation images and their reconstructions, in [0, 1]."""
        images = spread(self._validation)
        return images / 255, np.asarray(reconstruct(self._model, variables, images))

    def _restart_clock(self):
        self._clock, self._timed_steps = time.monotonic(), 0
