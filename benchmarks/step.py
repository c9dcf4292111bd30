"""Images per second of the training step, for each bottleneck and dictionary update.

    python -m benchmarks.step [--num_hiddens=64] [--batch_size=64] [--rounds=12]

The network of `configs/*_photos.py` on 32x32 images. Online and K-SVD update the dictionary every
`--update_every_steps` steps, gradient and VQ every step. Rows with a + have one more loss. "plain
convolutions" is the VQ row with XLA's own strided and dilated convolutions, and JAX's gradients of
them, instead of the equal forms in `laser_jax.models.layers`. Where PyTorch is installed, its rows
are the same network with an update every step (`torch_twins`). The rows run in turn; times are
medians of four steps, after compilation. Memory is that of arguments, result and temporary arrays
of a compiled step.
"""

import argparse
import dataclasses
import os
import time
from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from jax import lax

from benchmarks.timing import first_call, installed, median_times, number, print_table
from configs import ksvd_photos
from laser_jax import allocator
from laser_jax.models import encoder, layers
from laser_jax.sharding import put_batch
from laser_jax.training.setup import Setup
from laser_jax.training.state import initial_state
from laser_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Options:
    """What the rows share."""

    num_hiddens: int = 64  # channels of encoder and decoder
    batch_size: int = 64  # images a step
    update_every_steps: int = 1  # steps between updates of the dictionary
    rounds: int = 12  # rounds of four steps each
    image_size: int = 32  # pixels a side
    num_downsamples: int = 2  # halvings from images to latents


class Row(NamedTuple):
    """A training step to time.

    Attributes:
      run: makes four steps and waits.
      parameters: how many the network has.
      seconds: of tracing and compiling; of the first four steps in PyTorch.
      megabytes: of a compiled step, and its floating point operations; None in PyTorch.
    """

    run: Callable[[], None]
    parameters: int
    seconds: float
    megabytes: float | None = None
    operations: float | None = None


APPROXIMATE = {"model": {"ksvd_method": "approximate"}}
ROWS = {
    "plain convolutions, vq": {"model": {"bottleneck": "vq"}},
    "vq": {"model": {"bottleneck": "vq"}},
    "rvq": {"model": {"bottleneck": "rvq"}},
    "fsq": {"model": {"bottleneck": "fsq"}},
    "hybrid": {"model": {"bottleneck": "hybrid", "ksvd_method": "approximate"}},
    "gradient": {"model": {"bottleneck": "dl"}},
    "online": {"model": {"dictionary_update": "online"}},
    "ksvd, exact": {},
    "ksvd, approximate": APPROXIMATE,
    "ksvd, parallel": {"model": {"ksvd_method": "parallel"}},
    # Further losses; compare with the row "ksvd, approximate".
    "+ mr_dct and mr_grad": {**APPROXIMATE, "loss": {"mr_dct_weight": 0.1, "mr_grad_weight": 0.1}},
    "+ perceptual, alex": {
        **APPROXIMATE,
        "loss": {"perceptual_weight": 0.02, "perceptual_net": "alex"},
    },
    "+ perceptual, vgg": {**APPROXIMATE, "loss": {"perceptual_weight": 0.02}},
    "+ adversarial": {**APPROXIMATE, "adversarial": {"weight": 0.1}},
}
TORCH_ROWS = {  # bottleneck of the twin -> the row it is compared with
    "vq": "vq",
    "rvq": "rvq",
    "fsq": "fsq",
    "gradient": "gradient",
    "online": "online",
    "ksvd": "ksvd, exact",
}
STEPS = 4  # timed together: one of them updates the dictionary every four steps
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class PlainDownConv(layers.DownConv):
    """`DownConv` as XLA's strided convolution."""

    def convolve(self, x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), [(1, 1), (1, 1)], dimension_numbers=DIMENSIONS
        )


class PlainUpConv(layers.UpConv):
    """`UpConv` as XLA's dilated convolution."""

    def convolve(self, x, kernel):
        return lax.conv_general_dilated(
            x, kernel[::-1, ::-1], (1, 1), [(2, 2), (2, 2)],
            lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS,
        )  # fmt: skip


PLAIN = PlainDownConv, PlainUpConv


def make_row(changes, options):
    """Returns the `Row` of a config's changes."""
    config = ksvd_photos.get_config()
    config.model.num_hiddens = options.num_hiddens
    config.model.num_downsamples = options.num_downsamples
    config.model.update_every_steps = options.update_every_steps
    config.data.image_size = options.image_size
    config.update(changes)
    setup = Setup.from_config(config)
    state = initial_state(setup)
    batch = put_batch(random_images(options), setup.mesh)
    parameters, start = count(state.params), time.perf_counter()
    lowered = TrainStep(setup).lower(state, batch, adversarial=setup.adversary is not None)
    compiled = lowered.compile()
    seconds = time.perf_counter() - start

    def steps():
        nonlocal state
        for _ in range(STEPS):
            state, metrics, _ = compiled(state, batch, lpips_params=setup.lpips_params)
            jax.block_until_ready((state, metrics))

    return Row(steps, parameters, seconds, megabytes(compiled), operations(compiled))


def megabytes(compiled):
    """Returns what a program takes of memory, donated arguments counted once."""
    sizes = compiled.memory_analysis()
    total = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return (total - sizes.alias_size_in_bytes) / 1e6


def operations(compiled):
    """Returns XLA's count of a program's floating point operations; None where it has none."""
    return (compiled.cost_analysis() or {}).get("flops")


def make_torch_row(bottleneck, options):
    """Returns the `Row` of the same network in PyTorch."""
    from benchmarks import torch_twins

    train_step = torch_twins.TrainStep(bottleneck, hiddens=options.num_hiddens)
    images = torch_twins.tensor(random_images(options))

    def steps():
        for _ in range(STEPS):
            train_step(images)

    return Row(steps, train_step.num_parameters, first_call(steps))


def random_images(options):
    shape = options.batch_size, options.image_size, options.image_size, 3
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def build_rows(changes, torch_rows, options):
    """Returns name -> `Row`.

    Args:
      changes: name -> changes of the config.
      torch_rows: bottleneck of a twin -> the row that it is compared with.
      options: the `Options`.

    Raises:
      SystemExit: if a twin's network has another number of parameters than ours.
    """
    rows = {}
    for name, change in changes.items():
        down, up = PLAIN if name.startswith("plain") else (layers.DownConv, layers.UpConv)
        with mock.patch.multiple(encoder, DownConv=down, UpConv=up):  # until it is compiled
            rows[name] = make_row(change, options)
    for bottleneck, ours in torch_rows.items():
        name = f"PyTorch, {bottleneck}"
        rows[name] = make_torch_row(bottleneck, options)
        if (size := rows[name].parameters) != (expected := rows[ours].parameters):
            raise SystemExit(f"{name} has {size} parameters, {ours} has {expected}.")
    return rows


def print_rows(rows, torch_rows, options):
    """Times the rows in turn and prints a table."""
    for row in rows.values():
        row.run()
    times = median_times({name: row.run for name, row in rows.items()}, rounds=options.rounds)
    milliseconds = {name: ms / STEPS for name, ms in times.items()}
    beside = {ours: f"PyTorch, {theirs}" for theirs, ours in torch_rows.items()}
    beside |= {name: beside.get("ksvd, exact") for name in rows if name.startswith("ksvd")}
    lines = []
    for name, ms in milliseconds.items():
        twin = milliseconds.get(beside.get(name))
        lines.append([
            name, f"{ms:.1f}", f"{1e3 * options.batch_size / ms:.0f}", f"{rows[name].seconds:.1f}",
            number(rows[name].megabytes), f"{twin / ms:.2f}" if twin else "",
        ])  # fmt: skip
    title = (
        f"Training step: batch {options.batch_size}, {options.num_hiddens} hidden units, "
        f"{options.image_size} pixels, dictionary updates every {options.update_every_steps} "
        f"steps, {jax.devices()[0].device_kind}"
    )
    header = ["step", "ms", "images/s", "compile, s", "memory, MB", "PyTorch / this"]
    print_table(title, header, lines)
    return milliseconds


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step")
    for field in dataclasses.fields(Options):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    options = Options(**vars(parser.parse_args()))
    torch_rows = TORCH_ROWS if installed("torch") else {}
    print_rows(build_rows(ROWS, torch_rows, options), torch_rows, options)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as main.py
    allocator.keep_freed_memory()
    main()
