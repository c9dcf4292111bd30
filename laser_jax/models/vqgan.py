"""The encoder and decoder of VQGAN, for large pictures.

References:
  Esser, Rombach and Ommer, Taming transformers for high-resolution image synthesis, 2021.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.convolution import Conv, Dense
from laser_jax.models.encoder import Network
from laser_jax.models.precision import at_least_float32

# Groups of a normalisation, and the least channels of one: with 128 channels 32 groups of 4.
_MOST_GROUPS, _LEAST_CHANNELS = 32, 4
# Weights of an attention computed at once, for each image: those of 64x64 positions.
_MOST_WEIGHTS = 2**24


class VQGANEncoder(Network):
    """Maps images `(b, H, W, C)` to features `(b, h, w, z_channels)`, h = H / 2^num_downsamples."""

    @nn.compact
    def __call__(self, images: Float[Array, "b H W C"]) -> Float[Array, "b h w z"]:
        x = _conv(self.num_hiddens, self.dtype, "conv_in")(images)
        for level in range(self.num_downsamples + 1):
            if level:
                # As published: the padding of a convolution of stride 2 is only at the end.
                x = _conv(x.shape[-1], self.dtype, f"down_{level}", strides=2, padding=(0, 1))(x)
            x = Level.of(self, level, self.num_residual_blocks)(x)
        x = Middle(self.remat, self.dtype, name="middle")(x)
        x = nn.swish(group_norm(x, self.dtype, "norm_out"))
        return _conv(self.z_channels, self.dtype, "conv_out")(x)


class VQGANDecoder(Network):
    """Maps features `(b, h, w, z_channels)` to images `(b, H, W, out_channels)`."""

    out_channels: int = 3

    @nn.compact
    def __call__(self, features: Float[Array, "b h w z"]) -> Float[Array, "b H W C"]:
        channels = self.num_hiddens * self.channel_multipliers[-1]
        x = _conv(channels, self.dtype, "conv_in")(features)
        x = Middle(self.remat, self.dtype, name="middle")(x)
        for level in reversed(range(self.num_downsamples + 1)):
            x = Level.of(self, level, self.num_residual_blocks + 1)(x)
            if level:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
                x = _conv(x.shape[-1], self.dtype, f"up_{level}")(x)
        x = nn.swish(group_norm(x, self.dtype, "norm_out"))
        # Losses and metrics of the images need float32.
        return at_least_float32(_conv(self.out_channels, self.dtype, "conv_out")(x))


class Level(nn.Module):
    """The residual blocks at one size, each followed by attention if `attention` is set."""

    features: int
    num_blocks: int
    attention: bool
    remat: bool = False
    dtype: Any = jnp.float32

    @classmethod
    def of(cls, network: Network, level: int, num_blocks: int) -> "Level":
        """Returns the blocks of a network after `level` halvings."""
        features = network.num_hiddens * network.channel_multipliers[level]
        attention = level in network.attention_levels
        return cls(
            features, num_blocks, attention, network.remat, network.dtype, name=f"level_{level}"
        )

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        block, attention = _recomputed(self.remat, ResidualBlock, SelfAttention)
        for i in range(self.num_blocks):
            x = block(self.features, self.dtype, name=f"block_{i}")(x)
            if self.attention:
                x = attention(self.dtype, name=f"attention_{i}")(x)
        return x


class Middle(nn.Module):
    """Residual block, attention and residual block at the size of the latents."""

    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        block, attention = _recomputed(self.remat, ResidualBlock, SelfAttention)
        x = block(x.shape[-1], self.dtype, name="block_0")(x)
        x = attention(self.dtype, name="attention")(x)
        return block(x.shape[-1], self.dtype, name="block_1")(x)


class ResidualBlock(nn.Module):
    """Group normalisation, swish and 3x3 convolution, twice, added to the input.

    The input passes a 1x1 convolution if `features` is not its number of channels.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w f"]:
        h = x
        for i in range(2):
            h = nn.swish(group_norm(h, self.dtype, f"norm_{i}"))
            h = _conv(self.features, self.dtype, f"conv_{i}")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")(x)
        return x + h


class SelfAttention(nn.Module):
    """Attention of one head over all positions, added to the input."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, height, width, channels = x.shape
        normal = group_norm(x, self.dtype, "norm").reshape(b, height * width, 1, channels)
        query, key, value = (
            Dense(channels, dtype=self.dtype, name=name)(normal)
            for name in ("query", "key", "value")
        )
        found = attend(query, key, value).reshape(x.shape)
        return x + Dense(channels, dtype=self.dtype, name="out")(found)


def attend(
    query: Float[Array, "b n 1 c"], key: Float[Array, "b n 1 c"], value: Float[Array, "b n 1 c"]
) -> Float[Array, "b n 1 c"]:
    """Returns the attention over all positions, in memory that grows with n and not with n^2.

    Above 64x64 positions it is computed for blocks of queries, one after the other, and again in
    the backward pass.
    """
    b, n, _, channels = query.shape
    size = _MOST_WEIGHTS // n
    if n <= size:
        return jax.nn.dot_product_attention(query, key, value)
    size = max(1, size)
    blocks = jnp.pad(query, ((0, 0), (0, -n % size), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(blocks.reshape(b, -1, size, 1, channels), 1, 0)
    of_block = jax.checkpoint(lambda block: jax.nn.dot_product_attention(block, key, value))
    found = jnp.moveaxis(jax.lax.map(of_block, blocks), 0, 1)
    return found.reshape(b, -1, 1, channels)[:, :n]


def group_norm(x: Float[Array, "b h w c"], dtype: Any, name: str) -> Float[Array, "b h w c"]:
    """Returns the group normalisation of x, its statistics in float32, for any channels."""
    return nn.GroupNorm(num_groups(x.shape[-1]), dtype=dtype, name=name)(x)


def num_groups(channels: int) -> int:
    """Returns the groups of a normalisation: at most 32, which divide the channels.

    A group has at least 4 channels, as in VQGAN of 128 channels: with one channel a group every
    channel would lose its mean and its scale.
    """
    most = min(_MOST_GROUPS, max(1, channels // _LEAST_CHANNELS))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)


def _conv(features, dtype, name, strides=1, padding=(1, 1)):
    """Returns a 3x3 convolution; `padding` is that before and after both axes."""
    return Conv(features, (3, 3), strides, padding=2 * (padding,), dtype=dtype, name=name)


def _recomputed(remat, *modules):
    """Returns modules that, with `remat`, keep only their inputs for the backward pass."""
    return map(nn.remat, modules) if remat else modules
