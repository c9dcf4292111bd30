"""K-SVD-VAE (LASER), on CelebA.

python main.py --config=configs/ksvd_celeba.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.celeba(config)
    config.model.bottleneck = "ksvd"
    return config
