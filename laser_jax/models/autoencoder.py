"""The autoencoder: encoder, bottleneck, decoder."""

import math
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from laser_jax.convolution import Conv
from laser_jax.models.bottlenecks import Bottleneck
from laser_jax.models.bottlenecks.output import as_pair
from laser_jax.models.encoder import Decoder, Encoder, Network
from laser_jax.models.precision import at_least_float32
from laser_jax.models.vqgan import VQGANDecoder, VQGANEncoder
from laser_jax.ranges import settings_of
from laser_jax.sparse import SparseCode


class AutoencoderOutput(NamedTuple):
    """The result of an autoencoder.

    Attributes:
      reconstruction: images in about [-1, 1], at least float32.
      loss: scalar, the bottleneck's loss.
      code: the `SparseCode` of the latents.
      latents: `(b, h, w, embedding_dim)`, at least float32.
      approximation: the latents that the code stands for.
    """

    reconstruction: Float[Array, "b H W C"]
    loss: Float[Array, ""]
    code: SparseCode
    latents: Float[Array, "b h w c"]
    approximation: Float[Array, "b h w c"]


class Autoencoder(Network, kw_only=True):
    """Maps images `(b, H, W, C)` in [-1, 1] through a bottleneck to their reconstructions.

        model = Autoencoder(bottleneck=DictionaryLearning(num_embeddings=512, embedding_dim=64))
        variables = model.init(jax.random.key(0), images)
        output = model.apply(variables, images)  # .reconstruction, .loss, .code, ...

    H and W must be divisible by 2^num_downsamples, and the latent grid by the
    bottleneck's patch size.
    """

    bottleneck: Bottleneck
    in_channels: int = 3

    def setup(self) -> None:
        shape = {field: getattr(self, field) for field in (*settings_of(Network), "dtype")}
        large = self.network == "vqgan"
        encoder, decoder = (VQGANEncoder, VQGANDecoder) if large else (Encoder, Decoder)
        channels, size = (self.z_channels, (1, 1)) if large else (self.num_hiddens, (3, 3))
        self.encoder = encoder(**shape)
        self.pre_bottleneck = Conv(self.bottleneck.embedding_dim, (1, 1), dtype=self.dtype)
        self.post_bottleneck = Conv(channels, size, dtype=self.dtype)
        self.decoder = decoder(**shape, out_channels=self.in_channels)

    @property
    def signal_shape(self) -> tuple[int, int]:
        """Height and width, in image pixels, of the area of one signal."""
        p, q = as_pair(self.bottleneck.patch_size)
        return p * 2**self.num_downsamples, q * 2**self.num_downsamples

    @property
    def signal_pixels(self) -> int:
        """Image pixels per signal."""
        return math.prod(self.signal_shape)

    def last_layer(self, params: Any) -> Array:
        """Returns the decoder's last kernel, given the parameters or their gradient."""
        last = "conv_out" if self.network == "vqgan" else f"UpConv_{self.num_downsamples - 1}"
        return params["decoder"][last]["kernel"]

    def __call__(self, images: Float[Array, "b H W C"], step: Any = None) -> AutoencoderOutput:
        """Returns the `AutoencoderOutput` of images; `step` as in a call of the bottleneck."""
        latents = self.encode(images)
        approximation, loss, code = self.bottleneck(latents, step)
        return AutoencoderOutput(self.decode(approximation), loss, code, latents, approximation)

    def encode(self, images: Float[Array, "b H W C"]) -> Float[Array, "b h w c"]:
        """Returns the latents of images, `(b, h, w, embedding_dim)`, at least float32."""
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

    def decode(self, approximation: Float[Array, "b h w c"]) -> Float[Array, "b H W C"]:
        """Returns the images, in about [-1, 1], of latents."""
        return self.decoder(self.post_bottleneck(approximation.astype(self.dtype)))
