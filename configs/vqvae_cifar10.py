"""VQ-VAE, on CIFAR-10.

python main.py --config=configs/vqvae_cifar10.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.cifar10(config)
    config.model.bottleneck = "vq"
    return config
