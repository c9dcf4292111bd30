"""The autoencoder: encoder, bottleneck, decoder."""

import math
from typing import NamedTuple

import flax.linen as nn
import jax

from laser_jax.models.bottlenecks import Bottleneck
from laser_jax.models.bottlenecks.output import as_pair
from laser_jax.models.encoder import Decoder, Encoder, Network
from laser_jax.models.precision import at_least_float32
from laser_jax.ranges import settings_of
from laser_jax.sparse import SparseCode


class AutoencoderOutput(NamedTuple):
    """What the autoencoder returns.

    Attributes:
      reconstruction: `(b, H, W, C)` float32 in about [-1, 1].
      loss: scalar, the bottleneck's loss.
      code: the latents' `SparseCode`.
      latents: `(b, h, w, embedding_dim)` float32, what was coded.
      approximation: the same shape, what the code gives back.
    """

    reconstruction: jax.Array
    loss: jax.Array
    code: SparseCode
    latents: jax.Array
    approximation: jax.Array


class Autoencoder(Network, kw_only=True):
    """Images `(b, H, W, C)` in [-1, 1] through a bottleneck and back.

        model = Autoencoder(bottleneck=DictionaryLearning(num_embeddings=512, embedding_dim=64))
        variables = model.init(jax.random.key(0), images)
        output = model.apply(variables, images)  # .reconstruction, .loss, .code, ...

    H and W must be divisible by 2^num_downsamples, and the latent grid by the
    bottleneck's patch size.
    """

    bottleneck: Bottleneck
    in_channels: int = 3

    def setup(self):
        shape = {field: getattr(self, field) for field in (*settings_of(Network), "dtype")}
        self.encoder = Encoder(**shape)
        self.pre_bottleneck = nn.Conv(self.bottleneck.embedding_dim, (1, 1), dtype=self.dtype)
        self.post_bottleneck = nn.Conv(self.num_hiddens, (3, 3), dtype=self.dtype)
        self.decoder = Decoder(**shape, out_channels=self.in_channels)

    @property
    def signal_shape(self):
        """Height and width in image pixels of what one signal of the code stands for."""
        p, q = as_pair(self.bottleneck.patch_size)
        return p * 2**self.num_downsamples, q * 2**self.num_downsamples

    @property
    def signal_pixels(self):
        """Image pixels that one signal of the code stands for."""
        return math.prod(self.signal_shape)

    def last_layer(self, params):
        """Returns the decoder's last kernel among `params`, or a gradient's part for it."""
        return params["decoder"][f"UpConv_{self.num_downsamples - 1}"]["kernel"]

    def __call__(self, images):
        latents = self.encode(images)
        approximation, loss, code = self.bottleneck(latents)
        return AutoencoderOutput(self.decode(approximation), loss, code, latents, approximation)

    def encode(self, images):
        """Returns the latents `(b, h, w, embedding_dim)`, at least float32, of images."""
        factor = 2**self.num_downsamples
        if images.ndim != 4 or images.shape[-1] != self.in_channels:
            raise ValueError(
                f"images must have shape (b, H, W, {self.in_channels}), got {images.shape}."
            )
        if images.shape[1] % factor or images.shape[2] % factor:
            raise ValueError(
                f"image size {images.shape[1]}x{images.shape[2]} is not divisible by the "
                f"downsampling {factor} (2^num_downsamples)."
            )
        return at_least_float32(self.pre_bottleneck(self.encoder(images)))

    def decode(self, approximation):
        """Returns the images `(b, H, W, C)` in about [-1, 1] of latents `(b, h, w, c)`."""
        return self.decoder(self.post_bottleneck(approximation.astype(self.dtype)))
