"""A small model that trains in seconds, for tests and first trials.

python main.py --config=configs/tiny.py --config.model.bottleneck=vq --workdir=/tmp/tiny
"""

from configs import default


def get_config():
    """Returns the configuration."""
    config = default.get_config()
    config.num_train_steps = 40
    config.log_every_steps = 10
    config.eval_every_steps = 20
    config.checkpoint_every_steps = 10
    config.data.batch_size = 16
    config.model.num_hiddens = 16
    config.model.num_residual_blocks = 1
    config.model.num_residual_hiddens = 8
    config.model.num_embeddings = 32
    config.model.embedding_dim = 16
    config.model.sparsity_level = 4
    config.model.replace_every_steps = 15
    config.model.update_every_steps = 1
    config.optimizer.learning_rate = 1e-2
    config.optimizer.warmup_steps = 5
    config.eval.perceptual = False
    config.eval.table_images = 32
    return config
