"""The convolutional encoder and decoder of van den Oord et al. 2017."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from laser_jax.models.layers import DownConv, ResidualStack, UpConv
from laser_jax.models.precision import at_least_float32


class Encoder(nn.Module):
    """Images `(b, H, W, C)` -> features `(b, h, w, num_hiddens)`, h = H / 2^num_downsamples.

    The first halving goes to num_hiddens / 2 channels, the others to num_hiddens.
    """

    num_hiddens: int = 128
    num_residual_blocks: int = 2
    num_residual_hiddens: int = 32
    num_downsamples: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images):
        x = images
        for level in range(self.num_downsamples):
            features = self.num_hiddens // 2 if level == 0 else self.num_hiddens
            x = nn.relu(DownConv(features, dtype=self.dtype)(x))
        x = nn.Conv(self.num_hiddens, (3, 3), dtype=self.dtype)(x)
        return ResidualStack(self.num_residual_blocks, self.num_residual_hiddens, self.dtype)(x)


class Decoder(nn.Module):
    """Features `(b, h, w, c)` -> images `(b, H, W, out_channels)`, the encoder mirrored."""

    num_hiddens: int = 128
    num_residual_blocks: int = 2
    num_residual_hiddens: int = 32
    num_downsamples: int = 2
    out_channels: int = 3
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features):
        x = nn.Conv(self.num_hiddens, (3, 3), dtype=self.dtype)(features)
        x = ResidualStack(self.num_residual_blocks, self.num_residual_hiddens, self.dtype)(x)
        for level in reversed(range(1, self.num_downsamples)):
            features = self.num_hiddens // 2 if level == 1 else self.num_hiddens
            x = nn.relu(UpConv(features, dtype=self.dtype)(x))
        # The images leave in float32: losses and metrics are taken there.
        return at_least_float32(UpConv(self.out_channels, dtype=self.dtype)(x))
