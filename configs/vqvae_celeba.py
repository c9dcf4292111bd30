"""VQ-VAE, on CelebA.

python main.py --config=configs/vqvae_celeba.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.celeba(config)
    config.model.bottleneck = "vq"
    return config
