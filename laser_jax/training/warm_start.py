"""A new run that starts from the weights of another one."""

import collections
import logging

import jax
import jax.numpy as jnp

from laser_jax.paths import resolve_workdir
from laser_jax.sharding import replicated
from laser_jax.training.restored import restore_run
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state
from laser_jax.training.weights import named_arrays
from laser_jax.training.workdir import WEIGHTS, read_config

log = logging.getLogger("laser_jax")

_MOST_NAMES = 20  # of arrays in a log line; the rest is counted by group


def check_source(setup):
    """Checks that the run `init_from` has weights, and that some of them fit a new run.

    Args:
      setup: the `Setup` of the new run.

    Raises:
      FileNotFoundError: if it holds no run, or no checkpoint.
      ValueError: if it holds a prior, or no array of its network fits.
    """
    path = resolve_workdir(setup.config.init_from)
    source = Setup.from_config(_source_config(path), setup.mesh)
    if not (path / WEIGHTS).exists() and not list((path / "checkpoints").glob("[0-9]*")):
        raise FileNotFoundError(f"init_from {path} holds no checkpoint yet; give a trained run.")
    old, new = (named_arrays(abstract_state(x).params) for x in (source, setup))
    if not any(name in old and old[name].shape == x.shape for name, x in new.items()):
        raise ValueError(
            f"no array of the network fits: init_from {path} would give nothing. Give a run of "
            f"a similar model (there: {_network(source)}; here: {_network(setup)}), or omit it."
        )


def _network(setup):
    model = setup.config.model
    return f"model.network {model.network}, num_hiddens {model.num_hiddens}"


def _source_config(workdir):
    """Returns the config of the run to start from."""
    config = read_config(workdir)
    if config.prior.kind is not None:
        raise ValueError(f"{workdir} holds a prior; init_from must be the run of an autoencoder.")
    return config


def take_weights(setup, state, workdir):
    """Returns a new state with the weights of another run that fit, and whether the atoms did.

    An array fits if one of its name and shape is there. The log names all others. Weights are
    those that an evaluation of the other run uses. A dictionary of other atoms is not taken.

    Args:
      setup: the `Setup` of the new run.
      state: its `TrainState` at step 0.
      workdir: directory of the other run, or of exported weights.

    Raises:
      ValueError: if it holds a prior.
    """
    _source_config(workdir)  # raises if it holds a prior
    _, source = restore_run(workdir, mesh=setup.mesh)
    found = source.eval_variables()
    there = {"params": found["params"], "dictionary": found["dictionary"]["bottleneck"]}
    here = {"params": state.params, "dictionary": dict(state.dictionary)}
    if setup.adversary:
        here["discriminator"] = state.extra["discriminator"]["params"]
        there["discriminator"] = source.extra.get("discriminator", {}).get("params", {})
    # Usage and statistics belong to their atoms: others begin anew with the atoms taken.
    atoms = _fitting(there["dictionary"]["atoms"], here["dictionary"]["atoms"])
    bottleneck = setup.model.bottleneck
    has_atoms = atoms is not None and bottleneck.is_learned
    if has_atoms:
        new = jax.jit(bottleneck.memory, out_shardings=replicated(setup.mesh))(atoms)
        # Copies here and below, because a step cannot donate one buffer twice.
        here["dictionary"] = {"atoms": atoms, **jax.tree.map(jnp.copy, new)}
    else:
        there["dictionary"] = {}
    old, new = named_arrays(there), named_arrays(here)
    taken = {name: _fitting(old.get(name), x) for name, x in new.items()}
    _report(workdir, source, old, new, taken)
    leaves = [x if taken[name] is None else taken[name] for name, x in new.items()]
    here = jax.tree.unflatten(jax.tree.structure(here), leaves)
    averages = {"params": here["params"], "atoms": here["dictionary"]["atoms"]}
    averages = {name: jax.tree.map(jnp.copy, averages[name]) for name in state.ema_params}
    extra = dict(state.extra)
    if setup.adversary:
        extra["discriminator"] = {**extra["discriminator"], "params": here["discriminator"]}
    state = state.replace(
        params=here["params"], dictionary=here["dictionary"], ema_params=averages, extra=extra
    )
    return state, has_atoms


def _fitting(old, new):
    """Returns an array in the dtype of the new one, None if it is missing or of another shape."""
    if old is None or old.shape != new.shape:
        return None
    return jax.device_put(old.astype(new.dtype), new.sharding)


def _report(workdir, source, old, new, taken):
    """Logs which arrays were taken, and names those that were not."""
    missing = [name for name, x in taken.items() if x is None]
    lines = [f"init_from {workdir}, step {int(source.step)}: {len(new) - len(missing)} of "
             f"{len(new)} arrays taken"]  # fmt: skip
    lines += [
        f"  {name} {new[name].shape} is new"
        + (f", there it is {old[name].shape}" if name in old else "")
        for name in missing[:_MOST_NAMES]
    ] + _groups(missing[_MOST_NAMES:], "new")
    unused = [name for name in old if name not in new]
    lines += [f"  {name} {old[name].shape} is not used" for name in unused[:_MOST_NAMES]]
    lines += _groups(unused[_MOST_NAMES:], "not used")
    log.info("%s", "\n".join(lines))


def _groups(names, what):
    """Returns lines that count further arrays by the first three parts of their names."""
    counts = collections.Counter("/".join(name.split("/")[:3]) for name in names)
    return [f"  {group}/...: {count} more are {what}" for group, count in counts.items()]
