"""DL-VAE: OMP in a dictionary learned by gradient, on CelebA.

python main.py --config=configs/dlvae_celeba.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.celeba(config)
    config.model.bottleneck = "dl"
    config.model.dictionary_weight = 5.0  # 2 to 10; 1 learns too slowly beside the network
    return config
