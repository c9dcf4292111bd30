"""A class-conditional prior of the tokens of an autoencoder, on Imagenette.

python main.py --config=configs/prior_imagenette.py --config.autoencoder=runs/vqvae_imagenette
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.imagenette(config)
    datasets.class_prior(config)
    return config
