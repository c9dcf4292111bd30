"""Metrics of images in [0, 1], and of codes."""

from laser_jax.metrics.code import active_atoms
from laser_jax.metrics.frechet import GaussianStatistics, frechet_distance
from laser_jax.metrics.image import psnr, squared_error_to_psnr, ssim
from laser_jax.metrics.perceptual import fid, lpips
from laser_jax.sparse.bits import sparse_bits, vq_bits

__all__ = [
    "GaussianStatistics",
    "active_atoms",
    "fid",
    "frechet_distance",
    "lpips",
    "psnr",
    "sparse_bits",
    "squared_error_to_psnr",
    "ssim",
    "vq_bits",
]
