"""Builds the parts of a run from its config: model, optimizer, adversary, losses and mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from laser_jax.losses import ImageLoss
from laser_jax.models import build_model
from laser_jax.pretrained import load_lpips
from laser_jax.sharding import data_mesh, replicated
from laser_jax.training.adversary import build_adversary
from laser_jax.training.optimizer import build_optimizer


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
        shape = (1, config.data.image_size, config.data.image_size, config.data.channels)
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        jax.eval_shape(self.image_loss, images, images, params)  # raises its errors early
        return params

    def with_lengths(self, lengths):
        """Returns the setup with another schedule; only the optimizer is built again."""
        setup = dataclasses.replace(self, lengths=lengths)
        kept = ("model", "adversary", "image_loss", "lpips_params")
        vars(setup).update({name: getattr(self, name) for name in kept})
        return setup
