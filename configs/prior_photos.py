"""A prior of the tokens of an autoencoder, on the embedded photographs.

python main.py --config=configs/prior_photos.py --config.autoencoder=runs/vqvae_photos
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.photos(config)
    datasets.prior(config)
    config.num_train_steps = 2_000
    config.eval_every_steps = config.checkpoint_every_steps = 250
    config.prior.copies = 8  # few pictures: their flips and shifts too
    config.prior.num_layers = 3
    return config
