"""Memory and time of a training step of a config, such as those at 256x256.

    python -m benchmarks.large_step --config=configs/vqgan_imagenette.py [--steps=3]
    python -m benchmarks.large_step --config=configs/vqgan_imagenette.py --config.data.batch_size=2

Any key of the config can be set, as for `main.py`. Prints a row without and one with the
discriminator, if the config has one. Memory is XLA's account of the compiled program. `--steps=0`
prints it without a step, so that it may be more than the device has.
"""

import argparse
import os
import sys
import time
from typing import NamedTuple

import jax
import numpy as np

from benchmarks.timing import print_table
from laser_jax import allocator
from laser_jax.ranges import as_size
from laser_jax.sharding import put_batch
from laser_jax.training import command_line
from laser_jax.training.setup import Setup
from laser_jax.training.state import abstract_state, initial_state
from laser_jax.training.step import TrainStep


class Cost(NamedTuple):
    """What a step costs.

    Attributes:
      lowering, compiling: seconds.
      temporary: bytes of temporary arrays.
      held: bytes of the state, the batch and the weights of LPIPS.
      step: median seconds of a step; None if none was made.
    """

    lowering: float
    compiling: float
    temporary: int
    held: int
    step: float | None


def cost_of(config, *, adversarial, steps):
    """Returns the `Cost` of a step of a config."""
    setup = Setup.from_config(config)
    shape = config.data.batch_size, *as_size(config.data.image_size), config.data.channels
    start = time.perf_counter()
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    lowered = TrainStep(setup).lower(abstract_state(setup), images, adversarial=adversarial)
    middle = time.perf_counter()
    program = lowered.compile()
    end, memory = time.perf_counter(), program.memory_analysis()
    seconds = None
    if steps:
        batch = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        seconds = _median(program, setup, put_batch(batch, setup.mesh), steps)
    sizes = memory.temp_size_in_bytes, memory.argument_size_in_bytes
    return Cost(middle - start, end - middle, *sizes, seconds)


def _median(program, setup, batch, steps):
    state, times = initial_state(setup), []
    for _ in range(steps + 1):  # the first one reads the program and the weights
        start = time.perf_counter()
        state, *_ = program(state, batch, lpips_params=setup.lpips_params)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_step")
    parser.add_argument("--config", default="configs/vqgan_imagenette.py")
    parser.add_argument("--steps", type=int, default=3)
    words, overrides = command_line.split_overrides(argv)
    options = parser.parse_args(words)
    config = command_line.load_config(options.config)
    command_line.override(config, overrides, template=config)
    if config.prior.kind is not None:
        parser.error(f"{options.config} is the config of a prior; give one of an autoencoder.")
    rows = []
    for adversarial in (False, True) if config.adversarial.weight else (False,):
        cost = cost_of(config, adversarial=adversarial, steps=options.steps)
        rows.append([
            "yes" if adversarial else "no", f"{cost.lowering:.0f}", f"{cost.compiling:.0f}",
            f"{cost.temporary / 2**30:.2f}", f"{cost.held / 2**30:.2f}",
            *(("", "") if cost.step is None
              else (f"{cost.step:.2f}", f"{config.data.batch_size / cost.step:.3g}")),
        ])  # fmt: skip
    header = ["discriminator", "trace and lower, s", "compile, s", "temporary, GiB",
              "state, batch and LPIPS, GiB", "step, s", "images/s"]  # fmt: skip
    size = "x".join(map(str, as_size(config.data.image_size)))
    title = f"{options.config}, {size}, batch {config.data.batch_size}"
    print_table(f"{title}, {jax.devices()[0].device_kind}", header, rows)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as main.py
    allocator.keep_freed_memory()
    main(sys.argv[1:])
