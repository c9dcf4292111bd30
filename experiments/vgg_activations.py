"""Activations of VGG16 on the photographs, and the rest of the network after them.

The layer is relu4_3, the last of block 4: 512 channels, one vector for 8x8 pixels.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from PIL import Image

from experiments.photographs import as_bytes, as_float, photographs
from laser_jax.pretrained.trunks import VGG16, convolve

LAYER, AFTER = 3, ("Conv_10", "Conv_11", "Conv_12")  # block 4, and the layers of block 5
_MEAN, _DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


@jax.jit
def activations(params, images):
    """Returns relu4_3 `(b, H / 8, W / 8, 512)` of images `(b, H, W, 3)` in [0, 1].

    Args:
      params: of the trunk, `load_lpips("vgg")["VGG16_0"]`.
      images: float32.
    """
    return VGG16().apply({"params": params}, (images - _MEAN) / _DEVIATION)[LAYER]


@jax.jit
def rest(params, features):
    """Returns relu5_3 `(b, h / 2, w / 2, 512)` of relu4_3 `(b, h, w, 512)`, the trunk's output."""
    x = nn.max_pool(features, (2, 2), strides=(2, 2))
    for name in AFTER:
        x = convolve(
            x, params[name]["kernel"], (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=lax.Precision.HIGHEST,
        )  # fmt: skip
        x = nn.relu(x + params[name]["bias"][None, None, None, :])
    return x


def maps(params, split):
    """Returns relu4_3 `(h, w, 512)` of each photograph of a split, whole."""
    return [np.asarray(activations(params, x[None]))[0] for x in photographs(split).values()]


def training_vectors(params, count, *, scales, seed):
    """Returns `(count, 512)` activations of the training photographs, in random order.

    Each photograph at all scales, as it is and mirrored, from its first pixel and from one 4
    pixels further on, half the stride of the layer.
    """
    found = []
    for image in photographs("train").values():
        for scale in scales:
            scaled = image if scale == 1 else _resized(image, scale)
            views = [y[i:, i:] for y in (scaled, scaled[:, ::-1]) for i in (0, 4)]
            found += [activations(params, view[None]).reshape(-1, 512) for view in views]
    found = np.concatenate(found)
    if len(found) < count:
        raise ValueError(f"the photographs give {len(found)} vectors, {count} are wanted.")
    return found[np.random.default_rng(seed).permutation(len(found))[:count]]


def _resized(image, scale):
    size = [round(scale * side) for side in image.shape[1::-1]]
    return as_float(np.asarray(Image.fromarray(as_bytes(image)).resize(size, Image.LANCZOS)))


class Scaling:
    """Vectors about their mean, over their root mean square norm, and back."""

    def __init__(self, vectors):
        self.mean = vectors.mean(0)
        self.norm = np.sqrt(np.mean(np.sum((vectors - self.mean) ** 2, -1)))

    def __call__(self, vectors):
        return (vectors - self.mean) / self.norm

    def undo(self, vectors):
        return vectors * self.norm + self.mean


def explained_variance(vectors, approximation):
    """Returns 1 - squared error / variance, about the mean of these vectors."""
    return 1 - _share(vectors, approximation)


def output_error(params, features, approximations):
    """Returns the squared error of relu5_3 as a share of its variance, over all maps.

    Args:
      params: of the trunk.
      features: list of `(h, w, 512)` activations.
      approximations: list of the same, which replace them.
    """

    def outputs(x):
        y = np.asarray(rest(params, jnp.asarray(x[None])))
        return y.reshape(-1, y.shape[-1])

    pairs = [[outputs(x) for x in pair] for pair in zip(features, approximations, strict=True)]
    return _share(*(np.concatenate(x) for x in zip(*pairs, strict=True)))


def _share(vectors, approximation):
    variance = np.sum((vectors - vectors.mean(0)) ** 2, dtype=np.float64)
    return float(np.sum((vectors - approximation) ** 2, dtype=np.float64) / variance)
