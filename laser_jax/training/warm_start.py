"""A new run that starts from the weights of another one."""

import logging

import jax
import jax.numpy as jnp

from laser_jax.sharding import replicated
from laser_jax.training.restored import restore_run
from laser_jax.training.weights import named_arrays
from laser_jax.training.workdir import read_config

log = logging.getLogger("laser_jax")

_MOST_NAMES = 20  # names of arrays in one log line


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
    if read_config(workdir).prior.kind is not None:
        raise ValueError(f"{workdir} holds a prior; init_from must be the run of an autoencoder.")
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
    ]
    unused = [f"  {name} {old[name].shape} is not used" for name in old if name not in new]
    rest = len(missing[_MOST_NAMES:]) + len(unused[_MOST_NAMES:])
    lines += unused[:_MOST_NAMES] + [f"  and {rest} more"] * (rest > 0)
    log.info("%s", "\n".join(lines))
