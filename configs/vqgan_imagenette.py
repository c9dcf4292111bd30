"""VQGAN at f8 on Imagenette, 256x256, for one GPU of 80 GB.

The network and the codebook are those of latent diffusion's vq-f8. Absolute error, LPIPS by VGG16
and, from step 10,001 on, a PatchGAN discriminator.

python main.py --config=configs/vqgan_imagenette.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.imagenette(config)
    config.model.bottleneck = "vq"
    config.model.num_embeddings = 16_384
    config.model.embedding_dim = config.model.z_channels = 4
    config.model.network = "vqgan"
    config.model.num_hiddens = 128
    config.model.channel_multipliers = (1, 2, 2, 4)
    config.model.attention_levels = (3,)  # at 32x32
    config.model.dtype = "bfloat16"
    config.loss.mse_weight = 0.0
    config.loss.l1_weight = 1.0
    config.loss.perceptual_weight = 1.0
    config.loss.perceptual_precision = "default"
    config.adversarial.weight = 0.75
    config.adversarial.start_step = 10_001
    config.adversarial.warmup_steps = 1_000
    config.adversarial.num_downsamples = 3
    config.adversarial.learning_rate = 1.5e-4
    config.optimizer.learning_rate = 1.5e-4  # 4.5e-6 for each image of a batch, as published
    config.optimizer.warmup_steps = 1_000
    config.optimizer.b1, config.optimizer.b2 = 0.5, 0.9
    config.optimizer.accumulate_steps = 2  # 1 needs more than 80 GB by the account of XLA for CPUs
    return config
