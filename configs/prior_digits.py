"""A class-conditional prior of the tokens of an autoencoder, on scikit-learn's digits.

python main.py --config=configs/prior_digits.py --config.autoencoder=runs/vqvae_digits
"""

from configs import datasets, default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    datasets.digits(config)
    datasets.prior(config)
    config.num_train_steps = 2_000
    config.eval_every_steps = config.checkpoint_every_steps = 200
    config.prior.use_labels = True
    config.prior.copies = 8  # few pictures: their shifts too
    return config
