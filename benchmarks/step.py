"""Images per second of the training step, for each bottleneck and dictionary update.

    python -m benchmarks.step [--num_hiddens=64] [--batch_size=64] [--rounds=12]

The network of `configs/*_photos.py` on 32x32 images. Online and K-SVD update the dictionary every
`--update_every_steps` steps, gradient and VQ every step. Rows with a + have one more loss. "plain
convolutions" is the VQ row with XLA's own strided and dilated convolutions instead of the equal
forms in `laser_jax.models.layers`. Where PyTorch is installed, its rows are the same network with
an update every step (`torch_twins`). The rows run in turn; times are medians of four steps, after
compilation.
"""

import argparse
import dataclasses
import os
from unittest import mock

import jax
import numpy as np
from jax import lax

from benchmarks.timing import first_call, installed, median_times
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


APPROXIMATE = {"model": {"ksvd_method": "approximate"}}
ROWS = {
    "plain convolutions, vq": {"model": {"bottleneck": "vq"}},
    "vq": {"model": {"bottleneck": "vq"}},
    "rvq": {"model": {"bottleneck": "rvq"}},
    "fsq": {"model": {"bottleneck": "fsq"}},
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


def make_steps(changes, options):
    """Returns a function that makes four steps and waits, and the number of parameters."""
    config = ksvd_photos.get_config()
    config.model.num_hiddens = options.num_hiddens
    config.model.update_every_steps = options.update_every_steps
    config.update(changes)
    setup = Setup.from_config(config)
    train_step, state = TrainStep(setup), initial_state(setup)
    adversarial = setup.adversary is not None
    batch = put_batch(random_images(options), setup.mesh)

    def steps():
        nonlocal state
        for _ in range(STEPS):
            state, metrics, _ = train_step(state, batch, adversarial=adversarial)
            jax.block_until_ready((state, metrics))

    return steps, count(state.params)


def make_torch_steps(bottleneck, options):
    """Returns what `make_steps` does, of the same network in PyTorch."""
    from benchmarks import torch_twins

    train_step = torch_twins.TrainStep(bottleneck, hiddens=options.num_hiddens)
    images = torch_twins.tensor(random_images(options))

    def steps():
        for _ in range(STEPS):
            train_step(images)

    return steps, train_step.num_parameters


def random_images(options):
    shape = options.batch_size, 32, 32, 3
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def count(params):
    return sum(x.size for x in jax.tree.leaves(params))


def build_rows(rows, torch_rows, options):
    """Returns name -> function that makes four steps, and name -> seconds of its first call.

    Args:
      rows: name -> changes of the config.
      torch_rows: bottleneck of a twin -> the row that it is compared with.
      options: the `Options`.

    Raises:
      SystemExit: if a twin's network has another number of parameters than ours.
    """
    runs, first, parameters = {}, {}, {}
    for name, changes in rows.items():
        down, up = PLAIN if name.startswith("plain") else (layers.DownConv, layers.UpConv)
        with mock.patch.multiple(encoder, DownConv=down, UpConv=up):  # until it is compiled
            runs[name], parameters[name] = make_steps(changes, options)
            first[name] = first_call(runs[name])
    for bottleneck, ours in torch_rows.items():
        name = f"PyTorch, {bottleneck}"
        runs[name], size = make_torch_steps(bottleneck, options)
        if size != parameters[ours]:
            raise SystemExit(f"{name} has {size} parameters, {ours} has {parameters[ours]}.")
        first[name] = first_call(runs[name])
    return runs, first


def print_rows(runs, first, torch_rows, options):
    """Times the rows in turn and prints a table."""
    times = median_times(runs, rounds=options.rounds)
    milliseconds = {name: ms / STEPS for name, ms in times.items()}
    device = jax.devices()[0].device_kind
    print(
        f"batch {options.batch_size}, {options.num_hiddens} hidden units, dictionary updates every "
        f"{options.update_every_steps} steps, {device}"
    )
    print("| step | ms | images/s | first four steps, s | PyTorch / this |\n|---|---|---|---|---|")
    beside = {ours: f"PyTorch, {theirs}" for theirs, ours in torch_rows.items()}
    beside |= {name: beside.get("ksvd, exact") for name in runs if name.startswith("ksvd")}
    for name, ms in milliseconds.items():
        twin = milliseconds.get(beside.get(name))
        ratio = f"{twin / ms:.2f}" if twin else ""
        speed = 1e3 * options.batch_size / ms
        print(f"| {name} | {ms:.1f} | {speed:.0f} | {first[name]:.1f} | {ratio} |")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step")
    for field in dataclasses.fields(Options):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    options = Options(**vars(parser.parse_args()))
    torch_rows = TORCH_ROWS if installed("torch") else {}
    runs, first = build_rows(ROWS, torch_rows, options)
    print_rows(runs, first, torch_rows, options)


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as main.py
    allocator.keep_freed_memory()
    main()
