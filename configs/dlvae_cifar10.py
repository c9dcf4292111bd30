"""DL-VAE: OMP in a dictionary learned by gradient, on CIFAR-10.

python main.py --config=configs/dlvae_cifar10.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.cifar10(config)
    config.model.bottleneck = "dl"
    config.model.dictionary_weight = 5.0  # 2 to 10; 1 learns too slowly beside the network
    return config
