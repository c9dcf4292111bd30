"""The Inception network of FID, in the variant whose weights the published numbers use.

It is Inception v3 (Szegedy et al. 2015) as TensorFlow's 2015 graph has it: average pooling that
does not count the border, and in the last block a maximum in its place. Names of modules are
those of the weights' file.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from laser_jax import compiler
from laser_jax.pretrained.trunks import as_rgb

INPUT_SIZE, FEATURES = 299, 2048


class ConvBatchNorm(nn.Module):
    """Convolution, frozen batch normalisation, ReLU."""

    features: int
    size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(
            self.features, self.size, self.stride, self.padding,
            use_bias=False, precision=lax.Precision.HIGHEST, name="conv",
        )(x)  # fmt: skip
        return nn.relu(FrozenBatchNorm(name="bn")(x))


class FrozenBatchNorm(nn.Module):
    """Batch normalisation by stored moments, which are parameters like any other here."""

    @nn.compact
    def __call__(self, x):
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        inits = {"scale": ones, "bias": zeros, "mean": zeros, "var": ones}
        scale, bias, mean, var = (
            self.param(name, init, (x.shape[-1],)).reshape(1, 1, 1, -1)
            for name, init in inits.items()
        )
        return (x - mean) * (scale / jnp.sqrt(var + 1e-3)) + bias


def _max_pool(x):
    return nn.max_pool(x, (3, 3), (2, 2))


def _smooth(x):
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _peak(x):
    return nn.max_pool(x, (3, 3), padding="SAME")


class Mixed(nn.Module):
    """Branches side by side, their channels concatenated.

    A branch is a sequence of steps. A step is a function; a convolution `(name, features,
    size)`, with a fourth item "half" if it halves the image; or several convolutions that all
    take the same input.
    """

    branches: tuple

    @nn.compact
    def __call__(self, x):
        return jnp.concatenate([self._follow(branch, x) for branch in self.branches], axis=-1)

    def _follow(self, branch, x):
        for step in branch:
            if callable(step):
                x = step(x)
            elif isinstance(step[0], tuple):
                x = jnp.concatenate([self._convolve(x, *item) for item in step], axis=-1)
            else:
                x = self._convolve(x, *step)
        return x

    def _convolve(self, x, name, features, size, half=None):
        stride, padding = (2, "VALID") if half else (1, "SAME")
        return ConvBatchNorm(features, size, stride, padding, name=name)(x)


def _block_35(pool_features):
    return (
        (("branch1x1", 64, (1, 1)),),
        (("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
        (
            ("branch3x3dbl_1", 64, (1, 1)),
            ("branch3x3dbl_2", 96, (3, 3)),
            ("branch3x3dbl_3", 96, (3, 3)),
        ),
        (_smooth, ("branch_pool", pool_features, (1, 1))),
    )


def _block_17(width):
    return (
        (("branch1x1", 192, (1, 1)),),
        (
            ("branch7x7_1", width, (1, 1)),
            ("branch7x7_2", width, (1, 7)),
            ("branch7x7_3", 192, (7, 1)),
        ),
        (
            ("branch7x7dbl_1", width, (1, 1)),
            ("branch7x7dbl_2", width, (7, 1)),
            ("branch7x7dbl_3", width, (1, 7)),
            ("branch7x7dbl_4", width, (7, 1)),
            ("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_smooth, ("branch_pool", 192, (1, 1))),
    )


def _block_8(pool):
    return (
        (("branch1x1", 320, (1, 1)),),
        (
            ("branch3x3_1", 384, (1, 1)),
            (("branch3x3_2a", 384, (1, 3)), ("branch3x3_2b", 384, (3, 1))),
        ),
        (
            ("branch3x3dbl_1", 448, (1, 1)),
            ("branch3x3dbl_2", 384, (3, 3)),
            (("branch3x3dbl_3a", 384, (1, 3)), ("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, ("branch_pool", 192, (1, 1))),
    )


_TO_17 = (
    (("branch3x3", 384, (3, 3), "half"),),
    (
        ("branch3x3dbl_1", 64, (1, 1)),
        ("branch3x3dbl_2", 96, (3, 3)),
        ("branch3x3dbl_3", 96, (3, 3), "half"),
    ),
    (_max_pool,),
)
_TO_8 = (
    (("branch3x3_1", 192, (1, 1)), ("branch3x3_2", 320, (3, 3), "half")),
    (
        ("branch7x7x3_1", 192, (1, 1)),
        ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
        ("branch7x7x3_4", 192, (3, 3), "half"),
    ),
    (_max_pool,),
)
_BLOCKS = {
    "Mixed_5b": _block_35(32),
    "Mixed_5c": _block_35(64),
    "Mixed_5d": _block_35(64),
    "Mixed_6a": _TO_17,
    "Mixed_6b": _block_17(128),
    "Mixed_6c": _block_17(160),
    "Mixed_6d": _block_17(160),
    "Mixed_6e": _block_17(192),
    "Mixed_7a": _TO_8,
    "Mixed_7b": _block_8(_smooth),
    "Mixed_7c": _block_8(_peak),
}


class InceptionV3(nn.Module):
    """Images `(b, 299, 299, 3)` in [-1, 1] -> pooled features `(b, 2048)`."""

    @nn.compact
    def __call__(self, x):
        x = ConvBatchNorm(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = ConvBatchNorm(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = _max_pool(ConvBatchNorm(64, (3, 3), name="Conv2d_2b_3x3")(x))
        x = ConvBatchNorm(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = _max_pool(ConvBatchNorm(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x))
        for name, branches in _BLOCKS.items():
            x = Mixed(branches, name=name)(x)
        return jnp.mean(x, axis=(1, 2))


@compiler.jit
def inception_features(params, images):
    """Returns the features that FID compares, `(b, 2048)`.

    Images are resized to 299x299, bilinear without antialiasing, as pytorch-fid does.

    Args:
      params: from `load_inception`.
      images: `(b, H, W, C)` in [-1, 1], C = 3, or 1 for gray images.

    Raises:
      ValueError: if the images have another shape.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must have shape (b, H, W, C), C = 1 or 3, got {images.shape}.")
    images = as_rgb(images)
    size = (images.shape[0], INPUT_SIZE, INPUT_SIZE, 3)
    resized = jax.image.resize(images, size, "bilinear", antialias=False)
    return InceptionV3().apply({"params": params}, resized)
