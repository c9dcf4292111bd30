"""The state of a trained run, read from its workdir."""

import dataclasses

import jax

from laser_jax.checks import check_choice
from laser_jax.paths import resolve_workdir
from laser_jax.sharding import data_mesh
from laser_jax.training.checkpoints import WHICH
from laser_jax.training.prior_setup import PriorSetup
from laser_jax.training.setup import Setup
from laser_jax.training.weights import read_state
from laser_jax.training.workdir import read_config


def restore_run(workdir, *, mesh=None, checkpoint="newest", autoencoder=None):
    """Returns the setup and the state of the newest, or best, checkpoint of a workdir.

    Args, Raises: as `laser_jax.load`.
    """
    check_choice("checkpoint", checkpoint, WHICH)
    config = read_config(workdir)
    if autoencoder is not None:
        with config.ignore_type():
            config.autoencoder = str(resolve_workdir(autoencoder))
    setup = setup_of(config).from_config(config, mesh or data_mesh(jax.local_devices()[:1]))
    if config.prior.kind is not None:
        setup = dataclasses.replace(setup, workdir=resolve_workdir(workdir))
    _ = setup.model  # a prior's reads the autoencoder, which must not happen while tracing
    return setup, read_state(workdir, setup, checkpoint)


def setup_of(config):
    """Returns the class of a config's setup: an autoencoder's or a prior's."""
    return Setup if config.prior.kind is None else PriorSetup
