"""LPIPS: a perceptual distance of images, computed from features of a pretrained network."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from laser_jax import compiler
from laser_jax.pretrained.trunks import VGG16, AlexNet, Conv, as_rgb

# "default" is what JAX takes for float32 products: less than float32 on GPUs and TPUs.
PRECISIONS = {"highest": lax.Precision.HIGHEST, "default": None}
TRUNKS = {"alex": AlexNet, "vgg": VGG16}
SMALLEST_SIDE = {"alex": 31, "vgg": 16}  # smallest sides: the pooling leaves one pixel

# Mean and standard deviation of ImageNet's channels, for images in [-1, 1].
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class NetLinLayer(nn.Module):
    """A learned weight for each channel's squared difference."""

    precision: lax.Precision | None

    @nn.compact
    def __call__(self, x):
        return Conv(1, (1, 1), use_bias=False, precision=self.precision)(x)


class Lpips(nn.Module):
    """The distance `(b,)` of two batches of images `(b, H, W, C)` in [-1, 1], C = 1 or 3."""

    net: str
    precision: lax.Precision | None = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, a, b):
        trunk = TRUNKS[self.net](self.precision)
        layers = zip(trunk(_normalised(a)), trunk(_normalised(b)), strict=True)
        differences = [
            NetLinLayer(self.precision)(jnp.square(_unit(x) - _unit(y))) for x, y in layers
        ]
        return sum(jnp.mean(difference, axis=(1, 2, 3)) for difference in differences)


@functools.partial(compiler.jit, static_argnames=("net", "precision"))
def lpips_distance(params, a, b, *, net, precision="highest"):
    """Returns the LPIPS distance of each pair of images, `(b,)`.

    Args:
      params: from `load_lpips(net)`.
      a, b: `(b, H, W, C)` float arrays in [-1, 1], C = 3, or 1 for gray images; sides at least
        31 ("alex") or 16 ("vgg").
      net: "alex" or "vgg".
      precision: "highest", true float32 on every device, or "default", JAX's for the device.

    Raises:
      ValueError: if net or precision is unknown, or the shapes differ or do not fit the network.

    References:
      Zhang, Isola, Efros, Shechtman and Wang, The unreasonable effectiveness of deep
      features as a perceptual metric, 2018 (version 0.1 of the weights).
    """
    check_net(net)
    check_precision(precision)
    if a.shape != b.shape:
        raise ValueError(f"LPIPS compares images of one shape, got {a.shape} and {b.shape}.")
    if a.ndim != 4 or a.shape[-1] not in (1, 3) or min(a.shape[1:3]) < SMALLEST_SIDE[net]:
        raise ValueError(
            f"LPIPS with net {net!r} needs images (b, H, W, C), C = 1 or 3, H and W at "
            f"least {SMALLEST_SIDE[net]}, got {a.shape}."
        )
    return Lpips(net, PRECISIONS[precision]).apply({"params": params}, a, b)


@compiler.jit
def vgg16_features(params, images):
    """Returns VGG16's last features, mean over positions, `(b, 512)`.

    Args:
      params: from `load_lpips("vgg")`.
      images: `(b, H, W, C)` in [-1, 1], C = 3, or 1 for gray images.
    """
    return jnp.mean(VGG16().apply({"params": params["VGG16_0"]}, _normalised(images))[-1], (1, 2))


def check_net(net):
    """Raises ValueError unless LPIPS knows the network."""
    if net not in TRUNKS:
        raise ValueError(f"unknown net {net!r}; choose from {', '.join(TRUNKS)}.")


def check_precision(precision):
    """Raises ValueError unless the precision is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose from {', '.join(PRECISIONS)}.")


def _normalised(images):
    shift, scale = (jnp.array(x, jnp.float32).reshape(1, 1, 1, 3) for x in (_SHIFT, _SCALE))
    return (as_rgb(images) - shift) / scale


def _unit(features):
    """Features over their norm at each position; where all are zero, zero with a gradient."""
    square = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    return features / (jnp.sqrt(jnp.where(square > 0, square, 1)) + 1e-10)
