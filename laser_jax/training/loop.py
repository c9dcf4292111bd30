"""The training loop: starts or resumes the run of a workdir."""

import contextlib
import logging
import shlex

import jax

from laser_jax.data import open_split, shuffled_batches, train_batches
from laser_jax.paths import resolve_config, resolve_workdir
from laser_jax.sharding import check_batch_size, put_batch, wait_for_first_process
from laser_jax.training.checkpoints import Checkpoints
from laser_jax.training.preemption import Stopped, StopSignal, detect_lost_process, lock_workdir
from laser_jax.training.prior_reporter import PriorReporter
from laser_jax.training.prior_step import PriorStep
from laser_jax.training.reporter import Reporter
from laser_jax.training.restored import setup_of
from laser_jax.training.settings import check_config
from laser_jax.training.state import abstract_state, initial_state, with_discriminator
from laser_jax.training.step import TrainStep
from laser_jax.training.token_set import TokenSet
from laser_jax.training.warm_start import check_source, take_weights
from laser_jax.training.workdir import (
    archive_unstarted_run,
    check_same_run,
    has_steps,
    planned_lengths,
    write_config,
)

log = logging.getLogger("laser_jax")


def train(config, workdir):
    """Trains up to step `config.num_train_steps`, from the newest checkpoint of the workdir if any.

    An autoencoder, or if `config.prior.kind` says so a prior of the tokens of one. Writes
    `config.json`, `checkpoints/` and TensorBoard event files, and at the end `metrics.json` and
    `reconstructions.png`, of a prior `samples.png`. A prior's run also has `tokens/`.

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
    workdir, config = resolve_workdir(workdir), resolve_config(config)
    setup, trains_prior = setup_of(config).from_config(config), config.prior.kind is not None
    parts = config.optimizer.accumulate_steps
    check_batch_size("data.batch_size", config.data.batch_size, setup.mesh, parts)
    check_batch_size("eval.batch_size", config.eval.batch_size, setup.mesh)
    setup.check()
    check_same_run(workdir, config)
    if config.init_from is not None and not has_steps(workdir):
        check_source(setup)
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
        source, validation = setup.training_data(workdir, images, validation)
        state = start_or_resume(setup, workdir, checkpoints, source, stream)
        del stream  # and the processes that read for it
        setup = setup.with_lengths(planned_lengths(workdir))
        reporter, step = (PriorReporter, PriorStep) if trains_prior else (Reporter, TrainStep)
        report = stack.enter_context(reporter(setup, workdir, source, validation, state))
        stop = stack.enter_context(StopSignal())
        state, quality = run_steps(setup, step(setup), state, source, checkpoints, report, stop)
        report.finish(state, quality)
    return state


def start_or_resume(setup, workdir, checkpoints, source, stream):
    """Stores the config and returns the state of the newest checkpoint, or an initial state."""
    config = setup.config
    if checkpoints.latest_step() is None:
        state, has_atoms = initial_state(setup), False
        if config.init_from is not None:
            state, has_atoms = take_weights(setup, state, config.init_from)
        if not has_atoms:
            state = setup.fit_start(state, source, stream)
        store_config(workdir, config, 0)  # last: a failed start leaves no config behind
        checkpoints.save(state)
    else:
        state = with_discriminator(setup, checkpoints.restore(abstract_state(setup)))
        log.info("resuming from step %d of %s", state.step, workdir)
        store_config(workdir, config, int(state.step))
    return state


def run_steps(setup, train_step, state, source, checkpoints, report, stop):
    """Trains from a state to the last step, with reports, validations and checkpoints.

    With `patience` it ends earlier, once so many validations were no better than the best.

    Args:
      setup: the `Setup`.
      train_step: its compiled step.
      state: the `TrainState` to start from.
      source: the training data.
      checkpoints: the run's `Checkpoints`.
      report: its `Reporter`.
      stop: a `StopSignal`.

    Returns:
      The final state and the metrics of its validation.
    """
    config = setup.config
    first, last = int(state.step), config.num_train_steps
    if stalled(config, checkpoints):
        last = first
    stream = batches(config, source, first)
    quality = report.end_at(first, state) if first >= last else None
    for step in range(first + 1, last + 1):
        batch = put_batch(next(stream), setup.mesh)
        state, metrics, reconstruction = train_step(state, batch, **setup.step_options(step))
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
        if validated and step != last and stalled(config, checkpoints):
            quality = report.end_at(step, state)
            break
        if reason and step != last:
            raise Stopped(
                f"stopped by {reason} after step {step}; the same command resumes from there, or "
                f"python main.py --workdir={shlex.quote(str(report.workdir))}."
            )
    return state, quality


def stalled(config, checkpoints):
    """Returns whether `patience` validations in a row were no better than the best one."""
    steps = checkpoints.steps_since_best()
    if not config.patience or steps < config.patience * config.eval_every_steps:
        return False
    log.info(
        "%s has not improved for %d steps; the run ends (patience %d validations).",
        config.best_metric, steps, config.patience,
    )  # fmt: skip
    return True


def store_config(workdir, config, step):
    """Stores the config in force from a step on, before any process reads it back."""
    if jax.process_index() == 0:
        write_config(workdir, config, step)
    wait_for_first_process("the config is stored")


def batches(config, source, start_step):
    """Returns an endless iterator of this process's training batches, from a step on."""
    data = config.data
    options = {
        "batch_size": data.batch_size,
        "seed": config.seed,
        "start_step": start_step,
        "num_threads": data.num_threads,
        "num_workers": data.num_workers,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
    if isinstance(source, TokenSet):
        return shuffled_batches(source, **options)
    crop = {"crop_padding": data.crop_padding, "min_crop_area": data.min_crop_area}
    return train_batches(source, flip=data.flip, **crop, **options)
