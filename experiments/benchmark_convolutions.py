"""What the fast forms of the strided and transposed convolutions are worth in a training step.

    python -m experiments.benchmark_convolutions

Times the training step of `configs/vqvae_photos.py` (batch 64, 64 and 128 hidden units) with the
layers of `laser_jax.models.layers` and with XLA's own strided and dilated convolutions, which
compute the same function. Interleaved; medians of 15 steps, after compilation.
"""

import statistics
import time
from unittest import mock

import jax
import numpy as np
from jax import lax

from configs import vqvae_photos
from laser_jax.models import build_model, encoder, layers
from laser_jax.optimizer import build_optimizer
from laser_jax.sharding import data_mesh, put_batch
from laser_jax.step import initial_state, make_train_step

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


def make_step(num_hiddens):
    """Returns a function that makes one step and waits for it, compiled."""
    config = vqvae_photos.get_config()
    config.model.num_hiddens = num_hiddens
    mesh, model = data_mesh(), build_model(config)
    optimizer = build_optimizer(config, learns_by_gradient=False)
    train_step = make_train_step(model, optimizer, config, mesh)
    images = np.random.default_rng(0).integers(0, 256, (config.data.batch_size, 32, 32, 3))
    state, batch = initial_state(config, model, optimizer, mesh), put_batch(np.uint8(images), mesh)

    def step():
        nonlocal state
        state, metrics, _ = train_step(state, batch)
        jax.block_until_ready((state, metrics))

    step()
    return step


def main():
    print("| hidden units | plain, ms | fast, ms | plain / fast |\n|---|---|---|---|")
    for num_hiddens in (64, 128):
        with (
            mock.patch.object(encoder, "DownConv", PlainDownConv),
            mock.patch.object(encoder, "UpConv", PlainUpConv),
        ):
            plain = make_step(num_hiddens)
        steps = {"plain": plain, "fast": make_step(num_hiddens)}
        times = {name: [] for name in steps}
        for _ in range(15):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                times[name].append(1e3 * (time.perf_counter() - start))
        plain, fast = (statistics.median(times[name]) for name in ("plain", "fast"))
        print(f"| {num_hiddens} | {plain:.0f} | {fast:.0f} | {plain / fast:.2f} |")


if __name__ == "__main__":
    main()
