"""Vector quantisation: the code of one atom and coefficient 1, and residual stages of it."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Real

from laser_jax.checks import (
    check_at_least,
    check_code,
    check_floats,
    check_rows,
    check_scalars,
    check_signals,
    check_statistics,
)
from laser_jax.sparse.blocks import map_blocks, one_batch
from laser_jax.sparse.code import (
    SparseCode,
    count,
    decode,
    is_finite,
    scaled_errors,
    sum_by_atom,
)
from laser_jax.sparse.coder import coding_plans
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.loops import fori_loop
from laser_jax.sparse.nearest import nearest_atoms
from laser_jax.sparse.platforms import per_platform


class EmaStatistics(NamedTuple):
    """Decayed cluster sizes `(m,)` and sums `(m, d)` of the signals of each atom."""

    counts: Float[Array, " m"]
    sums: Float[Array, "m d"]


@entry(static=("block_size",), like="signals")
def nearest_atom(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    *,
    block_size: int | None = None,
) -> SparseCode:
    """Returns the nearest atom of each signal as a `SparseCode`, k = 1, coefficient 1.

    Ties go to the first atom. Exact up to the rounding of y - d_j, also far from the origin. A
    signal that is not finite gets coefficient NaN; an atom that is not finite is nearest to none.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      block_size: signals coded together; None chooses it by the number of atoms.

    Raises:
      ValueError: if widths differ.
    """
    signals, dictionary = check_signals(signals, dictionary)

    def search(dictionary, signals):
        n = math.prod(signals.shape[:-1])

        def search_by(plan):
            form, block_size = plan
            return map_blocks(nearest_atoms(dictionary, form, n), signals, block_size)

        return per_platform(search_by, *coding_plans(signals, dictionary, 1, math.inf, block_size))

    indices = one_batch(search, *lax.stop_gradient((dictionary, signals)))[..., None]
    return SparseCode(indices, jnp.where(is_finite(signals), 1, jnp.nan).astype(signals.dtype))


@entry(static=("stages",), like="signals")
def residual_nearest_atoms(
    signals: Float[Array, "*batch d"], dictionary: Float[Array, "m d"], *, stages: int
) -> SparseCode:
    """Codes each signal with one atom a stage, each nearest to the residual of the earlier stages.

    Stage s uses rows `[s m / k, (s + 1) m / k)` of the dictionary.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array, `m` divisible by `stages`.
      stages: k, at least 1.

    Returns:
      `SparseCode` of shape `(..., stages)`, coefficients 1.

    Raises:
      ValueError: if widths differ or `stages` does not divide m.

    References:
      Zeghidour et al., SoundStream, 2021, algorithm 1.
    """
    signals, dictionary = check_signals(signals, dictionary)
    check_stages(stages, dictionary.shape[0])
    codes, residual = [], signals
    for stage, codebook in enumerate(jnp.split(dictionary, stages)):
        code = nearest_atom(residual, codebook)
        residual = residual - decode(code, codebook)
        codes.append(code._replace(indices=code.indices + stage * codebook.shape[0]))
    return SparseCode(*(jnp.concatenate(x, axis=-1) for x in zip(*codes, strict=True)))


def check_stages(stages, num_atoms, limit="dictionary rows"):
    """Raises ValueError unless the atoms divide evenly among the stages."""
    if stages < 1 or num_atoms % stages:
        raise ValueError(f"stages must divide the {num_atoms} atoms ({limit}), got {stages}.")


def stage_targets(signals, dictionary, code):
    """Returns what each stage of a residual code had to approximate, `(..., k, d)`."""
    atoms = code.coefficients[..., None] * dictionary[code.indices]  # 0 for an unused stage
    return signals[..., None, :] - (jnp.cumsum(atoms, axis=-2) - atoms)


@entry(static=("num_atoms", "iterations"))
def kmeans_init(
    signals: Float[Array, "*batch d"], num_atoms: int, *, key: PRNGKeyArray, iterations: int = 10
) -> Float[Array, "m d"]:
    """Returns k-means centroids of the signals, seeded by k-means++.

    An empty cluster keeps its centroid. A signal that is not finite is ignored.

    Args:
      signals: `(..., d)` float array.
      num_atoms: m, at least 1.
      key: PRNG key of the seeding.
      iterations: Lloyd iterations after the seeding, at least 0.

    Returns:
      `(m, d)` float array.

    Raises:
      ValueError: if there is no signal or no atom.

    References:
      Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, 2007.
    """
    signals = check_rows(signals, num_atoms)
    check_at_least("iterations", iterations, 0)
    first_key, key = jax.random.split(key)
    finite = is_finite(signals)[:, 0]
    signals = jnp.where(finite[:, None], signals, 0)
    scale = power_scales(signals.ravel())[0]  # squares stay in range
    signals /= scale
    nth = jax.random.randint(first_key, (), 0, jnp.maximum(jnp.sum(finite), 1))
    first = signals[jnp.argmax(jnp.cumsum(finite) > nth)]
    atoms = jnp.zeros((num_atoms, signals.shape[-1]), signals.dtype).at[0].set(first)
    # Where all are atoms already, any of them: a logarithm of 0 would allow the left-out ones.
    least = jnp.finfo(signals.dtype).tiny

    def seed(i, state):
        atoms, squared = state
        squared = jnp.minimum(squared, jnp.sum((signals - atoms[i - 1][None, :]) ** 2, -1))
        weights = jnp.where(finite, jnp.maximum(squared, least), 0)
        pick = jax.random.categorical(jax.random.fold_in(key, i), jnp.log(weights))
        return atoms.at[i].set(signals[pick]), squared

    squared = jnp.full(signals.shape[0], jnp.inf, signals.dtype)
    atoms, _ = fori_loop(1, num_atoms, seed, (atoms, squared))

    def refine(_, atoms):
        code = nearest_atom(signals, atoms)
        code = code._replace(coefficients=jnp.where(finite[:, None], code.coefficients, 0))
        # Moves, not means: rounding is then that of the spread, not of the distance to 0.
        counts, moves = cluster_sums(signals - decode(code, atoms), code, num_atoms)
        return atoms + moves / jnp.maximum(counts, 1)[:, None]

    return scale * fori_loop(0, iterations, refine, atoms)


def stage_kmeans(signals, num_atoms, *, stages, key, iterations=10):
    """Returns the codebooks of all stages, each `kmeans_init` of the residuals of the earlier ones.

    Args:
      signals: `(n, d)` float array.
      num_atoms: m, of all stages together; a multiple of `stages`.
      stages: k, at least 1.
      key, iterations: as for `kmeans_init`.

    Returns:
      `(m, d)` float array, stage after stage.

    Raises:
      ValueError: if there is no signal, or `stages` does not divide m.
    """
    check_stages(stages, num_atoms, "num_atoms")
    codebooks = []
    for stage in range(stages):
        stage_key = jax.random.fold_in(key, stage)
        atoms = kmeans_init(signals, num_atoms // stages, key=stage_key, iterations=iterations)
        signals = signals - decode(nearest_atom(signals, atoms), atoms)
        codebooks.append(atoms)
    return jnp.concatenate(codebooks)


def cluster_sums(signals, code, num_atoms):
    """Returns the number `(m,)` and the sum `(m, d)` of the signals of each atom.

    A signal that is not finite, or has coefficient 0, is ignored.
    """
    flat, indices = signals.reshape(-1, signals.shape[-1]), code.indices.ravel()
    finite = is_finite(code.coefficients).ravel() & is_finite(flat)[:, 0]
    used = finite & (code.coefficients.ravel() != 0)
    rows = jnp.where(used[:, None], flat, 0)
    return count(indices, num_atoms, where=used), sum_by_atom(indices, rows, num_atoms)


@entry(like=("statistics", None))
def ema_update(
    statistics: EmaStatistics,
    signals: Float[Array, "*batch d"],
    code: SparseCode,
    *,
    decay: Real[ArrayLike, ""],
) -> tuple[EmaStatistics, Float[Array, "m d"]]:
    """Moves each atom to the decayed mean of the signals that chose it.

    statistics = decay x statistics + (1 - decay) x (counts and sums of these signals): a mean
    over batches, where those of `online_update` and `ksvd_update` are sums. A signal that is
    not finite is ignored.

    Args:
      statistics: `EmaStatistics` so far.
      signals: `(..., d)` float array.
      code: `SparseCode` of the signals with k = 1.
      decay: share of the past kept, in [0, 1).

    Returns:
      `(statistics, dictionary)`.

    Raises:
      ValueError: if the shapes do not match.

    References:
      van den Oord et al., Neural discrete representation learning, 2017, appendix A.1.
    """
    (signals,) = check_floats(signals=signals)
    if signals.ndim == 0:
        raise ValueError("signals must have shape (..., d), got ().")
    code = check_code(code, signals)
    if code.indices.shape[-1] != 1:
        raise ValueError(f"a code of one atom a signal has width 1, got {code.indices.shape[-1]}.")
    m = max(1, math.prod(jnp.shape(statistics.counts)))
    check_statistics(statistics, (m,), (m, signals.shape[-1]))
    check_scalars(decay=decay)
    decay = jnp.asarray(decay, signals.dtype)
    counts, sums = cluster_sums(signals, code, m)
    counts = decay * statistics.counts + (1 - decay) * counts
    sums = decay * statistics.sums + (1 - decay) * sums
    # Laplace smoothing, so that an atom losing its signals does not divide by zero.
    total, epsilon = jnp.sum(jnp.where(jnp.isfinite(counts), counts, 0)), 1e-5
    smoothed = (counts + epsilon) * total / (total + m * epsilon)
    return EmaStatistics(counts, sums), sums / jnp.maximum(smoothed, epsilon)[:, None]


@jax.jit
def replace_codes(signals, dictionary, code, dead, *, key):
    """Replaces dead codebook entries by signals drawn in proportion to their squared error.

    A signal that is not finite is ignored; without any, the entries stay.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals with k = 1.
      dead: `(m,)` bool.
      key: PRNG key.

    Returns:
      `(m, d)` float array.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    m, d = dictionary.shape
    squared = scaled_errors(signals, dictionary, code).ravel()
    finite = (is_finite(signals) & is_finite(code.coefficients)).ravel()
    # Adding Gumbel noise to log weights and taking the largest draws without replacement.
    weights = jnp.where(finite, jnp.maximum(squared, jnp.finfo(squared.dtype).tiny), 0)
    keys = jnp.log(weights) + jax.random.gumbel(key, squared.shape, squared.dtype)
    _, picks = lax.top_k(keys, min(m, squared.size))
    candidates = jnp.minimum(picks.size, jnp.sum(finite))
    picks = picks[(jnp.cumsum(dead) - 1) % jnp.maximum(candidates, 1)]
    replaced = dead & (candidates > 0)
    return jnp.where(replaced[:, None], signals.reshape(-1, d)[picks], dictionary)
