"""Hybrid of sparse coding and residual VQ, on CIFAR-10.

Each 2x2 patch of latents is approximated by a few atoms, and four codebooks quantise that.

python main.py --config=configs/hybrid_cifar10.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.cifar10(config)
    datasets.hybrid(config)
    return config
