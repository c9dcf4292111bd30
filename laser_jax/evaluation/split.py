"""Metrics of a split: exact averages of image quality, the rate, and the use of the dictionary."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax import compiler
from laser_jax.data import eval_batches
from laser_jax.images import to_network, to_unit
from laser_jax.metrics import active_atoms, psnr, squared_error_to_psnr, ssim
from laser_jax.models.inference import atoms_of, code_atoms
from laser_jax.sharding import put_batch
from laser_jax.sparse import coherence, energy, perplexity, usage


def evenly_spaced_images(source, count=12):
    """Returns at most `count` images at even distances in a split, uint8 `(num, H, W, C)`."""
    return np.stack([source[int(i)] for i in evenly_spaced(source, count)])


def evenly_spaced(source, count):
    """Returns at most `count` rows at even distances, none twice.

    A source may be in the order of its classes.
    """
    return np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)


def quality_title(source, metrics):
    """Returns the title of a figure: the images, their PSNR and SSIM, and the rate."""
    rate = metrics.get("bits_per_pixel", metrics["bits_per_pixel_fixed"])
    return (
        f"{source.description}: PSNR {metrics['psnr_pooled']:.2f} dB (pooled), "
        f"SSIM {metrics['ssim']:.3f}, {rate:.2f} bits per pixel"
    )


def make_eval_step(model, image_loss, lpips_params=None):
    """Returns the jitted evaluation of one batch; equal models and losses share its programs.

    It maps `(variables, images uint8 (b, H, W, C), mask (b,))` to two dicts: sums of each metric
    over the images whose mask is True, and the uses and the energy of each entry of the
    bottleneck in them, `(num_entries,)`.

    Args:
      model: the `Autoencoder`.
      image_loss: the `ImageLoss` of training; here LPIPS is computed in float32.
      lpips_params: from `load_lpips`, if `image_loss` has such a term.
    """
    image_loss = dataclasses.replace(image_loss, perceptual_precision="highest")
    return functools.partial(_eval_step, model, image_loss, lpips_params)


@functools.partial(compiler.jit, static_argnums=(0, 1))
def _eval_step(model, image_loss, lpips_params, variables, images, mask):
    """Returns the sums of the metrics of a batch, and the use of the entries."""
    inputs = to_network(images)
    output = model.apply(variables, inputs)
    original, reconstruction = to_unit(inputs), to_unit(output.reconstruction)
    loss, terms = _each(lambda a, b: image_loss(a, b, lpips_params))(inputs, output.reconstruction)
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


def _each(mean):
    """Turns a function that returns a mean over a batch into one that returns a value per image."""
    return jax.vmap(lambda *batch: mean(*jax.tree.map(lambda x: x[None], batch)))


def evaluate_split(eval_step, model, variables, source, *, mesh, config):
    """Returns the metrics of a split as a dict of floats.

    `psnr` is the mean over images, `psnr_pooled` the PSNR of the pooled squared error.
    `bits_per_signal` and `bits_per_pixel_fixed` are the rate of the fixed-length code; what the
    coded split takes is `TokenCodec.split_size`.
    `dictionary_usage` is the share of entries (atoms, or points of FSQ's grid) that are used at
    least once, `dictionary_unused` the share of the others. `dictionary_perplexity` is the
    effective number of entries by use, `dictionary_perplexity_energy` by squared coefficients.

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
        "bits_per_pixel_fixed": bits_per_pixel_fixed(model, config),
        "dictionary_usage": used,
        "dictionary_unused": 1 - used,
        "dictionary_perplexity": float(perplexity(jnp.asarray(shares["uses"]))),
        "dictionary_perplexity_energy": float(perplexity(jnp.asarray(shares["energy"]))),
        "dictionary_coherence": float(jnp.max(coherence(code_atoms(model, variables)))),
        "images": int(images),
    }


def bits_per_pixel_fixed(model, config):
    """Returns the rate of the fixed-length code, coefficients at `eval.coefficient_bits`."""
    return model.bottleneck.bits_per_signal(config.eval.coefficient_bits) / model.signal_pixels
