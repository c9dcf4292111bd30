"""A small PatchGAN: a discriminator of patches of an image."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from laser_jax.convolution import Conv
from laser_jax.models.layers import DownConv
from laser_jax.models.precision import at_least_float32
from laser_jax.ranges import COUNT, LEVELS, check_settings, setting


class PatchDiscriminator(nn.Module):
    """Maps images `(b, H, W, C)` in [-1, 1] to logits `(b, H / 2^n, W / 2^n, 1)`, high for real.

    Each of the `num_downsamples` halvings doubles the channels, up to 8 `num_hiddens`. It uses
    group normalisation instead of batch normalisation: the result does not depend on the number of
    devices, and there are no statistics to store.

    References:
      Isola, Zhu, Zhou and Efros, Image-to-image translation with conditional adversarial
      networks, 2017.
    """

    num_hiddens: int = setting(64, COUNT)
    num_downsamples: int = setting(2, LEVELS)
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self)

    @nn.compact
    def __call__(self, images: Float[Array, "b H W C"]) -> Float[Array, "b h w 1"]:
        x = images
        for level in range(self.num_downsamples):
            x = DownConv(self._features(level), dtype=self.dtype)(x)
            x = nn.leaky_relu(x if level == 0 else self._norm(x), 0.2)
        x = Conv(self._features(self.num_downsamples), (3, 3), dtype=self.dtype)(x)
        x = nn.leaky_relu(self._norm(x), 0.2)
        return at_least_float32(Conv(1, (3, 3), dtype=self.dtype)(x))

    def _features(self, level):
        return self.num_hiddens * min(2**level, 8)

    def _norm(self, x):
        return nn.GroupNorm(num_groups=None, group_size=self.num_hiddens, dtype=self.dtype)(x)
