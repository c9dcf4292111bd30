"""Evaluation: exact averages of image quality over a split, beside the rate of the code."""

import json
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax.checkpoint import check_same_run
from laser_jax.data import eval_batches, open_split
from laser_jax.figures import reconstruction_figure
from laser_jax.images import to_network, to_unit
from laser_jax.losses import reconstruction_loss
from laser_jax.metrics import active_atoms, psnr, squared_error_to_psnr, ssim
from laser_jax.progress import table
from laser_jax.sharding import check_batch_size, data_mesh, put_batch
from laser_jax.sparse import coherence, perplexity, usage
from laser_jax.trained import load

log = logging.getLogger("laser_jax")


def evaluate(config, workdir):
    """Evaluates a workdir's newest checkpoint on the test split.

    Writes `evaluation.json` and `test_reconstructions.png` in the workdir and logs a table.

    Args:
      config: the run's config; its `data.data_dir` and `eval` may differ from training.
      workdir: directory of the run.

    Returns:
      The metrics, a dict.

    Raises:
      ValueError: if the workdir holds another run than the config describes.
      FileNotFoundError: if it holds none.
    """
    check_same_run(workdir, config)
    mesh = data_mesh()
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    trained = load(workdir, mesh=mesh)
    source = open_split(config.data, "test")
    metrics = {
        "step": int(trained.state.step),
        "protocol": source.description,
        **evaluate_split(
            make_eval_step(trained.model, config), trained.model, trained.variables, source,
            mesh=mesh, config=config,
        ),
    }  # fmt: skip
    images = spread(source)
    reconstruction = trained.reconstruct(images)
    if jax.process_index() == 0:
        path = pathlib.Path(workdir)
        (path / "evaluation.json").write_text(json.dumps(metrics, indent=2) + "\n")
        title = quality_title(source, metrics)
        reconstruction_figure(
            images / 255, reconstruction, path / "test_reconstructions.png", title=title
        )
        log.info("test\n%s", table(metrics))
        log.info("written: %s, %s", path / "evaluation.json", path / "test_reconstructions.png")
    return metrics


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


def make_eval_step(model, config):
    """Returns the jitted function of one batch's sums.

    It maps `(variables, images uint8 (b, H, W, C), mask (b,))` to a dict of sums over the
    images whose mask is True, and the uses `(m,)` of each atom in them.
    """

    def recon_loss(image, reconstruction):
        return reconstruction_loss(image, reconstruction, **config.loss)

    @jax.jit
    def eval_step(variables, images, mask):
        inputs = to_network(images)
        output = model.apply(variables, inputs)
        original, reconstruction = to_unit(inputs), to_unit(output.reconstruction)
        per_image = {
            "recon_loss": jax.vmap(recon_loss)(inputs, output.reconstruction),
            "bottleneck_loss": jax.vmap(model.bottleneck.loss)(
                output.latents, output.approximation
            ),
            "squared_error": jnp.mean((original - reconstruction) ** 2, axis=(1, 2, 3)),
            "psnr": psnr(original, reconstruction),
            "ssim": ssim(original, reconstruction),
            "active_atoms": jnp.mean(active_atoms(output.code) * 1.0, axis=(1, 2)),
            "images": jnp.ones(images.shape[0]),
        }
        sums = {name: jnp.sum(jnp.where(mask, x, 0)) for name, x in per_image.items()}
        coefficients = jnp.where(mask[:, None, None, None], output.code.coefficients, 0)
        uses = usage(output.code._replace(coefficients=coefficients), _num_atoms(model))
        return sums, uses

    return eval_step


def evaluate_split(eval_step, model, variables, source, *, mesh, config):
    """Returns the metrics of a split as a dict of floats.

    `psnr` is the mean over images, `psnr_pooled` that of the pooled squared error;
    `bits_per_pixel` the rate of the fixed-length code. `dictionary_usage` is the share of
    atoms used at all, `dictionary_perplexity` the effective number of atoms by count.

    Args:
      eval_step: from `make_eval_step`.
      model: the `Autoencoder`.
      variables: the model's variables.
      source: the split's images.
      mesh: the devices.
      config: the whole config.
    """
    sums, uses = {}, np.zeros(_num_atoms(model))
    batches = eval_batches(
        source,
        batch_size=config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    for batch in batches:
        batch_sums, batch_uses = jax.device_get(eval_step(variables, *put_batch(batch, mesh)))
        for name, value in batch_sums.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        uses += batch_uses
    images = sums.pop("images")
    means = {name: value / images for name, value in sums.items()}
    means["psnr_pooled"] = float(squared_error_to_psnr(means.pop("squared_error")))
    dictionary = variables["dictionary"]["bottleneck"]
    return {
        "loss": means["recon_loss"] + means["bottleneck_loss"],
        **means,
        "sparsity": means["active_atoms"] / _num_atoms(model),
        "bits_per_pixel": bits_per_pixel(model, config),
        "dictionary_usage": float(np.mean(uses > 0)),
        "dictionary_perplexity": float(perplexity(jnp.asarray(uses))),
        "dictionary_coherence": float(jnp.max(coherence(dictionary["atoms"]))),
        "images": images,
    }


def bits_per_pixel(model, config):
    """Returns the rate of the fixed-length code, coefficients at `eval.coefficient_bits`."""
    return model.bottleneck.bits_per_signal(config.eval.coefficient_bits) / model.signal_pixels


def _num_atoms(model):
    return model.bottleneck.num_embeddings
