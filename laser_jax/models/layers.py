"""Convolutions of the encoder and decoder.

XLA differentiates a strided convolution into a dilated one, which is slow on CPUs, and the
gradient of a transposed one is several times slower still. Here 2x2 neighbourhoods are moved into
channels, so that both become convolutions of stride 1. The function is the same, and kernels keep
their usual shape `(4, 4, in, out)`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.convolution import Conv, convolve


class DownConv(nn.Module):
    """4x4 convolution, stride 2, padding 1: `(b, H, W, C)` -> `(b, H/2, W/2, features)`.

    H and W must be even.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"]) -> Float[Array, "b h w f"]:
        kernel, bias = _parameters(self, x.shape[-1], scale=1.0)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return self.convolve(x, kernel) + bias.reshape(1, 1, 1, -1)

    def convolve(self, x: Array, kernel: Array) -> Array:
        """Returns the convolution without the bias."""
        b, height, width, channels = x.shape
        # Space to depth: cell (i, j) holds pixels (2i + a, 2j + c) as channels (a, c, C).
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = x.reshape(b, height // 2 + 1, 2, width // 2 + 1, 2, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // 2 + 1, width // 2 + 1, -1)
        kernel = kernel.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5)
        kernel = kernel.reshape(2, 2, 4 * channels, -1)
        return _stride_1(x, kernel)


class UpConv(nn.Module):
    """4x4 transposed convolution, stride 2, padding 1: `(b, h, w, C)` -> `(b, 2h, 2w, f)`."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w C"]) -> Float[Array, "b H W f"]:
        # Each output pixel depends on 2x2 of the 4x4 taps, a quarter of the kernel's fan-in.
        kernel, bias = _parameters(self, x.shape[-1], scale=4.0)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return self.convolve(x, kernel) + bias.reshape(1, 1, 1, -1)

    def convolve(self, x: Array, kernel: Array) -> Array:
        """Returns the transposed convolution without the bias."""
        b, height, width, channels = x.shape
        # Output pixel 2i + a sums input i - 1 times tap 2 + a and input i times tap a.
        kernel = kernel.reshape(2, 2, 2, 2, channels, self.features)[::-1, :, ::-1]
        kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, -1)
        x = _stride_1(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel)
        # Depth to space, then remove the border that the padding adds.
        x = x.reshape(b, height + 1, width + 1, 2, 2, self.features)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * height + 2, 2 * width + 2, -1)
        return x[:, 1:-1, 1:-1]


class ResidualStack(nn.Module):
    """Pre-activation residual blocks, and a ReLU after the last.

    A block is ReLU, 3x3 convolution to `residual_hiddens` channels, ReLU, 1x1 convolution back.
    """

    num_blocks: int
    residual_hiddens: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        for _ in range(self.num_blocks):
            h = Conv(self.residual_hiddens, (3, 3), use_bias=False, dtype=self.dtype)(nn.relu(x))
            x = x + Conv(x.shape[-1], (1, 1), use_bias=False, dtype=self.dtype)(nn.relu(h))
        return nn.relu(x)


def _parameters(module, channels, *, scale):
    init = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
    kernel = module.param("kernel", init, (4, 4, channels, module.features))
    return kernel, module.param("bias", nn.initializers.zeros, (module.features,))


def _stride_1(x, kernel):
    return convolve(x, kernel, (1, 1), "VALID")
