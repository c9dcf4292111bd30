"""Do sparse codes help or hurt a prior? Five kinds of codes at about equal true bits a pixel.

    python -m experiments.generation --workdir=runs/full/generation

For each kind of code: an autoencoder, a prior of its tokens, and samples of the prior. The rate is
that of the test windows in one file under the context model (docs/compression.md); the settings
come from measured rates. All networks have one size and one number of steps, and all priors have
five blocks: of positions alone, or of positions and of the symbols of a position.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
from absl import app

import laser_jax
from configs import prior_photos
from experiments import results
from experiments.generation_report import report
from experiments.latent_codecs import config_of, measure, test_windows, trained_run
from experiments.photographs import as_bytes, source_settings
from laser_jax.data import open_split
from laser_jax.evaluate_prior import distances, held_out_bits, nearest
from laser_jax.evaluation.network_metrics import load_networks
from laser_jax.metrics import lpips

SHOWN = 8  # samples of each prior in the report


class Size(NamedTuple):
    """How large the study is.

    Attributes:
      steps: of the autoencoders.
      num_hiddens: channels of encoder and decoder.
      windows: training windows that the tables are fitted on.
      every: stride over the test windows.
      prior_steps: of the priors.
      prior: their settings.
      samples: of each prior, for the Fréchet distance.
      seeds: of everything.
      codes: kind of code -> settings of the model.
    """

    steps: int
    num_hiddens: int
    windows: int
    every: int
    prior_steps: int
    prior: dict
    samples: int
    seeds: int
    codes: dict


def _stages(bottleneck, stages, atoms):
    return {
        "bottleneck": bottleneck, "num_embeddings": stages * atoms, "num_stages": stages,
        "patch_size": 2,
    }  # fmt: skip


def _sparse(price):
    return {
        "bottleneck": "ksvd", "sparse_coder": "rate_distortion", "sparsity_level": 8,
        "bit_price": price, "coefficient_step": round(2.5 * price**0.5, 4), "patch_size": 2,
    }  # fmt: skip


SIZES = {
    "small": Size(
        steps=60, num_hiddens=16, windows=128, every=40, prior_steps=20,
        prior={"width": 32, "copies": 1}, samples=32, seeds=1,
        codes={
            "VQ": {"bottleneck": "vq", "num_embeddings": 64},
            "residual VQ": _stages("rvq", 2, 64),
            "FSQ": {"bottleneck": "fsq", "fsq_levels": (4, 4, 4)},
            "sparse by rate": _sparse(0.1),
            "hybrid": {**_stages("hybrid", 2, 64), "num_atoms": 128},
        },
    ),
    "full": Size(
        steps=1200, num_hiddens=64, windows=4096, every=1, prior_steps=500,
        prior={"width": 128, "copies": 4}, samples=2048, seeds=3,
        codes={
            "VQ": {"bottleneck": "vq", "num_embeddings": 1792},
            "residual VQ": _stages("rvq", 4, 256),
            "FSQ": {"bottleneck": "fsq", "fsq_levels": (8, 8, 8, 8)},
            "sparse by rate": _sparse(0.052),
            "hybrid": _stages("hybrid", 4, 256),
        },
    ),
}  # fmt: skip


def run(out, size):
    """Computes every point, seed 0 of all codes first, and lays out the report."""
    found: dict[str, list] = {name: [] for name in size.codes}
    for seed in range(size.seeds):
        for name, settings in size.codes.items():
            found[name].append(code_point(out, size, settings, seed))
    report(out, size, found)


def code_point(out, size, settings, seed):
    """Returns what one kind of code and its prior give on the test windows."""
    model = {"steps": size.steps, "num_hiddens": size.num_hiddens, "seed": seed, **settings}
    model |= source_settings(out.images)
    rest = {name: getattr(size, name) for name in
            ("windows", "every", "prior_steps", "prior", "samples")}  # fmt: skip
    compute = functools.partial(_computed, out.workdir / "runs", size, model)
    return out.point("codes", {**model, **rest}, compute)


def _computed(runs, size, model):
    workdir = trained_run(runs, model, config_of(model))
    trained = laser_jax.load(workdir)
    measured = measure(trained, size)  # stores the tables that the prior needs
    windows = test_windows(trained.config, size)
    distance = [lpips(x, trained.reconstruct(x)) for x in np.array_split(windows, 16)]
    config = prior_config(size, model, workdir)
    settings = {**model, "prior_steps": size.prior_steps, **size.prior}
    prior_workdir = trained_run(runs, settings, config)
    prior = laser_jax.load(prior_workdir, checkpoint="best")
    samples = prior.sample(jax.random.key(model["seed"]), size.samples)
    shown = samples[:SHOWN]
    pixels = windows[..., 0].size
    return {
        "bpp": measured["bpp"],
        "psnr": measured["psnr"],
        "lpips": float(np.mean(np.concatenate(distance))),
        "order_0": float(np.sum(measured["order 0"])) / pixels,
        **held_out_bits(prior, windows, prior_workdir, config),
        **distances(prior, windows, samples, load_networks(config)),
        "signal_pixels": prior.codec.model.signal_pixels,
        "parameters": sum(x.size for x in jax.tree.leaves(prior.state.params)),
        "prior_step": int(prior.state.step),
        "samples": as_bytes(shown),
        "nearest": as_bytes(nearest(shown, open_split(config.data, "train"), flip=True)),
    }


def prior_config(size, model, autoencoder):
    """Returns the config of the prior of an autoencoder's tokens."""
    config = prior_photos.get_config()
    config.autoencoder, config.seed = str(autoencoder), model["seed"]
    config.num_train_steps, config.keep_checkpoints = size.prior_steps, 1
    config.eval_every_steps = config.checkpoint_every_steps = min(size.prior_steps, 100)
    config.optimizer.warmup_steps = size.prior_steps // 5
    single = model["bottleneck"] in ("vq", "fsq")
    config.prior.update({"num_layers": 5 if single else 3, "num_inner_layers": 2, **size.prior})
    if "images" in model:
        config.data.name, config.data.image_size = model["images"], 128
    return config


if __name__ == "__main__":
    app.run(results.program("generation", "Priors: samples and bits of five codes", run, SIZES))
