"""The state of a run, read from its checkpoints or from exported weights.

weights.npz   in the place of checkpoints/: parameters and dictionary, as an evaluation uses them
"""

import logging
import shutil
import zipfile

import flax
import jax
import numpy as np

from laser_jax.files import whole_directory
from laser_jax.paths import resolve_workdir
from laser_jax.training.checkpoints import Checkpoints, DamagedCheckpoints
from laser_jax.training.state import TrainState, abstract_state
from laser_jax.training.workdir import WEIGHTS, write_config

log = logging.getLogger("laser_jax")


def read_state(workdir, setup, checkpoint="newest"):
    """Returns the `TrainState` of a run, or of exported weights, which are of one checkpoint.

    Args:
      workdir: directory of the run.
      setup: its `Setup`.
      checkpoint: `newest` or `best`.

    Raises:
      FileNotFoundError: if the workdir holds no such checkpoint.
      DamagedCheckpoints: if nothing that it holds is intact.
    """
    path = resolve_workdir(workdir)
    if (path / WEIGHTS).exists():
        return _read_weights(path / WEIGHTS, abstract_state(setup))
    with Checkpoints(workdir, best_metric=setup.config.best_metric) as checkpoints:
        return checkpoints.restore(abstract_state(setup), checkpoint)


def write_weights(directory, workdir, config, state):
    """Writes a directory that `load` reads: config, weights, and the tables of tokens if any.

    Args:
      directory: where they go; it must not exist or be empty.
      workdir: directory of the run, for its tables; None: there are none.
      config: the run's config.
      state: the `TrainState`; its moving averages are written, if it has them.

    Raises:
      ValueError: if the directory holds something.
    """
    path = resolve_workdir(directory)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists and is not empty; choose another directory.")
    weights = _tree(state.step, state.eval_variables())
    with whole_directory(path) as partial:
        write_config(partial, config)
        if workdir is not None and (tables := workdir / f"tokens-{int(state.step)}.npz").exists():
            shutil.copy2(tables, partial / tables.name)
        arrays = {name: jax.device_get(x) for name, x in named_arrays(weights).items()}
        np.savez(partial / WEIGHTS, **arrays)
    log.info("written: %s", path / WEIGHTS)


def _tree(step, variables):
    dictionary = variables["dictionary"]["bottleneck"]
    return {"step": step, "params": variables["params"], "dictionary": dictionary}


def named_arrays(tree):
    """Returns path -> array of a pytree, in the order of its leaves."""
    named = jax.tree.leaves_with_path(flax.core.unfreeze(tree))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in named}


def _read_weights(path, abstract):
    """Returns the `TrainState` of exported weights: without optimizer, averages and extra."""
    wanted = _tree(abstract.step, abstract.variables())
    try:
        with np.load(path) as file:  # a zip file, with checksums
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DamagedCheckpoints(f"{path} cannot be read: {error}") from error
    named = named_arrays(wanted)
    differ = [n for n, x in named.items() if n not in arrays or arrays[n].shape != x.shape]
    if differ:
        raise DamagedCheckpoints(
            f"{path} lacks {', '.join(differ[:5])} of the model in config.json, or has them in "
            "another shape."
        )
    leaves = [jax.device_put(arrays[n].astype(x.dtype), x.sharding) for n, x in named.items()]
    found = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    return TrainState(**found, opt_state=(), ema_params={}, extra={})
