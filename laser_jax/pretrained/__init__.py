"""Networks that others trained, for judging images: LPIPS, VGG16 and the Inception of FID.

Their weights are read from files that hold arrays and nothing else; no code of theirs runs.
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
