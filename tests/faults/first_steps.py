"""Prints the losses of a run's first steps, and checks that all devices hold the same state.

python -m tests.faults.first_steps ksvd float32 1
"""

import json
import sys

import jax
import numpy as np

from configs import tiny
from laser_jax.data import open_split
from laser_jax.sharding import put_batch
from laser_jax.training.loop import batches
from laser_jax.training.setup import Setup
from laser_jax.training.state import init_dictionary, initial_state
from laser_jax.training.step import TrainStep


def main(bottleneck, dtype, steps):
    config = tiny.get_config()
    config.model.update(bottleneck=bottleneck, dtype=dtype)
    setup = Setup.from_config(config)
    images = open_split(config.data, "train")
    state = init_dictionary(setup, initial_state(setup), batches(config, images, 0))
    train_step, stream = TrainStep(setup), batches(config, images, 0)
    losses = []
    for _ in range(int(steps)):
        state, metrics, _ = train_step(state, put_batch(next(stream), setup.mesh))
        losses.append(float(metrics["loss"]))
    for path, array in jax.tree.leaves_with_path(state):
        first, *others = (np.asarray(shard.data) for shard in array.addressable_shards)
        if not all(np.array_equal(first, other) for other in others):
            sys.exit(f"{jax.tree_util.keystr(path)} is not the same on every device")
    print(json.dumps(losses))


if __name__ == "__main__":
    main(*sys.argv[1:])
