"""Prints the losses of a run's first steps, and checks that all devices hold the same state.

python -m experiments.faults.first_steps ksvd float32 1
"""

import json
import sys

import jax
import numpy as np

from configs import tiny
from laser_jax.data import open_split
from laser_jax.models import build_model
from laser_jax.sharding import data_mesh, put_batch
from laser_jax.training.loop import batches
from laser_jax.training.optimizer import build_optimizer
from laser_jax.training.step import init_dictionary, initial_state, make_train_step


def main(bottleneck, dtype, steps):
    config, mesh = tiny.get_config(), data_mesh()
    config.model.update(bottleneck=bottleneck, dtype=dtype)
    model = build_model(config)
    optimizer = build_optimizer(config, learns_by_gradient=model.bottleneck.learns_by_gradient)
    images = open_split(config.data, "train")
    state = initial_state(config, model, optimizer, mesh)
    state = init_dictionary(state, model, config, batches(config, images, 0), mesh)
    train_step, stream = make_train_step(model, optimizer, config, mesh), batches(config, images, 0)
    losses = []
    for _ in range(int(steps)):
        state, metrics, _ = train_step(state, put_batch(next(stream), mesh))
        losses.append(float(metrics["loss"]))
    for path, array in jax.tree.leaves_with_path(state):
        first, *others = (np.asarray(shard.data) for shard in array.addressable_shards)
        if not all(np.array_equal(first, other) for other in others):
            sys.exit(f"{jax.tree_util.keystr(path)} is not the same on every device")
    print(json.dumps(losses))


if __name__ == "__main__":
    main(*sys.argv[1:])
