"""The convolutional parts of AlexNet and VGG16, whose features LPIPS compares.

Every product is true float32, unless a module is given another precision. Names of modules are
those of the weights' files.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from laser_jax import convolution


def as_rgb(images):
    """Returns images `(b, H, W, C)` with three channels; a gray one is repeated."""
    return jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def convolve(x, kernel, strides, padding, **options):
    """A convolution; on a grid of a few positions as one product.

    XLA's own is up to 60 times slower there on CPUs: 540 ms against 9 for 512 channels on 2x2.
    """
    (_, h, w, _), (rows, columns, _, features) = x.shape, kernel.shape
    if h * w > 16 or padding != "SAME":
        return convolution.convolve(x, kernel, strides, padding, **options)
    above, left = (rows - 1) // 2, (columns - 1) // 2
    padded = jnp.pad(x, ((0, 0), (above, rows - 1 - above), (left, columns - 1 - left), (0, 0)))
    shifted = [padded[:, i : i + h, j : j + w] for i in range(rows) for j in range(columns)]
    return jnp.matmul(
        jnp.concatenate(shifted, axis=-1),
        kernel.reshape(-1, features),
        precision=options["precision"],
    )


Conv = functools.partial(nn.Conv, precision=lax.Precision.HIGHEST, conv_general_dilated=convolve)


class AlexNet(nn.Module):
    """The five ReLU outputs of AlexNet in one column (Krizhevsky 2014), of normalised images."""

    precision: lax.Precision | None = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, x):
        conv = functools.partial(Conv, precision=self.precision)
        features = [nn.relu(conv(64, (11, 11), strides=4, padding=2)(x))]
        features.append(nn.relu(conv(192, (5, 5))(_max_pool(features[-1], window=3))))
        features.append(nn.relu(conv(384, (3, 3))(_max_pool(features[-1], window=3))))
        for _ in range(2):
            features.append(nn.relu(conv(256, (3, 3))(features[-1])))
        return features


class VGG16(nn.Module):
    """The last ReLU outputs of VGG16's five blocks (Simonyan and Zisserman 2014)."""

    precision: lax.Precision | None = lax.Precision.HIGHEST

    @nn.compact
    def __call__(self, x):
        features = []
        for channels, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            if features:
                x = _max_pool(x, window=2)
            for _ in range(depth):
                x = nn.relu(Conv(channels, (3, 3), precision=self.precision)(x))
            features.append(x)
        return features


def _max_pool(x, *, window):
    """Maxima of windows two pixels apart.

    As maxima of shifted slices: XLA differentiates its own pooling into a scatter, which is slow
    on CPUs.
    """
    height, width = ((side - window) // 2 + 1 for side in x.shape[1:3])
    slices = [
        x[:, i : i + 2 * height - 1 : 2, j : j + 2 * width - 1 : 2]
        for i in range(window)
        for j in range(window)
    ]
    return functools.reduce(jnp.maximum, slices)
