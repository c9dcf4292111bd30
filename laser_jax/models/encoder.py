"""The convolutional encoder and decoder of van den Oord et al. 2017."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.convolution import Conv, relu
from laser_jax.models.layers import DownConv, ResidualStack, UpConv
from laser_jax.models.precision import at_least_float32
from laser_jax.ranges import (
    COUNT,
    COUNT_OR_NONE,
    LEVELS,
    Choice,
    Flag,
    Integer,
    Several,
    check_settings,
    setting,
)


class Network(nn.Module):
    """The fields of the encoder, the decoder and the autoencoder of them.

    Attributes:
      network: `vqvae`, or `vqgan` for large pictures.
      num_hiddens: channels, a multiple of 2.
      num_residual_blocks: residual blocks of each of the two; `vqgan`: at each size, and one more
        in the decoder.
      num_residual_hiddens: `vqvae`: channels inside a residual block.
      num_downsamples: halvings of the image.
      channel_multipliers: `vqgan`: channels at each size, from the image's to the latents', in
        units of `num_hiddens`; `num_downsamples` + 1 of them.
      attention_levels: `vqgan`: the numbers of halvings after which each residual block is
        followed by attention.
      z_channels: `vqgan`: channels between encoder, bottleneck and decoder.
      remat: computes the activations of residual blocks again in the backward pass.
      dtype: of the computations.
    """

    network: str = setting("vqvae", Choice(("vqvae", "vqgan")))
    num_hiddens: int = setting(128, Integer(2, multiple_of=2))
    num_residual_blocks: int = setting(2, COUNT_OR_NONE)
    num_residual_hiddens: int = setting(32, COUNT)
    num_downsamples: int = setting(2, LEVELS)
    channel_multipliers: tuple[int, ...] = setting((1, 2, 4), Several(COUNT))
    attention_levels: tuple[int, ...] = setting((), Several(COUNT_OR_NONE, least=0))
    z_channels: int = setting(256, COUNT)
    remat: bool = setting(False, Flag())
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self)
        if self.network != "vqgan":
            return
        if len(self.channel_multipliers) != self.num_downsamples + 1:
            raise ValueError(
                f"channel_multipliers must have num_downsamples + 1 = {self.num_downsamples + 1} "
                f"values, one for each size, got {tuple(self.channel_multipliers)}."
            )
        if any(level > self.num_downsamples for level in self.attention_levels):
            raise ValueError(
                f"attention_levels are halvings, at most num_downsamples {self.num_downsamples}, "
                f"got {tuple(self.attention_levels)}."
            )


class Encoder(Network):
    """Maps images `(b, H, W, C)` to features `(b, h, w, num_hiddens)`, h = H / 2^num_downsamples.

    The first halving has num_hiddens / 2 output channels, the others num_hiddens.
    """

    @nn.compact
    def __call__(self, images: Float[Array, "b H W C"]) -> Float[Array, "b h w f"]:
        x = images
        for level in range(self.num_downsamples):
            features = self.num_hiddens // 2 if level == 0 else self.num_hiddens
            x = relu(DownConv(features, dtype=self.dtype)(x))
        x = Conv(self.num_hiddens, (3, 3), dtype=self.dtype)(x)
        return _residual_stack(self)(x)


class Decoder(Network):
    """Maps features `(b, h, w, c)` to images `(b, H, W, out_channels)`: the encoder reversed."""

    out_channels: int = 3

    @nn.compact
    def __call__(self, features: Float[Array, "b h w c"]) -> Float[Array, "b H W C"]:
        x = Conv(self.num_hiddens, (3, 3), dtype=self.dtype)(features)
        x = _residual_stack(self)(x)
        for level in reversed(range(1, self.num_downsamples)):
            channels = self.num_hiddens // 2 if level == 1 else self.num_hiddens
            x = relu(UpConv(channels, dtype=self.dtype)(x))
        # Losses and metrics of the images need float32.
        return at_least_float32(UpConv(self.out_channels, dtype=self.dtype)(x))


def _residual_stack(network):
    stack = nn.remat(ResidualStack) if network.remat else ResidualStack
    return stack(
        network.num_residual_blocks, network.num_residual_hiddens, network.dtype,
        name="ResidualStack_0",  # the one without remat
    )  # fmt: skip
