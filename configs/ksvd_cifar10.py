"""K-SVD-VAE (LASER), on CIFAR-10.

python main.py --config=configs/ksvd_cifar10.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.cifar10(config)
    config.model.bottleneck = "ksvd"
    return config
