"""A trained run, ready to use from Python."""

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax import inference
from laser_jax.checkpoint import WHICH, Checkpoints
from laser_jax.models import build_model
from laser_jax.optimizer import build_optimizer
from laser_jax.run_config import read_config
from laser_jax.sharding import data_mesh
from laser_jax.sparse import SparseCode
from laser_jax.sparse.checks import check_choice
from laser_jax.step import abstract_state


class TrainedAutoencoder:
    """A model with its trained weights and dictionary, which nothing here changes.

    Attributes:
      config: the run's config.
      model: the `Autoencoder`.
      state: the `TrainState` of the checkpoint.
      variables: the model's variables to evaluate with (moving averages if it has any).
    """

    def __init__(self, config, model, state):
        self.config, self.model, self.state = config, model, state
        self.variables = state.eval_variables()

    def reconstruct(self, images):
        """Returns images through the autoencoder, float in [0, 1], the shape of `images`.

        Args:
          images: `(b, H, W, 3)`, uint8 or float in [0, 1].

        Raises:
          ValueError: if the shape does not fit the model or the floats leave [0, 1].
        """
        return np.asarray(inference.reconstruct(self.model, self.variables, _check(images)))

    def encode(self, images):
        """Returns the `SparseCode` of images, leading axes `(b, h, w)`; as for `reconstruct`."""
        return inference.encode(self.model, self.variables, _check(images))

    def decode(self, code):
        """Returns the images `(b, H, W, 3)`, float in [0, 1], of a `SparseCode` `(b, h, w, k)`."""
        return np.asarray(inference.decode(self.model, self.variables, code))

    def encode_to_indices(self, images):
        """Returns `(indices (b, h w) int32, h, w)`: tokens for a prior; `vq` only.

        Raises:
          ValueError: if the code is more than one index a position.
        """
        self._check_tokens()
        indices = self.encode(images).indices[..., 0]
        b, h, w = indices.shape
        return np.asarray(indices).reshape(b, h * w), h, w

    def decode_from_indices(self, indices, h, w):
        """Returns the images `(b, H, W, 3)`, float in [0, 1], of `(b, h w)` tokens; `vq` only."""
        self._check_tokens()
        indices = jnp.asarray(indices, jnp.int32).reshape(-1, h, w, 1)
        return self.decode(SparseCode(indices, jnp.ones(indices.shape)))

    def _check_tokens(self):
        kind = self.config.model.bottleneck
        if kind != "vq":
            raise ValueError(
                f"tokens need one index a position, as bottleneck 'vq' gives; this is {kind!r}. "
                "Use encode and decode, which take any SparseCode."
            )


def load(workdir, *, mesh=None, checkpoint="newest"):
    """Returns the `TrainedAutoencoder` of a workdir's newest, or best, checkpoint.

    Args:
      workdir: directory of a run.
      mesh: the devices to load onto; None: the first one.
      checkpoint: `newest`, or `best` by the run's `best_metric` of validation.

    Raises:
      ValueError: if `checkpoint` is neither.
      FileNotFoundError: if the workdir holds no run or no such checkpoint.
      DamagedCheckpoints: if it holds some, and none is whole.
    """
    check_choice("checkpoint", checkpoint, WHICH)
    config = read_config(workdir)
    model = build_model(config)
    optimizer = build_optimizer(config, learns_by_gradient=model.bottleneck.learns_by_gradient)
    mesh = mesh or data_mesh(jax.local_devices()[:1])
    with Checkpoints(workdir, best_metric=config.best_metric) as checkpoints:
        state = checkpoints.restore(abstract_state(config, model, optimizer, mesh), checkpoint)
    return TrainedAutoencoder(config, model, state)


def _check(images):
    images = np.asarray(images)
    if images.dtype != np.uint8 and images.size and not (0 <= images.min() and images.max() <= 1):
        raise ValueError(
            "images must be uint8 or float in [0, 1], got "
            f"{images.dtype} in [{images.min()}, {images.max()}]."
        )
    return images
