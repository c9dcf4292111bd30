"""LASER at f8 on Imagenette, 256x256, for one GPU of 80 GB: vqgan_imagenette with sparse codes.

Each 2x2 patch of latents takes as many atoms as save more error than their bits cost.

python main.py --config=configs/laser_imagenette.py
"""

from configs import vqgan_imagenette


def get_config():
    """Returns the configuration."""
    config = vqgan_imagenette.get_config()
    config.model.bottleneck = "ksvd"
    config.model.num_embeddings = 1_024
    config.model.embedding_dim = config.model.z_channels = 16
    config.model.patch_size = 2
    config.model.sparse_coder = "rate_distortion"
    config.model.bit_price = 0.04
    config.model.coefficient_step = 0.5  # 2.5 times the square root of bit_price
    config.model.sparsity_level = 16  # at most; the price decides
    return config
