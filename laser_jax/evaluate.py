"""Evaluation: exact averages of image quality over a split, beside the rate of the code."""

import functools
import hashlib
import logging
import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax.data import eval_batches, open_split
from laser_jax.figures import reconstruction_figure
from laser_jax.files import optional_file, write_json
from laser_jax.images import to_network, to_unit
from laser_jax.inference import atoms_of
from laser_jax.losses import ImageLoss
from laser_jax.metrics import active_atoms, psnr, squared_error_to_psnr, ssim
from laser_jax.models import build_model
from laser_jax.paths import resolve_config, resolve_workdir
from laser_jax.perceptual import load_networks, perceptual_quality
from laser_jax.progress import table
from laser_jax.run_config import check_same_model
from laser_jax.settings import check_config
from laser_jax.sharding import check_batch_size, data_mesh, put_batch
from laser_jax.sparse import coherence, energy, perplexity, usage
from laser_jax.step import load_lpips_params
from laser_jax.trained import load

log = logging.getLogger("laser_jax")


def evaluate(config, workdir):
    """Evaluates the checkpoint `eval.checkpoint` of a workdir on the split `eval.split`.

    Logs a table and writes `evaluation.json` and `test_reconstructions.png` in the workdir. For
    the best checkpoint, and another data set, size or split, these are files of their own:
    `evaluation-NAME.json`.

    Args:
      config: the run's config; anything but `model` and `seed` may differ from training.
      workdir: directory of the run.

    Returns:
      The metrics, a dict.

    Raises:
      ValueError: if the workdir holds another model than the config describes.
      FileNotFoundError: if it holds none, or weights that the config names are not there.
    """
    check_config(config)
    workdir, config, mesh = resolve_workdir(workdir), resolve_config(config), data_mesh()
    stored = check_same_model(workdir, config)
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    networks = load_networks(config) if config.eval.perceptual else {}
    trained = load(workdir, mesh=mesh, checkpoint=config.eval.checkpoint)
    model, variables = trained.model, trained.variables
    eval_step = make_eval_step(model, config, load_lpips_params(config, mesh))
    build_model(config)  # checks that the images fit the model
    source = open_split(config.data, config.eval.split)
    metrics = {
        "step": int(trained.state.step),
        "protocol": source.description,
        "rate_protocol": "fixed-length code; coefficients, where there are any, at "
        f"{config.eval.coefficient_bits} bits",
        **evaluate_split(eval_step, model, variables, source, mesh=mesh, config=config),
        **perceptual_quality(networks, model, variables, source, mesh=mesh, config=config),
    }
    images = spread(source)
    reconstruction = trained.reconstruct(images)
    if jax.process_index() == 0:
        name = evaluation_name(stored, config)
        path = workdir / f"evaluation{name}.json"
        figure = workdir / f"{config.eval.split}_reconstructions{name}.png"
        log.info("%s\n%s", config.eval.split, table(metrics))
        write_json(path, metrics)
        log.info("written: %s", path)
        with optional_file(figure):
            title = quality_title(source, metrics)
            reconstruction_figure(images / 255, reconstruction, figure, title=title)
            log.info("written: %s", figure)
    return metrics


def evaluation_name(stored, config):
    """Returns what an evaluation's files have in their names: what differs from the usual one.

    Args:
      stored: the run's own config.
      config: that of the evaluation.
    """
    data, size = config.data.name, config.data.image_size
    parts = [config.eval.split] if config.eval.split != "test" else []
    if data != stored.data.name:
        folder = data.partition(":")[2]
        name = re.sub(r"[^\w.-]+", "_", pathlib.Path(folder or data).name)[:60]
        # Folders of one name in two places are two data sets.
        parts += [name, hashlib.sha256(os.fsencode(data)).hexdigest()[:8]] if folder else [name]
    if size != stored.data.image_size:
        parts.append(f"{size}px")
    if config.eval.checkpoint != "newest":
        parts.append(config.eval.checkpoint)
    return "".join(f"-{part}" for part in parts)


def spread(source, count=12):
    """Returns `count` images from all over a split, uint8 `(count, H, W, C)`."""
    places = np.linspace(0, len(source) - 1, count).astype(int)
    return np.stack([source[int(i)] for i in places])


def quality_title(source, metrics):
    """Returns a figure's title: which images, how good, at which rate."""
    return (
        f"{source.description}: PSNR {metrics['psnr_pooled']:.2f} dB (pooled), "
        f"SSIM {metrics['ssim']:.3f}, {metrics['bits_per_pixel']:.2f} bits a pixel"
    )


def make_eval_step(model, config, lpips_params=None):
    """Returns the jitted function of one batch's sums.

    It maps `(variables, images uint8 (b, H, W, C), mask (b,))` to a dict of sums over the
    images whose mask is True, and to the uses and the energy of each of the bottleneck's
    entries in them, `(num_entries,)`.

    Args:
      model: the `Autoencoder`.
      config: the whole config.
      lpips_params: from `load_lpips_params`.
    """
    image_loss = ImageLoss(**{**config.loss, "perceptual_precision": "highest"})

    @jax.jit
    def eval_step(variables, images, mask, lpips_params):
        inputs = to_network(images)
        output = model.apply(variables, inputs)
        original, reconstruction = to_unit(inputs), to_unit(output.reconstruction)
        loss, terms = _each(lambda a, b: image_loss(a, b, lpips_params))(
            inputs, output.reconstruction
        )
        bottleneck_loss = _each(lambda *x: model.bottleneck.loss(*x, atoms_of(variables)))(
            output.latents, output.approximation, output.code
        )
        per_image = {
            "loss": loss + bottleneck_loss,
            **terms,
            "bottleneck_loss": bottleneck_loss,
            "squared_error": jnp.mean((original - reconstruction) ** 2, axis=(1, 2, 3)),
            "psnr": psnr(original, reconstruction),
            "ssim": ssim(original, reconstruction),
            "active_atoms": jnp.mean(active_atoms(output.code) * 1.0, axis=(1, 2)),
            "images": jnp.ones(images.shape[0]),
        }
        sums = {name: jnp.sum(jnp.where(mask, x, 0)) for name, x in per_image.items()}
        entries, count = model.bottleneck.entries(output.code), model.bottleneck.num_entries
        coefficients = jnp.where(mask[:, None, None, None], entries.coefficients, 0)
        entries = entries._replace(coefficients=coefficients)
        return sums, {"uses": usage(entries, count), "energy": energy(entries, count)}

    return functools.partial(eval_step, lpips_params=lpips_params)


def _each(mean):
    """Maps what gives a mean over a batch to what gives each image's value."""
    return jax.vmap(lambda *batch: mean(*jax.tree.map(lambda x: x[None], batch)))


def evaluate_split(eval_step, model, variables, source, *, mesh, config):
    """Returns the metrics of a split as a dict of floats.

    `psnr` is the mean over images, `psnr_pooled` that of the pooled squared error;
    `bits_per_signal` and `bits_per_pixel` the rate of the fixed-length code. `dictionary_usage`
    is the share of the bottleneck's entries used at all (atoms; for FSQ points of its grid),
    `dictionary_unused` the others'; `dictionary_perplexity` their effective number by count,
    `dictionary_perplexity_energy` that by squared coefficients.

    Args:
      eval_step: from `make_eval_step`.
      model: the `Autoencoder`.
      variables: the model's variables.
      source: the split's images.
      mesh: the devices.
      config: the whole config.
    """
    sums, shares = {}, {}
    batches = eval_batches(
        source,
        batch_size=config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    for batch in batches:
        batch_sums, batch_shares = jax.device_get(eval_step(variables, *put_batch(batch, mesh)))
        for total, new in ((sums, batch_sums), (shares, batch_shares)):
            for name, value in new.items():
                total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
    images = sums.pop("images")
    means = {name: float(value / images) for name, value in sums.items()}
    means["psnr_pooled"] = float(squared_error_to_psnr(means.pop("squared_error")))
    used = float(np.mean(shares["uses"] > 0))
    return {
        **means,
        "sparsity": means["active_atoms"] / model.bottleneck.num_embeddings,
        "bits_per_signal": model.bottleneck.bits_per_signal(config.eval.coefficient_bits),
        "bits_per_pixel": bits_per_pixel(model, config),
        "dictionary_usage": used,
        "dictionary_unused": 1 - used,
        "dictionary_perplexity": float(perplexity(jnp.asarray(shares["uses"]))),
        "dictionary_perplexity_energy": float(perplexity(jnp.asarray(shares["energy"]))),
        "dictionary_coherence": float(jnp.max(coherence(atoms_of(variables)))),
        "images": int(images),
    }


def bits_per_pixel(model, config):
    """Returns the rate of the fixed-length code, coefficients at `eval.coefficient_bits`."""
    return model.bottleneck.bits_per_signal(config.eval.coefficient_bits) / model.signal_pixels
