"""K-SVD-VAE (LASER), on the embedded photographs.

python main.py --config=configs/ksvd_photos.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.photos(config)
    config.model.bottleneck = "ksvd"
    return config
