"""Trained autoencoders as codecs: one network, one number of steps, several bottlenecks.

    python -m experiments.latent_codecs --workdir=runs/full/latent_codecs

The rate is the true one, the same for every kind of code: the test windows as one compressed file
under tables of training windows (docs/compression.md). JPEG and WebP store the same windows as
one mosaic.
"""

import functools
import logging
from typing import NamedTuple

import numpy as np
from absl import app

import laser_jax
from configs import datasets, default
from experiments import results
from experiments.latent_report import PARTS, SPARSE, SPARSE_PATCHES, report
from experiments.photographs import as_bytes, photographs, source_settings
from laser_jax.data import open_split
from laser_jax.evaluate import token_codec
from laser_jax.evaluation.formats import FORMATS, rate_curve
from laser_jax.evaluation.split import evenly_spaced
from laser_jax.tokens import ContextModel, Tokens, fit_context_model
from laser_jax.training.loop import train

log = logging.getLogger("laser_jax")

BATCH = 64  # images coded at a time


class Size(NamedTuple):
    """How large the study is.

    Attributes:
      steps: of training, the same for all.
      num_hiddens: channels of encoder and decoder.
      windows: training windows that the tables are fitted on.
      every: stride over the test windows.
      seeds: of the curves in `front`; the others have seed 0 alone.
      front: curves that matter for the verdict.
      points: curve -> one dict of model settings for each point.
      ideas: change of the sparse codes of 2x2 patches -> its points, for seed 0.
    """

    steps: int
    num_hiddens: int
    windows: int
    every: int
    seeds: int
    front: tuple
    points: dict
    ideas: dict


def _vq(*atoms, patch_size=1, **options):
    return [
        {"bottleneck": "vq", "num_embeddings": m, "patch_size": patch_size, **options}
        for m in atoms
    ]


def _rvq(*stages, atoms, patch_size=1):
    return [
        {"bottleneck": "rvq", "num_embeddings": n * atoms, "num_stages": n,
         "patch_size": patch_size}
        for n in stages
    ]  # fmt: skip


def _stages_by_rate(*prices, stages, atoms, patch_size):
    (settings,) = _rvq(stages, atoms=atoms, patch_size=patch_size)
    return [{**settings, "stage_coder": "rate_distortion", "bit_price": p} for p in prices]


def _fsq(*levels, patch_size=1):
    return [{"bottleneck": "fsq", "fsq_levels": x, "patch_size": patch_size} for x in levels]


def _sparse(*prices, patch_size, step=None, **options):
    return [
        {
            "bottleneck": "ksvd", "sparse_coder": "rate_distortion",
            "sparsity_level": 32 if patch_size == 2 else 16, "bit_price": price,
            "coefficient_step": step or round(2.5 * price**0.5, 4), "patch_size": patch_size,
            **options,
        }
        for price in prices
    ]  # fmt: skip


SIZES = {
    "small": Size(
        steps=60, num_hiddens=16, windows=128, every=40, seeds=1, front=(),
        points={
            "VQ": _vq(64), "residual VQ": _rvq(4, atoms=64), "FSQ": _fsq((8, 5, 5, 5)),
            SPARSE_PATCHES: _sparse(0.03, 0.01, patch_size=2),
        },
        ideas={"the differentiable rate at 1e-4": _sparse(0.03, patch_size=2, rate_weight=1e-4)},
    ),
    "full": Size(
        steps=1200, num_hiddens=64, windows=4096, every=1, seeds=3,
        front=("residual VQ by rate, 2x2", SPARSE_PATCHES),
        points={
            "VQ": _vq(512, 1024, 4096), "VQ, 2x2": _vq(1024, 4096, patch_size=2),
            "VQ, cosine of 8 channels": _vq(1024, 4096, distance="cosine", embedding_dim=8),
            "VQ, rotation trick": _vq(1024, 4096, gradient_estimator="rotation"),
            "residual VQ": _rvq(2, 4, atoms=256),
            "residual VQ, 2x2": _rvq(2, 4, 8, atoms=256, patch_size=2),
            "residual VQ by rate, 2x2": _stages_by_rate(
                0.12, 0.04, 0.015, stages=16, atoms=256, patch_size=2
            ),
            "FSQ": _fsq((5, 5, 5), (8, 5, 5, 5), (8, 8, 8, 8)),
            "FSQ, 2x2": _fsq((5,) * 8, (5,) * 16, patch_size=2),
            SPARSE: _sparse(0.1, 0.03, 0.01, patch_size=1),
            SPARSE_PATCHES: _sparse(0.12, 0.04, 0.015, patch_size=2),
        },
        ideas={
            "rate_weight 1e-4": _sparse(0.04, 0.02, patch_size=2, rate_weight=1e-4),
            "rate_weight 3e-4": _sparse(0.04, patch_size=2, rate_weight=3e-4),
            "the price rises from 0 in 400 steps": _sparse(
                0.04, patch_size=2, price_warmup_steps=400
            ),
            "a step of 0.3 for 0.5": _sparse(0.04, patch_size=2, step=0.3),
            "online update": _sparse(0.04, patch_size=2, dictionary_update="online"),
            "2,048 atoms": _sparse(0.04, patch_size=2, num_embeddings=2048),
        },
    ),
}  # fmt: skip


def run(out, size):
    """Computes every point and lays out the report."""
    curves = {
        name: [
            [
                {**latent_point(out, size, settings, seed), "code": f"{name}, {detail(settings)}"}
                for settings in points
            ]
            for seed in range(size.seeds if name in size.front else 1)
        ]
        for name, points in size.points.items()
    }
    ideas = {
        name: [latent_point(out, size, settings, 0) for settings in points]
        for name, points in size.ideas.items()
    }
    report(out, size, curves, ideas, file_curves(out, size))


def detail(settings):
    """Returns what tells a point from the others of its curve, for tables."""
    if settings["bottleneck"] == "fsq":
        levels = settings["fsq_levels"]
        same = len(set(levels)) == 1
        return f"{len(levels)} channels of {levels[0]} values" if same else str(tuple(levels))
    price = f"price {settings['bit_price']}" if "bit_price" in settings else ""
    if "num_stages" in settings:
        stages = settings["num_stages"]
        text = f"{stages} stages of {settings['num_embeddings'] // stages:,}"
        return f"at most {text}, {price}" if price else text
    return price or f"{settings['num_embeddings']:,} entries"


def file_curves(out, size):
    """Returns the curves of JPEG and WebP on a mosaic of the test windows."""
    settings = {"every": size.every, **source_settings(out.images)}
    curves = {}
    for name in FORMATS:
        compute = functools.partial(_file_points, out, size, name)
        found = out.point("files", {"format": name, **settings}, compute)
        pairs = zip(found["bpp"], found["psnr"], strict=True)
        curves[name] = [[{"bpp": float(x), "psnr": float(y)} for x, y in pairs]]
    return curves


def _file_points(out, size, name):
    config = config_of({"steps": size.steps, "seed": 0, **source_settings(out.images)})
    rates, psnrs = zip(*rate_curve(test_windows(config, size), name), strict=True)
    return {"bpp": rates, "psnr": psnrs}


def latent_point(out, size, settings, seed):
    """Returns rate and quality of a trained autoencoder on the test windows."""
    run = {"steps": size.steps, "num_hiddens": size.num_hiddens, "seed": seed, **settings}
    run |= source_settings(out.images)
    measured = {**run, "windows": size.windows, "every": size.every}
    compute = functools.partial(trained_and_measured, out.workdir / "runs", run, size)
    return out.point("latents", measured, compute)


def config_of(run):
    """Returns the config of a run: the settings of a model, `steps`, `seed` and maybe `images`."""
    config = default.get_config()
    datasets.photos(config)
    config.seed, config.num_train_steps = run["seed"], run["steps"]
    config.eval_every_steps = config.checkpoint_every_steps = run["steps"]
    config.optimizer.warmup_steps = min(100, run["steps"] // 5)
    config.keep_checkpoints, config.model.ksvd_method = 1, "approximate"
    config.eval.table_images = 0  # `measure` fits the tables
    if "images" in run:
        config.data.name, config.data.image_size = run["images"], 128
    config.model.update({k: x for k, x in run.items() if k not in ("seed", "steps", "images")})
    return config


def trained_and_measured(runs, run, size):
    """Trains or resumes the run, and measures it."""
    return measure(laser_jax.load(trained_run(runs, run, config_of(run))), size)


def trained_run(runs, settings, config, *, level=logging.WARNING):
    """Trains or resumes a run, unless it has ended; returns its workdir.

    Args:
      runs: directory of the runs; the workdir in it has the settings' name.
      settings: name -> value, all that tells runs of a study apart.
      config: of the run.
      level: of the log meanwhile: dozens of short runs would log a line every 50 steps.
    """
    name = "-".join(f"{key}={value}" for key, value in settings.items())
    workdir, before = runs / name.replace(" ", "").replace("/", "%"), log.level
    if not (workdir / "metrics.json").exists():  # written at the end
        log.setLevel(level)
        try:
            train(config, workdir)
        finally:
            log.setLevel(before)
    return workdir


def measure(trained, size):
    """Returns rate and quality on test windows, bits by part, and a photograph's atoms."""
    config = trained.config.copy_and_resolve_references()
    config.eval.table_images = size.windows
    codec = token_codec(trained, trained.config, config)
    images = test_windows(config, size)
    tokens = _tokens(codec, images)
    parts = codec.tables.bits_by_part(tokens)
    training = open_split(config.data, "train")
    places = evenly_spaced(training, size.windows)
    known = _tokens(codec, np.stack([training[int(i)] for i in places]))
    simple = fit_context_model(known, codec.tables.layout, most_steps=0)
    alone = ContextModel(simple.layout, simple.tables | {"adapt": (0, 1)})
    pixels = images[..., 0].size
    picture = photographs("test")["coffee"][72:328, 172:428]
    return {
        "bpp": 8 * codec.container_size(sum(_sums(parts)), *images.shape[1:3]) / pixels,
        "psnr": codec.psnr_pooled(images, batch_size=BATCH),
        "fixed": trained.model.bottleneck.bits_per_signal(16) / trained.model.signal_pixels,
        "atoms": float(np.mean(tokens.counts)),
        "signals": tokens.counts.size,
        "order 0": _sums(alone.bits_by_part(tokens)),
        "in context": _sums(parts),
        "atom_map": codec.to_tokens(picture[None]).counts[0].astype(np.uint8),
        "picture": as_bytes(trained.reconstruct(picture[None])[0]),
    }


def _sums(parts):
    return [float(np.sum(parts[part])) for part in PARTS]


def test_windows(config, size):
    test = open_split(config.data, "test")
    return np.stack([test[i] for i in range(0, len(test), size.every)])


def _tokens(codec, images):
    """The tokens of images; the last batch is filled up, so that one shape is compiled."""
    padded = np.concatenate([images, images[: -len(images) % BATCH]])
    parts = [codec.to_tokens(padded[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    return Tokens(*(np.concatenate(x)[: len(images)] for x in zip(*parts, strict=True)))


if __name__ == "__main__":
    app.run(results.program("latent_codecs", "Autoencoders: quality against bits", run, SIZES))
