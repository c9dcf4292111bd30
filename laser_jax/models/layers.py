"""Convolutions of the encoder and decoder.

XLA differentiates a strided convolution into a dilated one, which is slow on CPUs, and the
gradient of a transposed one is several times slower still. `laser_jax.convolution` has forms
without dilated pictures, most of them of stride 1 with 2x2 neighbourhoods as channels. The function
is the same, and kernels keep their usual shape `(4, 4, in, out)`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.convolution import (
    Conv,
    convolve,
    convolve_cells,
    convolve_transpose,
    kernel_gradient,
    relu,
    with_gradients,
)

STRIDES, PADS = (2, 2), ((1, 1), (1, 1))


class DownConv(nn.Module):
    """4x4 convolution, stride 2, padding 1: `(b, H, W, C)` -> `(b, H // 2, W // 2, features)`."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b H W C"]) -> Float[Array, "b h w f"]:
        kernel, bias = _parameters(self, x.shape[-1], scale=1.0)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return self.convolve(x, kernel) + bias.reshape(1, 1, 1, -1)

    def convolve(self, x: Array, kernel: Array) -> Array:
        """Returns the convolution without the bias."""
        if jax.default_backend() == "cpu":
            return convolve(x, kernel, STRIDES, PADS)
        return convolve_cells(x, kernel, STRIDES, PADS)


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
        size = 2 * x.shape[1], 2 * x.shape[2]

        def grad_kernel(grad, x):
            return kernel_gradient(x, grad, (4, 4), STRIDES, PADS).swapaxes(2, 3)

        return with_gradients(
            lambda x, kernel: convolve_transpose(x, kernel.swapaxes(2, 3), STRIDES, PADS, size),
            lambda grad, kernel: convolve(grad, kernel.swapaxes(2, 3), STRIDES, PADS),
            grad_kernel,
        )(x, kernel)


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
            h = Conv(self.residual_hiddens, (3, 3), use_bias=False, dtype=self.dtype)(relu(x))
            x = x + Conv(x.shape[-1], (1, 1), use_bias=False, dtype=self.dtype)(relu(h))
        return relu(x)


def _parameters(module, channels, *, scale):
    init = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
    kernel = module.param("kernel", init, (4, 4, channels, module.features))
    return kernel, module.param("bias", nn.initializers.zeros, (module.features,))
