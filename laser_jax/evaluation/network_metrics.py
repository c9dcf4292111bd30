"""Metrics of a split by pretrained networks: LPIPS and Fréchet distances."""

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax import compiler
from laser_jax.data import eval_batches
from laser_jax.images import to_bytes, to_network
from laser_jax.metrics import GaussianStatistics, frechet_distance
from laser_jax.paths import cache_directory
from laser_jax.pretrained import (
    WeightsUnavailable,
    inception_features,
    load_inception,
    load_lpips,
    lpips_distance,
    vgg16_features,
)
from laser_jax.pretrained.inception import FEATURES, INPUT_SIZE
from laser_jax.pretrained.lpips import SMALLEST_SIDE
from laser_jax.pretrained.weights import file_digest, inception_path
from laser_jax.ranges import as_size
from laser_jax.sharding import put_batch, replicated

log = logging.getLogger("laser_jax")

_LPIPS_NAMES = {"alex": "lpips", "vgg": "lpips_vgg"}


class Features(NamedTuple):
    """Features of images for a Fréchet distance.

    Attributes:
      name: of the distance.
      compute: `(parameters, images in [-1, 1])` -> `(b, d)`.
      protocol: what they are.
    """

    name: str
    compute: Callable
    protocol: str


FEATURES_OF = {
    "vgg": Features("fd_vgg16", vgg16_features, "VGG16 relu5_3, mean over positions"),
    "inception": Features(
        "fid",
        inception_features,
        f"FID's InceptionV3, {FEATURES} pooled features, "
        f"resized to {INPUT_SIZE}x{INPUT_SIZE}, bilinear",
    ),
}


def load_networks(config):
    """Returns the parameters of every network that supports the image size and has weights.

    The log names networks without weights, and how to get them.

    Raises:
      WeightsUnavailable: if weights that the config names are missing.
    """
    directory, path = config.weights.lpips, config.weights.inception
    loaders = {
        net: (functools.partial(load_lpips, net, directory), directory)
        for net in _LPIPS_NAMES
        if min(as_size(config.data.image_size)) >= SMALLEST_SIDE[net]
    }
    loaders["inception"] = functools.partial(load_inception, path), path
    networks = {}
    for name, (load, named) in loaders.items():
        try:
            networks[name] = load()
        except WeightsUnavailable as error:
            if named is not None:
                raise
            what = {"alex": "lpips", "vgg": "lpips_vgg and fd_vgg16", "inception": "fid"}[name]
            log.info("%s not computed: %s", what, error)
    return networks


def compute_network_metrics(networks, model, variables, source, *, mesh, config):
    """Returns the metrics of a split that need pretrained networks, as a dict.

    `lpips` (AlexNet) and `lpips_vgg` are means over images. `fd_vgg16` (on pooled VGG16 features)
    and `fid` (on features of FID's Inception) are Fréchet distances between all reconstructions
    and all originals. Each has its protocol beside it. Reconstructions are rounded to uint8, as in
    published results, which are computed from image files.

    Args:
      networks: from `load_networks`; metrics of missing networks are not computed.
      model: the `Autoencoder`.
      variables: its variables.
      source: the images of the split.
      mesh: the devices.
      config: the whole config.
    """
    if not networks:
        return {}
    measure = compiler.jit(functools.partial(_measure_batch, model, mesh))
    totals, statistics, digest = {}, {}, hashlib.sha256()
    networks = jax.jit(lambda x: x, out_shardings=replicated(mesh))(networks)
    for images, mask in _batches(source, config):
        digest.update(images[mask].tobytes())
        batch = put_batch((images, mask), mesh)
        sums, features, kept = jax.device_get(measure(variables, networks, *batch))
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
        for name, rows in features.items():
            if name not in statistics:
                statistics[name] = GaussianStatistics(rows.shape[-1])
            statistics[name].add(rows[kept])

    result = {name: total / len(source) for name, total in totals.items()}
    protocol = (
        f"{len(source)} reconstructions, rounded to uint8, against their originals, "
        f"{source.description}"
    )
    if totals:
        result["lpips_protocol"] = f"LPIPS 0.1, mean over images; {protocol}"
    if len(source) < 2:
        return result  # one image has no covariance
    moments = {name: sums.moments() for name, sums in statistics.items()}
    if "inception" in networks:
        moments["inception", "original"] = _inception_moments(
            networks["inception"], source, digest, mesh, config
        )
    return result | _frechet_distances(moments, protocol)


def _measure_batch(model, mesh, variables, networks, images, mask):
    """Returns the sums of LPIPS over the images of the mask, features, and the mask."""
    original = to_network(images)
    reconstruction = to_network(to_bytes(model.apply(variables, original).reconstruction))
    sums, features = {}, {}
    for net, name in _LPIPS_NAMES.items():
        if net in networks:
            distance = lpips_distance(networks[net], original, reconstruction, net=net)
            sums[name] = jnp.sum(jnp.where(mask, distance, 0))
    if "vgg" in networks:
        features["vgg", "original"] = vgg16_features(networks["vgg"], original)
        features["vgg", "reconstruction"] = vgg16_features(networks["vgg"], reconstruction)
    if "inception" in networks:
        rows = inception_features(networks["inception"], reconstruction)
        features["inception", "reconstruction"] = rows
    return jax.lax.with_sharding_constraint((sums, features, mask), replicated(mesh))


def _frechet_distances(moments, protocol):
    result = {}
    for net, features in FEATURES_OF.items():
        if (net, "reconstruction") in moments:
            pair = moments[net, "original"], moments[net, "reconstruction"]
            result[features.name] = frechet_distance(*pair[0], *pair[1])
            result[f"{features.name}_protocol"] = f"{features.protocol}; {protocol}"
    return result


def _inception_moments(params, source, digest, mesh, config):
    """Returns the moments of the originals, cached for later evaluations on the same images."""
    weights = file_digest(inception_path(config.weights.inception))
    key = hashlib.sha256(digest.digest() + weights.encode()).hexdigest()
    path = _moments_file(key)
    if path is not None and path.exists():
        with np.load(path) as file:
            return file["mean"], file["covariance"]

    @compiler.jit
    def features_of(params, images, mask):
        rows = inception_features(params, to_network(images))
        return jax.lax.with_sharding_constraint((rows, mask), replicated(mesh))

    statistics = GaussianStatistics(FEATURES)
    for batch in _batches(source, config):
        rows, kept = jax.device_get(features_of(params, *put_batch(batch, mesh)))
        statistics.add(rows[kept])
    mean, covariance = statistics.moments()
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.npz")
            np.savez(partial, mean=mean, covariance=covariance)
            partial.replace(path)  # atomically
        except OSError as error:
            log.warning("FID statistics of the originals are not cached: %s", error)
    return mean, covariance


def _moments_file(key):
    """Returns the file of cached moments; None with several processes or without a home."""
    if jax.process_count() > 1:  # each has its own images, and perhaps its own cache
        return None
    try:
        return cache_directory() / "statistics" / f"{key}.npz"
    except ValueError as error:
        log.warning("FID statistics of the originals are not cached: %s", error)
        return None


def _batches(source, config):
    return eval_batches(
        source,
        batch_size=config.eval.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
