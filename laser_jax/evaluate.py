"""Evaluates a workdir on a split: a table, a JSON file and a figure."""

import hashlib
import logging
import os
import pathlib
import re

import jax

from laser_jax.data import DataUnavailable, open_split
from laser_jax.evaluate_prior import evaluate_prior
from laser_jax.evaluation.codec import TokenCodec, fit_codec, read_tables, write_tables
from laser_jax.evaluation.formats import FORMATS, nearest_rate
from laser_jax.evaluation.network_metrics import compute_network_metrics, load_networks
from laser_jax.evaluation.split import (
    evaluate_split,
    evenly_spaced_images,
    make_eval_step,
    quality_title,
)
from laser_jax.figures import reconstruction_figure
from laser_jax.files import optional_file, write_json
from laser_jax.paths import resolve_config, resolve_workdir
from laser_jax.ranges import as_size
from laser_jax.sharding import check_batch_size
from laser_jax.trained import load
from laser_jax.training.progress import table
from laser_jax.training.settings import check_config
from laser_jax.training.setup import Setup
from laser_jax.training.workdir import check_same_model, keep_own

log = logging.getLogger("laser_jax")

MOST_PIXELS = 2**22  # of the mosaic that is written as JPEG and WebP


def evaluate(config, workdir):
    """Evaluates the checkpoint `eval.checkpoint` of a workdir on the split `eval.split`.

    Logs a table and writes `evaluation.json` and `test_reconstructions.png` in the workdir, or
    `samples_nearest.png` for a prior. The best checkpoint, and other data sets, sizes and splits,
    have separate files, `evaluation-NAME.json`.

    Args:
      config: the config of the run; all keys but `model`, `seed` and `data.channels` may differ
        from training, for a prior also not `prior` and `data.image_size`.
      workdir: directory of the run.

    Returns:
      The metrics, a dict.

    Raises:
      ValueError: if the workdir holds a model other than the config describes.
      FileNotFoundError: if it holds no run, or weights that the config names are missing.
    """
    check_config(config)
    workdir, config = resolve_workdir(workdir), resolve_config(config)
    setup = Setup.from_config(config)
    mesh = setup.mesh
    stored = check_same_model(workdir, config)
    if config.data.name == stored.data.name:
        keep_own(workdir, config)  # or training images could be in the split
    check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
    networks = load_networks(config) if config.eval.perceptual else {}
    if stored.prior.kind is not None:
        return evaluate_prior(config, workdir, networks, evaluation_name(stored, config))
    trained = load(workdir, mesh=mesh, checkpoint=config.eval.checkpoint)
    model, variables = trained.model, trained.variables
    eval_step = make_eval_step(model, setup.image_loss, setup.lpips_params)
    _ = setup.model  # raises if the image size does not suit the model
    source = open_split(config.data, config.eval.split)
    quality = evaluate_split(eval_step, model, variables, source, mesh=mesh, config=config)
    metrics = {
        "step": int(trained.state.step),
        "protocol": source.description,
        "rate_protocol": "bits_per_pixel: the split as one file; bits_per_pixel_fixed: "
        f"fixed-length code, coefficients, if any, at {config.eval.coefficient_bits} bits",
        **quality,
        **true_rate(trained, stored, config, source, quality),
        **compute_network_metrics(networks, model, variables, source, mesh=mesh, config=config),
    }
    images = evenly_spaced_images(source)
    reconstruction = trained.reconstruct(images)
    if jax.process_index() == 0:
        name = evaluation_name(stored, config)
        path = workdir / f"evaluation{name}.json"
        figure = workdir / f"{config.eval.split}_reconstructions{name}.png"
        log.info("%s\n%s", config.eval.split, tables_of(metrics))
        write_json(path, metrics)
        log.info("written: %s", path)
        with optional_file(figure):
            title = quality_title(source, metrics)
            reconstruction_figure(images / 255, reconstruction, figure, title=title)
            log.info("written: %s", figure)
    return metrics


def true_rate(trained, stored, config, source, quality):
    """Returns the bits a pixel of the coded split, and `beside_files`; nothing without tables.

    Args:
      trained, stored, config: as in `token_codec`.
      source: the split.
      quality: of `evaluate_split`.
    """
    codec, batch_size = token_codec(trained, stored, config), config.eval.batch_size
    if codec is None:
        return {}
    size, pixels = codec.split_size(source, batch_size=batch_size)
    whole = 8 * size / pixels, quality["psnr_pooled"]
    return {"bits_per_pixel": whole[0], **beside_files(codec, source, whole, batch_size=batch_size)}


def token_codec(trained, stored, config):
    """Returns the `TokenCodec` of a run; fits and stores tables that it lacks. None without any.

    Args:
      trained: the `TrainedAutoencoder`.
      stored: the config of the run, whose training images the tables come from.
      config: the config of the evaluation.
    """
    step, data = int(trained.state.step), stored.data.copy_and_resolve_references()
    data.data_dir = config.data.data_dir
    variables, number = jax.device_get(trained.variables), config.eval.table_images
    tables = read_tables(trained.workdir, step)
    if tables is not None:
        return TokenCodec(trained.model, variables, tables)
    if number == 0:
        return None
    try:
        images = open_split(data, "train")
    except (DataUnavailable, ValueError) as error:
        log.warning("no bits_per_pixel: its tables need the training images: %s", error)
        return None
    size = config.eval.batch_size
    codec = fit_codec(trained.model, variables, images, images=number, batch_size=size)
    if jax.process_index() == 0:
        write_tables(trained.workdir, step, codec.tables)
    return codec


def beside_files(codec, source, whole, *, batch_size):
    """Returns the rate and quality of a run, and of JPEG and WebP files at the nearest rate.

    The files are one mosaic of the split's images, or of evenly spaced ones of a large split.

    Args:
      codec: the run's `TokenCodec`.
      source: the split.
      whole: bits a pixel and pooled PSNR of the whole split.
      batch_size: images coded at a time.

    Returns:
      A dict: `compared_images` -> their number, and for "run" and each format NAME
      `NAME_at_rate` -> [bits a pixel, PSNR of the pooled squared error in dB].
    """
    number = max(1, min(len(source), MOST_PIXELS // source[0][..., 0].size))
    images, run = evenly_spaced_images(source, number), whole
    if number < len(source) or codec.model.bottleneck.has_real_coefficients:
        size, pixels = codec.split_size(images, batch_size=batch_size)
        run = 8 * size / pixels, codec.psnr_pooled(images, batch_size=batch_size)
    found = {"run": run} | {name: nearest_rate(images, name, run[0]) for name in FORMATS}
    return {"compared_images": number} | {
        f"{name.lower()}_at_rate": list(point) for name, point in found.items()
    }


def tables_of(metrics):
    """Returns the metrics as text: a table, and one of the run and image files."""
    text = table({key: x for key, x in metrics.items() if not isinstance(x, list)})
    if "run_at_rate" not in metrics:
        return text
    rows = {
        name: "{:.3f} bits a pixel, {:.2f} dB".format(*metrics[f"{key}_at_rate"])
        for key, name in (("run", "this run"), *((name.lower(), name) for name in FORMATS))
    }
    return (
        f"{text}\nRate and pooled PSNR beside files, a mosaic of {metrics['compared_images']} "
        f"images\n{table(rows)}"
    )


def evaluation_name(stored, config):
    """Returns the suffix of the file names of an evaluation: how it differs from the default one.

    Args:
      stored: the config of the run.
      config: the config of the evaluation.
    """
    data, size = config.data.name, config.data.image_size
    parts = [config.eval.split] if config.eval.split != "test" else []
    if data != stored.data.name:
        folder = data.partition(":")[2] if data.startswith("folder:") else ""
        # Folders of the same name in different places are different data sets; a name of TFDS is
        # one set, with its configuration and version.
        name = re.sub(r"[^\w.-]+", "_", pathlib.Path(folder).name if folder else data)
        parts += (
            [name[:60], hashlib.sha256(os.fsencode(data)).hexdigest()[:8]] if folder else [name]
        )
    if size != stored.data.image_size:
        parts.append("x".join(map(str, dict.fromkeys(as_size(size)))) + "px")
    if config.eval.checkpoint != "newest":
        parts.append(config.eval.checkpoint)
    return "".join(f"-{part}" for part in parts)
