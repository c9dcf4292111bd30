"""The training loop: starts or resumes the run of a workdir."""

import contextlib
import logging
import shlex

import jax
from jax.experimental.multihost_utils import sync_global_devices

from laser_jax.data import open_split, train_batches
from laser_jax.paths import resolve_config, resolve_workdir
from laser_jax.sharding import check_batch_size, put_batch
from laser_jax.training.checkpoints import Checkpoints
from laser_jax.training.preemption import Stopped, StopSignal, detect_lost_process, lock_workdir
from laser_jax.training.reporter import Reporter
from laser_jax.training.settings import check_config
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state, init_dictionary, initial_state
from laser_jax.training.step import TrainStep
from laser_jax.training.workdir import (
    archive_unstarted_run,
    check_same_run,
    planned_lengths,
    write_config,
)

log = logging.getLogger("laser_jax")


def train(config, workdir):
    """Trains up to step `config.num_train_steps`, from the newest checkpoint of the workdir if any.

    Writes `config.json`, `checkpoints/` and TensorBoard event files, and at the end
    `metrics.json` and `reconstructions.png`.

    Args:
      config: as in `configs/default.py`.
      workdir: directory of the run; created if it does not exist.

    Returns:
      The final `TrainState`.

    Raises:
      ValueError: if values of the config are out of range or inconsistent, or the workdir holds
        a different run.
      OSError: if the workdir cannot be written, at the start or later, or pretrained weights of
        the loss are missing. Earlier checkpoints are kept.
      NotFiniteError: if the loss or the new state of a step is not finite and `not_finite` is
        "stop", or `max_skipped_steps` were skipped already. The last checkpoint is kept.
      WorkdirInUse: if another process is training in the workdir.
      Stopped: after SIGTERM or SIGINT, once the checkpoint of the last step is written.
      LostProcess: if another process of the job died.
    """
    check_config(config)
    workdir, setup = resolve_workdir(workdir), Setup.from_config(resolve_config(config))
    config = setup.config
    check_batch_size("data.batch_size", config.data.batch_size, setup.mesh)
    check_batch_size("eval.batch_size", config.eval.batch_size, setup.mesh)
    _ = setup.adversary, setup.optimizer  # raise if their values are inconsistent
    check_same_run(workdir, config)
    _ = setup.lpips_params  # raises if the weights are missing
    images, validation = (open_split(config.data, split) for split in ("train", "validation"))
    stream = batches(config, images, 0)  # raises if there are too few images for a batch
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(lock_workdir(workdir))
            archive_unstarted_run(workdir, config)
        wait_for_first_process("the workdir is ready")
        checkpoints = stack.enter_context(
            Checkpoints(workdir, best_metric=config.best_metric, keep=config.keep_checkpoints)
        )
        stack.enter_context(detect_lost_process(workdir))
        state = start_or_resume(setup, workdir, checkpoints, stream)
        setup = setup.with_lengths(planned_lengths(workdir))
        report = stack.enter_context(Reporter(setup, workdir, images, validation, state))
        stop = stack.enter_context(StopSignal())
        state, quality = run_steps(setup, state, images, checkpoints, report, stop)
        report.finish(state, quality)
    return state


def start_or_resume(setup, workdir, checkpoints, stream):
    """Stores the config and returns the state of the newest checkpoint, or an initial state."""
    config = setup.config
    if checkpoints.latest_step() is None:
        state = init_dictionary(setup, initial_state(setup), stream)
        store_config(workdir, config, 0)  # last: a failed start leaves no config behind
        checkpoints.save(state)
    else:
        state = checkpoints.restore(abstract_state(setup))
        log.info("resuming from step %d of %s", state.step, workdir)
        store_config(workdir, config, int(state.step))
    return state


def run_steps(setup, state, images, checkpoints, report, stop):
    """Trains from a state to the last step, with reports, validations and checkpoints.

    Args:
      setup: the `Setup`.
      state: the `TrainState` to start from.
      images: the training split.
      checkpoints: the run's `Checkpoints`.
      report: its `Reporter`.
      stop: a `StopSignal`.

    Returns:
      The final state and the metrics of its validation.
    """
    config, adversary, train_step = setup.config, setup.adversary, TrainStep(setup)
    first, last = int(state.step), config.num_train_steps
    stream = batches(config, images, first)
    quality = report.validate(last, state) if first >= last else None
    for step in range(first + 1, last + 1):
        batch = put_batch(next(stream), setup.mesh)
        adversarial = adversary is not None and adversary.is_active(step)
        state, metrics, reconstruction = train_step(state, batch, adversarial=adversarial)
        report.step(step, metrics)
        if step % config.log_every_steps == 0 or step == last:
            report.train(step, batch, reconstruction)
            checkpoints.check()
        validated = step % config.eval_every_steps == 0 or step == last
        if validated:
            quality = report.validate(step, state)
        reason = stop.reason(step)
        if step % config.checkpoint_every_steps == 0 or validated or reason:
            report.check_finite()
            report.flush()  # a run resumed from this checkpoint does not write these points again
            checkpoints.save(state, quality if validated else None)
        if reason and step != last:
            raise Stopped(
                f"stopped by {reason} after step {step}; the same command resumes from there, or "
                f"python main.py --workdir={shlex.quote(str(report.workdir))}."
            )
    return state, quality


def store_config(workdir, config, step):
    """Stores the config in force from a step on, before any process reads it back."""
    if jax.process_index() == 0:
        write_config(workdir, config, step)
    wait_for_first_process("the config is stored")


def wait_for_first_process(what):
    """Blocks until every process reaches this point; `what` must be equal on all of them."""
    if jax.process_count() > 1:
        sync_global_devices(what)


def batches(config, source, start_step):
    """Returns an endless iterator of this process's training batches, from a step on."""
    data = config.data
    return train_batches(
        source,
        batch_size=data.batch_size,
        seed=config.seed,
        start_step=start_step,
        flip=data.flip,
        crop_padding=data.crop_padding,
        num_threads=data.num_threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
