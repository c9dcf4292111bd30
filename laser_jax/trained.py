"""Trained runs in Python: load, reconstruct, encode and decode."""

import functools
import os
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Integer

from laser_jax.checks import check_code, check_not_empty
from laser_jax.evaluation.codec import TokenCodec, missing_tables, read_tables
from laser_jax.images import Images, check_images
from laser_jax.models import Autoencoder, inference
from laser_jax.paths import resolve_workdir
from laser_jax.sparse import SparseCode
from laser_jax.tokens import Tokens
from laser_jax.trained_prior import TrainedPrior
from laser_jax.training.restored import restore_run
from laser_jax.training.state import TrainState
from laser_jax.training.weights import write_weights


class TrainedAutoencoder:
    """A model with its trained weights and dictionary, which no method changes.

    Attributes:
      config: the run's config.
      model: the `Autoencoder`.
      state: the `TrainState` of the checkpoint.
      variables: the variables for evaluation (the moving averages if the run has them).
      workdir: directory of the run, which holds the tables of tokens; None: there are none.
    """

    def __init__(
        self, config: Any, model: Autoencoder, state: TrainState, workdir: Any = None
    ) -> None:
        self.config, self.model, self.state, self.workdir = config, model, state, workdir
        self.variables = state.eval_variables()

    @functools.cached_property
    def codec(self) -> TokenCodec:
        """The `TokenCodec` of the run: tokens, their bits, and files.

        Raises:
          FileNotFoundError: if the workdir has no tables for this checkpoint.
        """
        step = int(self.state.step)
        tables = None if self.workdir is None else read_tables(self.workdir, step)
        if tables is None:
            raise FileNotFoundError(missing_tables(self.workdir, step))
        return TokenCodec(self.model, self.variables, tables)

    def reconstruct(self, images: Images) -> Float[np.ndarray, "b H W C"]:
        """Returns the reconstructions of images, float in [0, 1], in the shape of `images`.

        Args:
          images: `(b, H, W, C)`, C = `data.channels`, uint8 or float in [0, 1].

        Raises:
          ValueError: if the shape does not suit the model, or floats are outside [0, 1].
        """
        return np.asarray(inference.reconstruct(self.model, self.variables, _checked(images)))

    def encode(self, images: Images) -> SparseCode:
        """Returns the `SparseCode` of images with leading axes `(b, h, w)`; see `reconstruct`."""
        return inference.encode(self.model, self.variables, _checked(images))

    def decode(self, code: SparseCode) -> Float[np.ndarray, "b H W C"]:
        """Returns the images `(b, H, W, C)`, float in [0, 1], of a `SparseCode` `(b, h, w, k)`.

        Raises:
          ValueError: if the code has a wrong shape or type, an index outside [0, m), or a
            coefficient that is not finite.
        """
        # In NumPy, where an index that int32 cannot hold is still out of range.
        code = SparseCode(*map(np.asarray, code))  # type: ignore[arg-type]
        check_code(code)
        check_not_empty(**code._asdict())
        if code.indices.ndim != 4:
            raise ValueError(f"a code must have shape (b, h, w, k), got {code.indices.shape}.")
        _check_range("indices of the code", code.indices, self.model.bottleneck.num_embeddings)
        if not np.all(np.isfinite(code.coefficients)):
            raise ValueError("coefficients of the code must be finite, but some are not.")
        return np.asarray(inference.decode(self.model, self.variables, code))

    def encode_to_indices(self, images: Images) -> tuple[Int[np.ndarray, "b hw"], int, int]:
        """Returns `(indices (b, h w) int32, h, w)`, one token per signal: `vq`, `fsq`, `hybrid`.

        `vq`, and `hybrid` of one stage: index of the atom. `fsq`: index of the grid point; the
        first level varies fastest.

        Raises:
          ValueError: as `reconstruct`, or if a code of the bottleneck is not one index.
        """
        self._check_tokens()
        indices = self.model.bottleneck.to_indices(self.encode(images))
        b, h, w = indices.shape
        return np.asarray(indices).reshape(b, h * w), h, w

    def decode_from_indices(
        self, indices: Integer[Array | np.ndarray, "b hw"], h: int, w: int
    ) -> Float[np.ndarray, "b H W C"]:
        """Returns the images `(b, H, W, C)`, float in [0, 1], of tokens of `encode_to_indices`.

        Args:
          indices: `(b, h w)` integers in [0, `model.bottleneck.num_codes`).
          h, w: rows and columns of the grid of signals: of latents, or of their patches.

        Raises:
          ValueError: if the indices have a wrong shape, type or range, or a code of the bottleneck
            is not one index.
        """
        self._check_tokens()
        indices, bottleneck = np.asarray(indices), self.model.bottleneck
        if not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"indices must be integers, got {indices.dtype}.")
        if min(h, w) < 1 or indices.ndim != 2 or indices.shape[1] != h * w:
            raise ValueError(
                f"indices must have shape (b, h w) with h, w = {h}, {w}, both at least 1, "
                f"got {indices.shape}."
            )
        _check_range("indices", indices, bottleneck.num_codes)
        indices = jnp.asarray(indices.reshape(-1, h, w), jnp.int32)
        return self.decode(bottleneck.from_indices(indices))

    def encode_to_tokens(self, images: Images) -> Tokens:
        """Returns the `Tokens` `(b, h, w)` of images; every bottleneck has them.

        Raises:
          ValueError: as `reconstruct`.
          FileNotFoundError: if the workdir has no tables for this checkpoint.
        """
        return self.codec.to_tokens(_checked(images))

    def decode_from_tokens(self, tokens: Tokens) -> Float[np.ndarray, "b H W C"]:
        """Returns the images `(b, H, W, C)`, float in [0, 1], of `Tokens`.

        Raises:
          ValueError: if the tokens are not canonical, or of another layout.
          FileNotFoundError: if the workdir has no tables for this checkpoint.
        """
        return self.codec.to_images(tokens)

    def compress(self, images: Iterable[np.ndarray]) -> list[bytes]:
        """Returns the bytes of a file for each image.

        Args:
          images: `(b, H, W, C)` or a list of `(H, W, C)` of any sizes, C = `data.channels`, uint8
            or float in [0, 1]. The model sees them extended by reflection.

        Raises:
          ValueError: if an image has a wrong shape, is outside [0, 1], or is larger than a file
            may hold.
          FileNotFoundError: if the workdir has no tables for this checkpoint.
        """
        return self.codec.compress(images)

    def decompress(self, files: Iterable[bytes]) -> list[np.ndarray]:
        """Returns the images of files, a list of uint8 `(H, W, C)`.

        Args:
          files: list of `bytes` of `compress`.

        Raises:
          ValueError: if data is no such file, damaged, of a newer version, or another model's.
          FileNotFoundError: if the workdir has no tables for this checkpoint.
        """
        return self.codec.decompress(files)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the weights alone, without the optimizer and the discriminator; `load` reads them.

        Args:
          directory: where they go, with the config and the tables of tokens; new or empty.

        Raises:
          ValueError: if the directory holds something.
        """
        write_weights(directory, self.workdir, self.config, self.state)

    def _check_tokens(self):
        if not self.model.bottleneck.has_indices:
            raise ValueError(
                "tokens need one index per signal, so the bottleneck must be 'fsq', or 'vq' or "
                "'hybrid' with one stage and stage_coder 'nearest', got "
                f"{self.config.model.bottleneck!r}. Use encode and decode, which support every "
                "bottleneck."
            )


def load(
    workdir: str | os.PathLike,
    *,
    mesh: Mesh | None = None,
    checkpoint: str = "newest",
    autoencoder: str | os.PathLike | None = None,
) -> Any:
    """Returns the `TrainedAutoencoder`, or `TrainedPrior`, of a checkpoint of a workdir.

    Args:
      workdir: directory of a run, or of weights written by `save`.
      mesh: the devices that hold the model; None: the first device.
      checkpoint: `newest`, or `best` by the validation metric `best_metric`.
      autoencoder: for a prior, where its autoencoder's run is now; None: where it was.

    Raises:
      ValueError: if `checkpoint` is neither, or the autoencoder is not the prior's.
      FileNotFoundError: if the workdir holds no run or no such checkpoint.
      DamagedCheckpoints: if it holds checkpoints, but none is intact.
    """
    setup, state = restore_run(workdir, mesh=mesh, checkpoint=checkpoint, autoencoder=autoencoder)
    config, workdir = setup.config, resolve_workdir(workdir)
    if config.prior.kind is None:
        return TrainedAutoencoder(config, setup.model, state, workdir)
    setup.check_tokens(workdir)
    tokens = setup.token_model(state.eval_params())
    return TrainedPrior(config, state, tokens, setup.codec, workdir)


def _check_range(what, integers, end):
    """Raises ValueError unless all integers are in [0, end)."""
    if integers.size and not (0 <= integers.min() and integers.max() < end):
        raise ValueError(f"{what} must be in [0, {end}), got {integers.min()} to {integers.max()}.")


def _checked(images):
    images = np.asarray(images)
    check_images(images=images)
    check_not_empty(images=images)
    return images
