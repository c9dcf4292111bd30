"""A class-conditional prior of the tokens of an autoencoder, on CIFAR-10.

python main.py --config=configs/prior_cifar10.py --config.autoencoder=runs/vqvae_cifar10
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.cifar10(config)
    datasets.class_prior(config)
    return config
