"""Reads curves, metrics and checkpoints of a run for comparison."""

import contextlib
import json

import numpy as np
import orbax.checkpoint as ocp
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import laser_jax

_TIMES = "images_per_second"  # differ between any two runs


def read_curves(workdir):
    """Returns tag -> `(step, value)` of every scalar that TensorBoard shows, except times."""
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
    points = {
        tag: [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if not tag.endswith(_TIMES)
    }
    return {
        tag: [(step, float(value)) for step, value in found]
        for tag, found in points.items()
        if found[0][1].ndim == 0  # not an image
    }


def read_metrics(workdir):
    """Returns the contents of `metrics.json`, except times."""
    metrics = json.loads((workdir / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if not name.endswith(_TIMES)}


def read_checksums(workdir):
    """Returns step -> the checksums of each array, as stored with the checkpoint.

    Checkpoints that a killed run was deleting are left out.
    """
    path, handler = workdir.absolute() / "checkpoints", ocp.StandardCheckpointHandler()
    with ocp.CheckpointManager(path, item_handlers=handler) as manager:
        found = {}
        for step in manager.all_steps():
            with contextlib.suppress(Exception):  # as orbax has it: files or metadata are gone
                found[step] = manager.metadata(step).custom_metadata["checksums"]
    return found


def read_state(workdir):
    """Returns the arrays of the newest checkpoint, by path."""
    import jax

    leaves = jax.tree.leaves_with_path(laser_jax.load(workdir).state)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
