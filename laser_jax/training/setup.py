"""Builds the parts of a run from its config: model, optimizer, adversary, losses and mesh."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from laser_jax.losses import ImageLoss
from laser_jax.models import build_model
from laser_jax.pretrained import load_lpips
from laser_jax.ranges import as_size
from laser_jax.sharding import data_mesh, replicated
from laser_jax.training.adversary import build_adversary
from laser_jax.training.optimizer import build_optimizer
from laser_jax.training.state import init_dictionary


@dataclasses.dataclass(frozen=True)
class Setup:
    """The parts of a run. Each is built once, at its first use.

    Attributes:
      config: the whole config.
      mesh: the devices.
      lengths: each `num_train_steps` of the run and the step it was set at, from
        `workdir.planned_lengths`; None: `config.num_train_steps` at step 0.
    """

    config: ConfigDict
    mesh: Mesh
    lengths: tuple | None = None

    _kept: ClassVar[tuple[str, ...]] = ("model", "adversary", "image_loss", "lpips_params")

    @classmethod
    def from_config(cls, config, mesh=None):
        """Returns the setup of a config on a mesh of devices (None: all devices)."""
        return cls(config, data_mesh() if mesh is None else mesh)

    @functools.cached_property
    def model(self):
        """The `Autoencoder`."""
        return build_model(self.config)

    @functools.cached_property
    def optimizer(self):
        """The `Optimizer` of the network and of the atoms."""
        return build_optimizer(self.config, self.model.bottleneck, self.lengths)

    @functools.cached_property
    def adversary(self):
        """The `Adversary`, None if its weight is 0."""
        return build_adversary(self.config)

    @functools.cached_property
    def image_loss(self):
        """The `ImageLoss` of training."""
        return ImageLoss(**self.config.loss)

    @functools.cached_property
    def lpips_params(self):
        """The parameters of LPIPS on every device, None if the loss has no such term.

        Raises:
          ValueError: if values of `config.loss` are inconsistent with each other or the images.
          WeightsUnavailable: if the loss has such a term and its weights are missing.
        """
        config, params = self.config, None
        if config.loss.perceptual_weight:
            params = load_lpips(config.loss.perceptual_net, config.weights.lpips)
            params = jax.jit(lambda x: x, out_shardings=replicated(self.mesh))(params)
        shape = (1, *as_size(config.data.image_size), config.data.channels)
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        jax.eval_shape(self.image_loss, images, images, params)  # raises its errors early
        return params

    def check(self):
        """Raises the errors of inconsistent values, and of missing weights, before a run starts."""
        check_best_metric(self.config.best_metric, ("psnr", "ssim", "loss"))
        _ = self.adversary, self.optimizer  # raise if their values are inconsistent

    def init(self, key):
        """Returns the network's parameters, the dictionary, and the state of further losses."""
        images = jnp.zeros((1, *as_size(self.config.data.image_size), self.model.in_channels))
        variables = self.model.init(key, images)
        extra = {"discriminator": self.adversary.init(key, images)} if self.adversary else {}
        return variables["params"], variables["dictionary"]["bottleneck"], extra

    def training_data(self, workdir, images, validation):
        """Returns what a run in a workdir trains on and validates on, given the images."""
        return images, validation

    def fit_start(self, state, source, stream):
        """Returns the state at step 0 after its first look at the training data."""
        return init_dictionary(self, state, stream)

    def step_options(self, step):
        """Returns the options of a step's call of the train step."""
        adversary = self.adversary
        return {"adversarial": adversary is not None and adversary.is_active(step)}

    def with_lengths(self, lengths):
        """Returns the setup with another schedule; only the optimizer is built again."""
        setup = dataclasses.replace(self, lengths=lengths)
        kept = {name: value for name, value in vars(self).items() if name in self._kept}
        vars(setup).update(kept)
        return setup


def check_best_metric(name, known):
    """Raises ValueError unless a validation of this kind of run has the metric."""
    if name not in known:
        raise ValueError(f"best_metric of this run must be one of {', '.join(known)}, got {name}.")
