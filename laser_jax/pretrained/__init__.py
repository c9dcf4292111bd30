"""Pretrained networks of image metrics: LPIPS, VGG16 and the Inception of FID.

Their weights are read from files of arrays. No code in these files is executed.
"""

from laser_jax.pretrained.inception import inception_features
from laser_jax.pretrained.lpips import lpips_distance, vgg16_features
from laser_jax.pretrained.weights import WeightsUnavailable, load_inception, load_lpips

__all__ = [
    "WeightsUnavailable",
    "inception_features",
    "load_inception",
    "load_lpips",
    "lpips_distance",
    "vgg16_features",
]
