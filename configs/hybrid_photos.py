"""Hybrid of sparse coding and residual VQ, on the embedded photographs.

Each 2x2 patch of latents is approximated by a few atoms, and four codebooks quantise that.

python main.py --config=configs/hybrid_photos.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.photos(config)
    datasets.hybrid(config)
    return config
