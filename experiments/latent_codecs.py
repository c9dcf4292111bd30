"""Codecs that are trained autoencoders: one network, one number of steps, several bottlenecks.

The rate of their codes is taken as that of pixels is: tables of the training windows' symbols, the
cross-entropy of the test windows' symbols under them.
"""

import functools
import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import laser_jax
from configs import ksvd_photos
from experiments.photographs import as_bytes, as_float, photographs, source_settings
from experiments.picture_codecs import quality
from laser_jax.data import open_split
from laser_jax.images import to_network
from laser_jax.metrics import active_atoms
from laser_jax.models.bottlenecks.coding import MAX_LEVEL
from laser_jax.models.inference import atoms_of
from laser_jax.sparse import (
    SparseCode,
    code_bits,
    dequantize_coefficients,
    fit_rate_model,
    quantize_coefficients,
    uniform_rate_model,
)
from laser_jax.training.loop import train

log = logging.getLogger("laser_jax")

FIXED, BY_RATE = "sparse, fixed atoms", "sparse, atoms by rate"
PATCHES = "sparse, atoms by rate, patches of 2x2"
BATCH = 128  # windows coded at a time


class Size(NamedTuple):
    """How large the part with autoencoders is.

    Attributes:
      steps: of training, the same for all.
      num_hiddens: channels of encoder and decoder.
      windows: training windows that the tables are fitted on.
      every: stride over the test windows.
      seeds: of every point.
      points: curve -> one dict of model settings for each point.
    """

    steps: int
    num_hiddens: int
    windows: int
    every: int
    seeds: int
    points: dict


def _vq(*atoms):
    return [{"bottleneck": "vq", "num_embeddings": m} for m in atoms]


def _rvq(*stages, atoms):
    return [{"bottleneck": "rvq", "num_embeddings": atoms * s, "num_stages": s} for s in stages]


def _fsq(*levels):
    return [{"bottleneck": "fsq", "fsq_levels": each} for each in levels]


def _fixed(*sparsities):
    return [{"bottleneck": "ksvd", "sparsity_level": k} for k in sparsities]


def _by_rate(*prices, patch_size):
    return [
        {
            "bottleneck": "ksvd", "sparse_coder": "rate_distortion", "sparsity_level": 16,
            "bit_price": price, "coefficient_step": 2.5 * price**0.5, "patch_size": patch_size,
        }
        for price in prices
    ]  # fmt: skip


SIZES = {
    "small": Size(
        steps=60, num_hiddens=16, windows=128, every=40, seeds=1,
        points={
            "VQ": _vq(64), "residual VQ, fixed stages": _rvq(4, atoms=64),
            "FSQ": _fsq((8, 5, 5, 5)), FIXED: _fixed(2),
            BY_RATE: _by_rate(0.03, patch_size=1),
        },
    ),
    "full": Size(
        steps=400, num_hiddens=32, windows=2048, every=2, seeds=3,
        points={
            "VQ": _vq(256, 2048),
            "residual VQ, fixed stages": _rvq(2, 8, atoms=256),
            "FSQ": _fsq((8, 5, 5, 5), (8, 8, 8, 8, 5, 5, 5, 5)),
            FIXED: _fixed(1, 2, 3),
            BY_RATE: _by_rate(0.1, 0.03, 0.01, patch_size=1),
            PATCHES: _by_rate(0.2, 0.04, patch_size=2),
        },
    ),
}  # fmt: skip


def latent_points(out, size):
    """Returns curve -> one list of measured points for each seed."""
    return {
        name: [
            [latent_point(out, size, settings, seed) for settings in all_settings]
            for seed in range(size.seeds)
        ]
        for name, all_settings in size.points.items()
    }


def latent_point(out, size, settings, seed):
    """Returns rate and quality of a trained autoencoder on the test windows."""
    run = {"steps": size.steps, "num_hiddens": size.num_hiddens, "seed": seed, **settings}
    run |= source_settings(out.images)
    measured = {**run, "windows": size.windows, "every": size.every}
    compute = functools.partial(trained_and_measured, out.workdir / "runs", run, size)
    return out.point("latents", measured, compute)


def trained_and_measured(runs, run, size):
    """Trains or resumes the run, and measures it."""
    config = ksvd_photos.get_config()
    config.seed, config.num_train_steps = run["seed"], run["steps"]
    config.eval_every_steps = config.checkpoint_every_steps = run["steps"]
    config.optimizer.warmup_steps = min(100, run["steps"] // 5)
    config.keep_checkpoints, config.model.ksvd_method = 1, "approximate"
    if "images" in run:
        config.data.name, config.data.image_size = run["images"], 128
    model = {key: x for key, x in run.items() if key not in ("seed", "steps", "images")}
    config.model.update(model)
    name = (
        "-".join(f"{key}={value}" for key, value in run.items()).replace(" ", "").replace("/", "%")
    )
    level = log.level
    log.setLevel(logging.WARNING)  # dozens of short runs would log a line every 50 steps
    train(config, runs / name)
    log.setLevel(level)
    return measure(laser_jax.load(runs / name), size)


def measure(trained, size):
    """Returns rate and quality on test windows, and where the atoms of a photograph went."""
    codec = codec_of(trained)
    source = open_split(trained.config.data, "train")
    places = np.random.default_rng(0).choice(len(source), min(size.windows, len(source)), False)
    model = codec.fit(np.stack([source[int(i)] for i in places]))
    test = open_split(trained.config.data, "test")
    images = np.stack([test[i] for i in range(0, len(test), size.every)])
    bits, originals, decoded = 0.0, [], []
    for batch in np.array_split(images, -(-len(images) // BATCH)):
        code = codec.encode(batch, model)
        bits += float(jnp.sum(code_bits(code, model)))
        originals.append(as_float(batch))
        decoded.append(codec.decode(code))
    picture = photographs("test")["coffee"][72:328, 172:428]
    atoms = active_atoms(codec.encode(picture[None], model))[0]
    return {
        **quality(originals, decoded, bits),
        "atom_map": np.asarray(atoms).astype(np.uint8),
        "picture": as_bytes(trained.reconstruct(picture[None])[0]),
    }


class LatentCodec:
    """A trained autoencoder as a codec: images to integer codes and back. As it stands, for (R)VQ.

    Args:
      trained: from `laser_jax.load`.
    """

    def __init__(self, trained):
        self.trained = trained
        self.atoms = atoms_of(trained.variables)

    @property
    def stages(self):
        """The stages of a residual code, each with a table; None where supports are sets."""
        return self.trained.model.bottleneck.num_stages

    def encode(self, images, model):
        """Returns the integer `SparseCode` of images, leading axes `(b, h, w)`."""
        return as_integers(self.trained.encode(images))

    def decode(self, code):
        """Returns the images of an integer code."""
        real = code._replace(coefficients=code.coefficients.astype(jnp.float32))
        return self.trained.decode(real)

    def fit(self, images):
        """Returns the `RateModel` of the images' symbols."""
        return self._fit(self._encode_all(images, None))

    def _fit(self, code):
        return fit_rate_model(
            code, num_atoms=self.num_symbols, max_level=MAX_LEVEL, stages=self.stages
        )

    @property
    def num_symbols(self):
        return self.atoms.shape[0]

    def _encode_all(self, images, model):
        parts = np.array_split(images, -(-len(images) // BATCH))
        codes = [self.encode(part, model) for part in parts]
        return jax.tree.map(lambda *x: jnp.concatenate(x), *codes)


class GridCodec(LatentCodec):
    """FSQ: one symbol a latent, the place in the grid of all combinations."""

    stages = 1

    def encode(self, images, model):
        code = self.trained.encode(images)
        digits = jnp.round(code.coefficients * self._halves).astype(jnp.int32) + self._offset
        index = jnp.sum(digits * self._weights, -1, keepdims=True)
        return SparseCode(index, jnp.ones_like(index))

    def decode(self, code):
        digits = code.indices // self._weights % self._levels
        values = (digits - self._offset) / self._halves
        indices = jnp.broadcast_to(jnp.arange(values.shape[-1]), values.shape)
        return self.trained.decode(SparseCode(indices, values))

    @property
    def num_symbols(self):
        return int(np.prod(self.trained.config.model.fsq_levels))

    @property
    def _levels(self):
        return np.array(self.trained.config.model.fsq_levels)[None, None, None, :]

    @property
    def _halves(self):
        return np.float32(self._levels // 2)

    @property
    def _offset(self):
        return self._levels // 2

    @property
    def _weights(self):
        levels = self._levels.ravel()
        return np.concatenate([[1], np.cumprod(levels[:-1])])[None, None, None, :]


class FixedSparseCodec(LatentCodec):
    """Sparse codes of a fixed number of atoms, their coefficients rounded to a step."""

    stages = None

    def fit(self, images):
        coefficients = self.trained.encode(images[:BATCH]).coefficients
        # A quarter of their size: the rounding error is then small against that of the support.
        self.step = 0.25 * float(jnp.sqrt(jnp.mean(coefficients**2)))
        return super().fit(images)

    def encode(self, images, model):
        bits = 1 + MAX_LEVEL.bit_length()
        return quantize_coefficients(self.trained.encode(images), self.step, bits=bits)

    def decode(self, code):
        return self.trained.decode(dequantize_coefficients(code, self.step))


class RateSparseCodec(LatentCodec):
    """Sparse codes with as many atoms as are worth their bits under fitted tables."""

    stages = None

    def fit(self, images):
        config = self.trained.config.model
        model = uniform_rate_model(
            config.num_embeddings, sparsity=config.sparsity_level, max_level=MAX_LEVEL
        )
        for _ in range(3):  # cheap symbols are chosen more often and become cheaper
            model = self._fit(self._encode_all(images, model))
        return model

    def encode(self, images, model):
        return _levels_of(self.trained.model, self.trained.variables, images, model)

    def decode(self, code):
        step = self.trained.config.model.coefficient_step
        return self.trained.decode(dequantize_coefficients(code, step))


@functools.partial(jax.jit, static_argnums=0)
def _levels_of(model, variables, images, rate_model):
    latents = model.apply(variables, to_network(images), method="encode")
    return model.bottleneck.encode_levels(atoms_of(variables), latents, rate_model)


def codec_of(trained):
    """Returns the codec of a trained autoencoder, chosen by the kind of its codes."""
    bottleneck = trained.model.bottleneck
    if bottleneck.has_real_coefficients:
        return FixedSparseCodec(trained)
    layout = bottleneck.token_layout()
    if layout.grid:
        return GridCodec(trained)
    return LatentCodec(trained) if layout.alphabets else RateSparseCodec(trained)


def as_integers(code):
    """Returns a code whose coefficients are integers by nature, as integers."""
    return code._replace(coefficients=jnp.round(code.coefficients).astype(jnp.int32))
