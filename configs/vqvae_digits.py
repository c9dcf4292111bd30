"""VQ-VAE, on scikit-learn's digits.

python main.py --config=configs/vqvae_digits.py
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.digits(config)
    config.model.bottleneck = "vq"
    config.model.num_hiddens = 64
    config.model.num_embeddings = 128
    config.model.embedding_dim = 16
    return config
