"""VQ-VAE, on Imagenette.

python main.py --config=configs/vqvae_imagenette.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.imagenette(config)
    config.model.bottleneck = "vq"
    return config
