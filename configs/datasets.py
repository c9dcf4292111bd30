"""Settings of each data set, for every bottleneck."""


def photos(config):
    """Embedded photographs, 32x32 windows: trains in minutes on a laptop."""
    config.data.name = "photo_patches"
    config.num_train_steps = 1_200
    config.eval_every_steps = config.checkpoint_every_steps = 300
    config.model.num_hiddens = 64


def cifar10(config):
    """CIFAR-10, 32x32: about 100 epochs."""
    config.data.name = "cifar10"
    config.data.batch_size = config.eval.batch_size = 128
    config.num_train_steps = 35_000
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 2_000


def celeba(config):
    """CelebA, centre crop at 128x128 (data.image_size=256 works too): about 10 epochs."""
    config.data.name = "celeb_a"
    config.data.image_size = 128
    config.data.crop_padding = 8
    config.data.batch_size = config.eval.batch_size = 32
    config.data.num_threads = 8
    config.num_train_steps = 50_000
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 5_000
    config.model.ksvd_method = "parallel"  # 32,768 signals a batch: for accelerators


def imagenette(config):
    """Imagenette at 256x256, three halvings to a 32x32 latent grid: about 100 epochs."""
    config.data.name = "imagenette"
    config.data.image_size = 256
    config.data.crop_padding = 16
    config.data.batch_size = config.eval.batch_size = 32
    config.data.num_threads = 8
    config.num_train_steps = 27_000
    config.log_every_steps = 100
    config.eval_every_steps = config.checkpoint_every_steps = 3_000
    config.model.num_downsamples = 3
    config.model.ksvd_method = "parallel"


def digits(config):
    """scikit-learn's digits at 16x16, gray: trains in minutes on a laptop."""
    config.data.name = "digits"
    config.data.image_size = 16
    config.data.channels = 1
    config.data.flip = False  # a mirrored digit is none
    config.data.crop_padding = 1
    config.num_train_steps = 1_200
    config.eval_every_steps = config.checkpoint_every_steps = 300


def hybrid(config):
    """Four codebooks of 256 entries over a sparse code: after the settings of its data set."""
    config.model.bottleneck = "hybrid"
    config.model.patch_size = 2
    config.model.num_embeddings = 1024
    config.model.ksvd_method = "approximate"  # exact: an SVD of 256x256 for each atom


def prior(config):
    """A transformer over the tokens of an autoencoder: after the settings of its data set."""
    config.prior.kind = "autoregressive"
    config.best_metric = "bits_per_token"
    config.patience = 4
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup_steps = 200


def class_prior(config):
    """A larger, class-conditional `prior`, for sets of many pictures."""
    prior(config)
    config.prior.use_labels = True
    config.prior.copies = 2  # the second is flipped or shifted
    config.prior.width = 256
    config.prior.num_layers = 8
    config.prior.num_heads = 8
