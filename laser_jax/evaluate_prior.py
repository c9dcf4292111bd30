"""Evaluates a prior: held-out bits, and samples beside the training pictures nearest to them."""

import functools
import logging
import time

import jax
import numpy as np
from PIL import Image

from laser_jax import compiler
from laser_jax.data import DataUnavailable, open_split
from laser_jax.evaluation.network_metrics import FEATURES_OF
from laser_jax.evaluation.split import evenly_spaced
from laser_jax.figures import atom_sheet
from laser_jax.files import optional_file, write_json
from laser_jax.images import to_network
from laser_jax.metrics import GaussianStatistics, frechet_distance
from laser_jax.ranges import as_size
from laser_jax.trained import load
from laser_jax.training.prior_reporter import order_0_tables
from laser_jax.training.progress import table
from laser_jax.training.token_set import read_about, read_tokens
from laser_jax.training.workdir import read_config

log = logging.getLogger("laser_jax")

MOST_PICTURES = 2048  # samples for the Fréchet distance, and training pictures whose bits count
SHOWN = 12  # samples in the figure


def evaluate_prior(config, workdir, networks, name):
    """Evaluates the prior of a workdir on a split; see `laser_jax.evaluate.evaluate`.

    Writes `evaluationNAME.json`, and `samples_nearestNAME.png`: samples, and beside them the
    training pictures nearest to each, to detect copies.

    Args:
      config: the config of the evaluation.
      workdir: directory of the run.
      networks: of `load_networks`; without VGG16 and Inception there are no Fréchet distances.
      name: suffix of the files.

    Returns:
      The metrics, a dict.
    """
    source = open_split(config.data, config.eval.split)
    check_pictures(source, read_config(workdir), (read_about(workdir) or {}).get("num_classes"))
    prior = load(workdir, checkpoint=config.eval.checkpoint, autoencoder=config.autoencoder)
    metrics = {
        "step": int(prior.state.step),
        "protocol": source.description,
    }
    if prior.config.prior.kind == "autoregressive":  # the bits of others are not exact
        metrics |= held_out_bits(prior, source, workdir, config)
    number = min(len(source), MOST_PICTURES)
    start = time.perf_counter()
    labels = labels_of(prior, source, evenly_spaced(source, number))
    samples = prior.sample(jax.random.key(config.seed), number, labels=labels)
    metrics["samples_per_second"] = number / (time.perf_counter() - start)
    if number > 1:
        metrics |= distances(prior, source, samples, networks)
    if jax.process_index() == 0:
        log.info("%s\n%s", config.eval.split, table(metrics))
        write_json(workdir / f"evaluation{name}.json", metrics)
        figure = workdir / f"samples_nearest{name}.png"
        try:
            pictures = training_pictures(prior, config)
        except (DataUnavailable, ValueError) as error:
            log.warning("no %s: it needs the training images: %s", figure.name, error)
            return metrics
        with optional_file(figure):
            draw_nearest(samples[:SHOWN], *pictures, figure)
            log.info("written: %s", figure)
    return metrics


def check_pictures(source, stored, classes):
    """Raises ValueError unless a prior with the stored config can be evaluated on a source.

    Args:
      source: the pictures.
      stored: the prior's config.
      classes: how many its tokens have; None if that is not known.
    """
    size = as_size(stored.data.image_size)
    if source[0].shape[:2] != size:
        raise ValueError(
            f"the prior has pictures of {size[0]}x{size[1]}, and data.image_size gives "
            f"{source[0].shape[0]}x{source[0].shape[1]}; leave it as it was in training."
        )
    classes = source.num_classes if classes is None else classes
    if stored.prior.use_labels and (not source.num_classes or source.num_classes != classes):
        what = f"{classes} classes" if classes else "classes"
        raise ValueError(
            f"the prior has {what}, but {source.description} has {source.num_classes or 'none'}."
        )


def training_pictures(prior, config):
    """Returns the pictures that the prior was trained on, and whether mirrored ones are, too."""
    data = prior.config.data.copy_and_resolve_references()
    data.data_dir = config.data.data_dir
    return open_split(data, "train"), data.flip


def labels_of(prior, source, rows):
    """Returns the classes of some pictures; None for a prior without any."""
    if not prior.tokens.model.num_classes:
        return None
    return np.array([source.label(int(i)) for i in rows])


def held_out_bits(prior, source, workdir, config):
    """Returns the bits of a split under the prior and tables without it, and of training tokens."""
    model, codec = prior.tokens.model, prior.codec
    train = read_tokens(workdir, "train", model.vocabulary, "")
    order_0 = order_0_tables(model, train)
    total = dict.fromkeys(("prior", "context_model", "order_0"), 0.0)
    for rows, images in batches(source, range(len(source)), config.eval.batch_size):
        tokens, labels = prior.encode_to_tokens(images), labels_of(prior, source, rows)
        total["prior"] += float(np.sum(prior.tokens.bits(tokens, labels=labels)))
        total["context_model"] += float(np.sum(codec.tables.bits(tokens)))
        total["order_0"] += float(np.sum(order_0.bits(tokens)))
    positions = len(source) * model.num_positions
    rows = evenly_spaced(train, MOST_PICTURES)
    labels = train.labels[rows] if model.num_classes else None
    trained = float(np.mean(prior.tokens.symbol_bits(train.symbols[rows].astype(np.int32), labels)))
    trained /= model.num_positions
    per_token = total["prior"] / positions
    per_pixel = {name: x / positions / codec.model.signal_pixels for name, x in total.items()}
    return {
        "bits_per_token": per_token,
        "bits_per_pixel": per_pixel.pop("prior"),
        **{f"bits_per_pixel_{name}": x for name, x in per_pixel.items()},
        "train_bits_per_token": trained,
        "gap_bits_per_token": per_token - trained,
    }


def distances(prior, source, samples, networks):
    """Returns Fréchet distances to the split: of samples and of reconstructions.

    The second, of as many pictures at even distances, is the lower limit that the autoencoder sets.

    Args:
      prior: the `TrainedPrior`.
      source: pictures of the split.
      samples: `(num, H, W, C)` in [0, 1].
      networks: of `load_networks`; each with features for such a distance gives two numbers.
    """
    kinds = {net: kind for net, kind in FEATURES_OF.items() if net in networks}
    if not kinds:
        return {}
    size = prior.tokens.batch_size
    parts = [
        to_uint8(prior.codec.to_images(prior.encode_to_tokens(images)))
        for _, images in batches(source, evenly_spaced(source, len(samples)), size)
    ]
    pictures = {"samples": to_uint8(samples), "reconstructions": np.concatenate(parts)}
    found = {}
    for net, kind in kinds.items():
        features = compiler.jit(functools.partial(_features_of, kind.compute))
        original = _moments(features, networks[net], source, size)
        for name, images in pictures.items():
            moments = _moments(features, networks[net], images, size)
            found[f"{kind.name}_{name}"] = frechet_distance(*moments, *original)
        found[f"{kind.name}_protocol"] = (
            f"{len(samples)} samples, or reconstructions, rounded to uint8, "
            f"against {len(source)} pictures; {kind.protocol}"
        )
    return found


def _features_of(compute, params, images):
    return compute(params, to_network(images))


def _moments(features, params, images, size):
    """Returns the moments of the features of images, `size` at a time."""
    statistics = None
    for start in range(0, len(images), size):
        part = np.stack([images[i] for i in range(start, min(start + size, len(images)))])
        filled = np.pad(part, ((0, size - len(part)), *3 * [(0, 0)]), mode="edge")
        rows = np.asarray(features(params, filled))[: len(part)]
        statistics = statistics or GaussianStatistics(rows.shape[-1])
        statistics.add(rows)
    return statistics.moments()


def to_uint8(images):
    """Returns images in [0, 1] as in an image file."""
    return np.round(255 * images).astype(np.uint8)


def batches(source, rows, size):
    """Yields the rows of each batch, and its images."""
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield part, np.stack([source[int(i)] for i in part])


def draw_nearest(samples, source, flip, path):
    """Writes samples, and beside them the pictures with the smallest squared error to each."""
    pairs = samples, nearest(samples, source, flip=flip)
    sheet = np.concatenate([atom_sheet(images) for images in pairs], 1)
    Image.fromarray(to_uint8(sheet)).save(path)


def nearest(samples, source, *, flip):
    """Returns the pictures of a source, in [0, 1], with the smallest squared error to samples.

    With `flip` mirrored pictures are searched, too.
    """
    least, found = np.full(len(samples), np.inf), np.zeros_like(samples)
    wanted = samples.reshape(len(samples), -1)
    for _, images in batches(source, range(len(source)), 256):
        plain = images.astype(np.float32) / 255
        for pictures in (plain, plain[:, :, ::-1]) if flip else (plain,):
            flat = pictures.reshape(len(pictures), -1)
            errors = np.sum(flat**2, 1)[None] - 2 * wanted @ flat.T
            lower = errors.min(1) < least
            found[lower] = pictures[errors.argmin(1)[lower]]
            least = np.minimum(least, errors.min(1))
    return found
