"""Images a second of the training step, each bottleneck and dictionary update beside the others.

    python -m experiments.benchmark_step [--num_hiddens=64] [--batch_size=64] [--rounds=25]

The network of `configs/*_photos.py` on 32x32 images. "plain convolutions" is the VQ row with XLA's
own strided and dilated convolutions instead of the equal forms in `laser_jax.models.layers`.
Interleaved; medians of four steps, one of which updates the dictionary; after compilation.
"""

import time
from unittest import mock

import jax
import numpy as np
from absl import app, flags
from jax import lax

from configs import ksvd_photos
from laser_jax.models import build_model, encoder, layers
from laser_jax.optimizer import build_optimizer
from laser_jax.sharding import data_mesh, put_batch
from laser_jax.step import initial_state, make_train_step

NUM_HIDDENS = flags.DEFINE_integer("num_hiddens", 64, "Channels of encoder and decoder.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images a step.")
ROUNDS = flags.DEFINE_integer("rounds", 25, "Rounds of four steps each.")

ROWS = {
    "plain convolutions, vq": {"bottleneck": "vq"},
    "vq": {"bottleneck": "vq"},
    "rvq": {"bottleneck": "rvq"},
    "gradient": {"bottleneck": "dl"},
    "online": {"dictionary_update": "online"},
    "ksvd, exact": {},
    "ksvd, approximate": {"ksvd_method": "approximate"},
    "ksvd, parallel": {"ksvd_method": "parallel"},
}
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


def make_steps(changes):
    """Returns a function that makes four steps and waits, compiled, and the seconds that took."""
    config = ksvd_photos.get_config()
    config.model.num_hiddens = NUM_HIDDENS.value
    config.model.update(changes)
    mesh, model = data_mesh(), build_model(config)
    optimizer = build_optimizer(config, learns_by_gradient=model.bottleneck.learns_by_gradient)
    train_step = make_train_step(model, optimizer, config, mesh)
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE.value, 32, 32, 3))
    batch = put_batch(np.uint8(images), mesh)
    state = initial_state(config, model, optimizer, mesh)

    def steps():
        nonlocal state
        for _ in range(4):  # one of them updates the dictionary, at the default settings
            state, metrics, _ = train_step(state, batch)
            jax.block_until_ready((state, metrics))

    start = time.perf_counter()
    steps()
    return steps, time.perf_counter() - start


def main(_):
    runs = {}
    for name, changes in ROWS.items():
        if name.startswith("plain"):
            with (
                mock.patch.object(encoder, "DownConv", PlainDownConv),
                mock.patch.object(encoder, "UpConv", PlainUpConv),
            ):
                runs[name] = make_steps(changes)
        else:
            runs[name] = make_steps(changes)
    times = {name: [] for name in runs}
    for _ in range(ROUNDS.value):
        for name, (steps, _) in runs.items():
            start = time.perf_counter()
            steps()
            times[name].append((time.perf_counter() - start) / 4)
    device = jax.devices()[0].device_kind
    print(f"batch {BATCH_SIZE.value}, {NUM_HIDDENS.value} hidden units, {device}")
    print("| step | ms | images/s | first four steps, s |\n|---|---|---|---|")
    for name, (_, first) in runs.items():
        seconds = float(np.median(times[name]))
        speed = BATCH_SIZE.value / seconds
        print(f"| {name} | {1e3 * seconds:.0f} | {speed:.0f} | {first:.1f} |")


if __name__ == "__main__":
    app.run(main)
