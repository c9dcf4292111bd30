"""LASER with codes by rate, on the embedded photographs: `make demo`.

Each 2x2 patch of latents takes as many atoms as save more error than their bits cost.

python main.py --config=configs/laser_photos.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.photos(config)
    config.model.bottleneck = "ksvd"
    config.model.patch_size = 2
    config.model.sparse_coder = "rate_distortion"
    config.model.bit_price = 0.04
    config.model.coefficient_step = 0.5  # 2.5 times the square root of bit_price
    config.model.sparsity_level = 32  # at most; the price decides
    config.model.ksvd_method = "approximate"  # exact: an SVD of 256x256 for each atom
    return config
