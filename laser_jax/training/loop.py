"""Training: from a config and a workdir to a trained autoencoder, from wherever it stands."""

import contextlib
import logging
import shlex

import jax
from jax.experimental.multihost_utils import sync_global_devices

from laser_jax.data import open_split, train_batches
from laser_jax.models import build_model
from laser_jax.paths import resolve_config, resolve_workdir
from laser_jax.sharding import check_batch_size, data_mesh, put_batch
from laser_jax.training.adversary import build_adversary
from laser_jax.training.checkpoints import Checkpoints
from laser_jax.training.optimizer import build_optimizer
from laser_jax.training.preemption import Stopped, StopSignal, hold, needs_every_process
from laser_jax.training.reporter import Reporter
from laser_jax.training.settings import check_config
from laser_jax.training.step import (
    abstract_state,
    init_dictionary,
    initial_state,
    load_lpips_params,
    make_train_step,
)
from laser_jax.training.workdir import check_same_run, make_room, planned_lengths, write_config

log = logging.getLogger("laser_jax")


def train(config, workdir):
    """Trains until `config.num_train_steps`, going on from the workdir's newest checkpoint.

    Writes `config.json`, `checkpoints/`, TensorBoard events, and at the end `metrics.json`
    and `reconstructions.png`.

    Args:
      config: as in `configs/default.py`.
      workdir: directory of the run, made if need be.

    Returns:
      The final `TrainState`.

    Raises:
      ValueError: if values of the config are out of range or do not fit each other, or the
        workdir holds another run.
      OSError: if the workdir cannot be written, now or later, or weights that the loss needs are
        not there; the checkpoints written before stay.
      NotFiniteError: if a step's loss or new state is not finite and the run is not to skip it,
        or has skipped as many as it may; the last checkpoint stays.
      WorkdirInUse: if another process trains there.
      Stopped: after SIGTERM or SIGINT, the checkpoint of the last step written.
      LostProcess: if another process of the job is gone.
    """
    check_config(config)
    workdir, config, mesh = resolve_workdir(workdir), resolve_config(config), data_mesh()
    check_batch_size("data.batch_size", config.data.batch_size, mesh)
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    model, adversary = build_model(config), build_adversary(config)
    optimizer = build_optimizer(config, learns_by_gradient=model.bottleneck.learns_by_gradient)
    check_same_run(workdir, config)
    lpips_params = load_lpips_params(config, mesh)
    images, validation = (open_split(config.data, s) for s in ("train", "validation"))
    stream = batches(config, images, 0)  # checks that there are enough images for one
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            stack.enter_context(hold(workdir))
            make_room(workdir, config)
        wait_for_first_process("the workdir is ready")
        checkpoints = stack.enter_context(
            Checkpoints(workdir, best_metric=config.best_metric, keep=config.keep_checkpoints)
        )
        stack.enter_context(needs_every_process(workdir))
        if checkpoints.latest_step() is None:
            state = initial_state(config, model, optimizer, mesh)
            state = init_dictionary(state, model, config, stream, mesh)
            store_config(workdir, config, 0)  # not before all of the above has worked
            checkpoints.save(state)
        else:
            state = checkpoints.restore(abstract_state(config, model, optimizer, mesh))
            log.info("going on from step %d of %s", state.step, workdir)
            store_config(workdir, config, int(state.step))
        optimizer = build_optimizer(
            config,
            learns_by_gradient=model.bottleneck.learns_by_gradient,
            lengths=planned_lengths(workdir),
        )
        first, last = int(state.step), config.num_train_steps
        train_step = make_train_step(model, optimizer, config, mesh, lpips_params)
        report = Reporter(config, workdir, model, validation, mesh, state, lpips_params)
        with report, StopSignal() as stop:
            stream = batches(config, images, first)
            quality = report.validate(last, state) if first >= last else None
            for step in range(first + 1, last + 1):
                batch = put_batch(next(stream), mesh)
                adversarial = adversary is not None and adversary.plays(step)
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
                    report.flush()  # a run that goes on from here does not write these points again
                    checkpoints.save(state, quality if validated else None)
                if reason and step != last:
                    raise Stopped(
                        f"stopped by {reason} after step {step}; the same command goes on from "
                        f"there, or python main.py --workdir={shlex.quote(str(workdir))}."
                    )
            report.finish(state, quality)
    return state


def store_config(workdir, config, step):
    """Stores the config that holds from a step on, before any process reads it back."""
    if jax.process_index() == 0:
        write_config(workdir, config, step)
    wait_for_first_process("the config is stored")


def wait_for_first_process(what):
    """Waits until every process has come to this point; `what` is the same for all of them."""
    if jax.process_count() > 1:
        sync_global_devices(what)


def batches(config, source, start_step):
    """Returns this process's endless training batches, from a step on."""
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
