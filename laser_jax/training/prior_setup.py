"""The setup of a prior: the tokens of an autoencoder, and a transformer over them."""

import dataclasses
import functools
import logging
import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax.data import augment, num_classes
from laser_jax.evaluation.codec import TokenCodec, missing_tables, read_tables
from laser_jax.models.inference import code_atoms
from laser_jax.models.precision import network_dtype
from laser_jax.paths import resolve_workdir
from laser_jax.priors import KINDS, fitted_start
from laser_jax.ranges import as_size, settings_of
from laser_jax.sharding import data_mesh, replicated, wait_for_first_process
from laser_jax.tokens import fingerprint_of
from laser_jax.training.optimizer import build_optimizer
from laser_jax.training.setup import Setup, check_best_metric
from laser_jax.training.token_set import read_about, read_tokens, write_tokens
from laser_jax.training.weights import read_state
from laser_jax.training.workdir import read_config

log = logging.getLogger("laser_jax")

_FIRST_PICTURES = 2048  # pictures whose symbols set the biases before training


@dataclasses.dataclass(frozen=True)
class PriorSetup(Setup):
    """The parts of a prior's run. Each is built once, at its first use.

    Attributes:
      workdir: of a run whose tokens say how many classes there are; None: the data set says it.
    """

    workdir: pathlib.Path | None = None

    _kept: ClassVar[tuple[str, ...]] = ("model", "codec")

    @functools.cached_property
    def codec(self):
        """The `TokenCodec` of the autoencoder.

        Raises:
          ValueError: if `autoencoder` is not given, or is the run of a prior.
          FileNotFoundError: if it holds no run, or no tables.
        """
        if self.config.autoencoder is None:
            raise ValueError(
                "a prior needs the run whose tokens it learns: --config.autoencoder=WORKDIR."
            )
        try:
            return restore_codec(self.config.autoencoder)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"The autoencoder of the prior: {str(error).rstrip('.')} "
                "(if it has moved, give its new path: --config.autoencoder, sample --autoencoder, "
                "or laser_jax.load(autoencoder=))."
            ) from error

    @functools.cached_property
    def model(self):
        """The `TokenTransformer` or `MaskedTransformer`."""
        config, autoencoder = self.config, self.codec.model
        size, shape = config.data.image_size, autoencoder.signal_shape
        (height, width), channels = as_size(size), config.data.channels
        if height % shape[0] or width % shape[1] or channels != autoencoder.in_channels:
            raise ValueError(
                f"data.image_size {size} must be divisible by the autoencoder's signals of "
                f"{shape[0]}x{shape[1]} pixels, and data.channels {channels} be its "
                f"{autoencoder.in_channels}."
            )
        classes = self._num_classes() if config.prior.use_labels else 0
        if config.prior.use_labels and not classes:
            raise ValueError(f"prior.use_labels needs classes; {config.data.name} has none.")
        module, _ = KINDS[config.prior.kind]
        return module(
            layout=self.codec.tables.layout,
            grid=(height // shape[0], width // shape[1]),
            num_classes=classes,
            dtype=network_dtype(config.prior.dtype),
            **{name: config.prior[name] for name in settings_of(module)},
        )

    def _num_classes(self):
        """A trained prior needs no data set, only what its tokens were made of."""
        about = self.workdir and read_about(self.workdir)
        return about["num_classes"] if about else num_classes(self.config.data)

    @functools.cached_property
    def optimizer(self):
        """The `Optimizer` of the transformer."""
        return build_optimizer(self.config, None, self.lengths)

    def token_model(self, params):
        """Returns the model of tokens with parameters."""
        _, cls = KINDS[self.config.prior.kind]
        return cls(self.model, {"params": params}, batch_size=self.config.eval.batch_size)

    @property
    def fingerprint(self):
        """Text that identifies the autoencoder and the tables of its tokens."""
        return fingerprint_of(self.codec.fingerprint, self.codec.tables.fingerprint).hex()

    def check(self):
        check_best_metric(self.config.best_metric, ("loss", self.model.measure))
        if self.config.init_from is not None or self.config.optimizer.accumulate_steps > 1:
            raise ValueError(
                "init_from and optimizer.accumulate_steps are for autoencoders, not for priors."
            )
        if self.config.data.min_crop_area < 1:
            raise ValueError(
                "data.min_crop_area is for autoencoders; the copies of a prior's pictures "
                "(prior.copies) are shifted by data.crop_padding."
            )
        _ = self.model, self.optimizer
        self._compare_data()

    def _compare_data(self):
        """Divides a folder as the autoencoder did: its training images must not be held out."""
        data, other = self.config.data, read_config(self.config.autoencoder).data
        if data.name != other.name:
            log.info("the autoencoder was trained on %s, not on %s", other.name, data.name)
        elif data.split_rule != other.split_rule:
            log.info("data.split_rule is %d, that of the autoencoder", other.split_rule)
            data.split_rule = other.split_rule

    def init(self, key):
        symbols = jnp.zeros((1, self.model.num_positions, self.model.vocabulary.places), jnp.int32)
        labels = jnp.zeros(1, jnp.int32)
        keys = {"params": key, "mask": key}
        return self.model.init(keys, symbols, labels)["params"], {}, {}

    def check_tokens(self, workdir):
        """Raises ValueError if a workdir has the tokens of another autoencoder."""
        about = read_about(workdir)
        if about is not None and about["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"the prior in {workdir} learned the tokens of an autoencoder with the fingerprint "
                f"{about['fingerprint']}; {self.config.autoencoder} has {self.fingerprint}. Give "
                "the former, unchanged, with --config.autoencoder."
            )

    def training_data(self, workdir, images, validation):
        """Returns the `TokenSet`s of images; they are made at the first start in a workdir."""
        vocabulary = self.model.vocabulary
        sources = {"train": images, "validation": validation}
        if jax.process_index() == 0 and read_about(workdir) is None:
            workdir.mkdir(parents=True, exist_ok=True)
            write_tokens(
                workdir, sources, lambda x: vocabulary.symbols(self.codec.to_tokens(x)),
                {
                    "fingerprint": self.fingerprint,
                    "autoencoder": self.config.autoencoder,
                    "num_classes": images.num_classes,
                },
                batch_size=self.config.eval.batch_size, copies=self.config.prior.copies,
                augmented=self._augmented,
            )  # fmt: skip
        wait_for_first_process("the tokens are made")
        self.check_tokens(workdir)
        return tuple(
            read_tokens(workdir, split, vocabulary, source.description)
            for split, source in sources.items()
        )

    def _augmented(self, images, batch):
        """Flips and shifts images as `data` says; the batch seeds the random numbers."""
        data, rng = self.config.data, np.random.default_rng((self.config.seed, *batch))
        options = {"flip": data.flip, "crop_padding": data.crop_padding}
        return [augment(image, rng, **options) for image in images]

    def fit_start(self, state, source, stream):
        symbols = source.symbols[:: max(1, len(source) // _FIRST_PICTURES)]
        atoms = jax.device_get(code_atoms(self.codec.model, self.codec.variables))
        params = fitted_start(self.model, jax.device_get(state.params), symbols, atoms)
        params = jax.jit(lambda x: x, out_shardings=replicated(self.mesh))(params)
        # Copies, because a step cannot donate one buffer twice.
        averages = {"params": jax.tree.map(jnp.copy, params)} if state.ema_params else {}
        return state.replace(params=params, ema_params=averages)

    def step_options(self, step):
        return {}


def restore_codec(workdir):
    """Returns the `TokenCodec` of the newest checkpoint of an autoencoder's workdir.

    Raises:
      ValueError: if the workdir holds a prior.
      FileNotFoundError: if it holds no run, or no tables for its newest checkpoint.
    """
    config = read_config(workdir)
    if config.prior.kind is not None:
        raise ValueError(f"{workdir} holds a prior; autoencoder must be the run of an autoencoder.")
    setup = Setup.from_config(config, data_mesh(jax.local_devices()[:1]))
    state = read_state(workdir, setup)
    tables = read_tables(resolve_workdir(workdir), int(state.step))
    if tables is None:
        raise FileNotFoundError(missing_tables(workdir, int(state.step)))
    return TokenCodec(setup.model, jax.device_get(state.eval_variables()), tables)
