"""Trained priors in Python: samples, and the bits of images."""

from typing import Any

import numpy as np
from jaxtyping import Float

from laser_jax.evaluation.codec import TokenCodec
from laser_jax.images import Images, check_images
from laser_jax.priors import TokenModel
from laser_jax.tokens import Tokens


class TrainedPrior:
    """A prior with its trained weights, and the autoencoder whose tokens it models.

    Attributes:
      config: the run's config.
      state: the `TrainState` of the checkpoint.
      tokens: the `TokenModel`: bits and samples of tokens.
      codec: the `TokenCodec` of the autoencoder.
      workdir: directory of the run.
    """

    def __init__(
        self, config: Any, state: Any, tokens: TokenModel, codec: TokenCodec, workdir: Any
    ) -> None:
        self.config, self.state, self.workdir = config, state, workdir
        self.tokens, self.codec = tokens, codec

    def sample(self, key: Any, num: int, **options: Any) -> Float[np.ndarray, "num H W C"]:
        """Returns new images `(num, H, W, C)`, float in [0, 1].

        Args:
          key: PRNG key.
          num: how many.
          **options: `temperature=1.0`, `top_k=None`, `top_p=None`, `labels=None`, and to fill in
            `given=None`, `known=None`; see `laser_jax.priors.TokenModel.sample`.

        Raises:
          ValueError: if a value is out of range or a shape does not fit.
        """
        tokens, size = self.sample_tokens(key, num, **options), self.tokens.batch_size
        batches = range(0, num, size)
        parts = [self.codec.to_images(Tokens(*(x[i : i + size] for x in tokens))) for i in batches]
        return np.concatenate(parts)

    def sample_tokens(self, key: Any, num: int, **options: Any) -> Tokens:
        """Returns the `Tokens` `(num, h, w)` of new images; see `sample`."""
        return self.tokens.sample(key, num, **options)

    def bits(self, images: Images, *, labels: Any = None) -> Float[np.ndarray, " b"]:
        """Returns the bits of each image's tokens.

        Args:
          images: `(b, H, W, C)`, uint8 or float in [0, 1], of the run's `data.image_size`.
          labels: `(b,)` integers, if the prior has classes.

        Raises:
          ValueError: if a shape does not suit the prior, or floats are outside [0, 1].
        """
        return self.tokens.bits(self.encode_to_tokens(images), labels=labels)

    def encode_to_tokens(self, images: Images) -> Tokens:
        """Returns the `Tokens` `(b, h, w)` of images, those of the autoencoder."""
        images = np.asarray(images)
        check_images(images=images)
        return self.codec.to_tokens(images)
