"""Dictionaries: unit norm, coherence, initial atoms and the replacement of unused ones."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Real

from laser_jax.checks import (
    check_at_least,
    check_code,
    check_dictionary,
    check_floating,
    check_rows,
    check_scalars,
    check_signals,
    check_weights,
)
from laser_jax.sparse.blocks import map_blocks
from laser_jax.sparse.code import SparseCode, is_finite, scaled_errors, usage
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul, safe_norms, scaled
from laser_jax.sparse.loops import while_loop
from laser_jax.sparse.platforms import default_block_size


@entry(like="vectors")
def unit_norm(vectors: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
    """Returns `(..., d)` vectors scaled to norm 1; zero vectors stay zero."""
    check_floating(vectors=vectors)
    if jnp.ndim(vectors) == 0:
        raise ValueError("vectors must have shape (..., d), got ().")
    vectors = jnp.asarray(vectors)
    wide = scaled(vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32)))
    return (wide / safe_norms(wide)).astype(vectors.dtype)


@entry()
def coherence(dictionary: Float[Array, "m d"]) -> Float[Array, " m"]:
    """Returns each atom's largest |cosine| with another atom, `(m,)`; memory stays of size m.

    NaN for an atom that is not finite, which no other one is compared with. The maximum is the
    dictionary's mutual coherence (Donoho and Elad 2003).
    """
    dictionary = check_dictionary(dictionary)
    own = jnp.arange(dictionary.shape[0])

    def largest(cosines, place):
        return jnp.max(jnp.where(place == own[None, :], 0, cosines), axis=-1)

    finite = is_finite(dictionary)
    found = _reduce_cosines(largest, jnp.where(finite, dictionary, 0), own)
    return jnp.where(finite[:, 0], found, jnp.nan)


def _reduce_cosines(function, dictionary, numbers):
    """Returns a value `(m,)` of each atom's |cosines| with all, some atoms at a time.

    Args:
      function: of `(b, m)` cosines and the `(b, 1)` numbers of their atoms, to `(b,)`.
      dictionary: `(m, d)`.
      numbers: `(m,)`, one an atom.
    """
    atoms = unit_norm(dictionary)

    def reduce(block):
        return function(jnp.abs(matmul(block[0], atoms.T)), block[1])

    return map_blocks(reduce, (atoms, numbers[:, None]), default_block_size(len(atoms)))


@entry(static=("patch_size", "num_frequencies"))
def dct_dictionary(patch_size: int, num_frequencies: int) -> Float[Array, "q*q p*p"]:
    """Returns the overcomplete separable DCT of gray patches, a common initial dictionary.

    Args:
      patch_size: p, side of a patch; signals have width p^2.
      num_frequencies: q >= p cosines in each direction.

    Returns:
      `(q^2, p^2)` atoms of unit norm, the first one constant, all others of mean 0.

    Raises:
      ValueError: if there are fewer cosines than pixels, or more for a patch of one pixel, which
        has no atom of mean 0.

    References:
      Elad and Aharon, Image denoising via sparse and redundant representations over learned
      dictionaries, 2006.
    """
    check_at_least("patch_size", patch_size, 1)
    check_at_least("num_frequencies", num_frequencies, patch_size)
    if patch_size == 1 < num_frequencies:
        raise ValueError(f"num_frequencies of a patch of 1 pixel must be 1, got {num_frequencies}.")
    frequencies, places = jnp.arange(num_frequencies), jnp.arange(patch_size)
    waves = jnp.cos(jnp.pi / num_frequencies * frequencies[:, None] * places[None, :])
    means = jnp.where(frequencies == 0, 0, jnp.mean(waves, -1))
    return jnp.kron(*2 * [unit_norm(waves - means[:, None])])


@entry(static=("num_atoms",))
def init_from_signals(
    signals: Float[Array, "*batch d"],
    num_atoms: int,
    *,
    max_coherence: Real[ArrayLike, ""] = 0.95,
    key: PRNGKeyArray,
) -> Float[Array, "m d"]:
    """Returns a dictionary of signals, unit norm, no two more coherent than `max_coherence`.

    An untrained encoder's latents are nearly parallel: a random choice would give hundreds of
    copies of one atom. Where the signals run out, atoms are random directions; only where no room
    is left (m large for d) are those more coherent than the bound. A signal that is not finite is
    ignored.

    Args:
      signals: `(..., d)` float array.
      num_atoms: m, at least 1.
      max_coherence: bound on |cosine| between two atoms, in (0, 1].
      key: PRNG key; orders the signals.

    Returns:
      `(m, d)` float array of unit-norm atoms.

    Raises:
      ValueError: if there is no signal or no atom, or `max_coherence` is out of range.
    """
    signals = check_rows(signals, num_atoms)
    check_scalars(max_coherence=max_coherence)
    order_key, random_key = jax.random.split(key)
    order = jax.random.permutation(order_key, signals.shape[0])
    # Those that are not finite come last and are never taken.
    order = order[jnp.argsort(~is_finite(signals)[order, 0], stable=True)]
    picks = order[: _TRIES * num_atoms]
    atoms = jnp.zeros((num_atoms, signals.shape[-1]), signals.dtype)
    vacant = jnp.ones(num_atoms, bool)
    return _fill(atoms, vacant, signals[picks], max_coherence, random_key)


@entry(like="dictionary")
def replace_atoms(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    max_coherence: Real[ArrayLike, ""],
    key: PRNGKeyArray,
    counts: Real[Array, " m"] | None = None,
    min_count: Real[ArrayLike, ""] = 0,
) -> Float[Array, "m d"]:
    """Replaces unused and near-duplicate atoms by the worst-approximated signals.

    Of two atoms more coherent than `max_coherence` the less used one is replaced. The new
    ones are in turn at most that coherent with every other atom; where the signals
    with any error run out, they are random directions. A signal that is not finite takes no
    part; an atom that is not finite is replaced.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      max_coherence: |cosine| above which two atoms are duplicates, in (0, 1].
      key: PRNG key, for the random directions.
      counts: `(m,)` uses of each atom, if known over more than these signals.
      min_count: an atom used at most this often counts as unused, at least 0.

    Returns:
      `(m, d)`; the new atoms have unit norm, the others are untouched.

    Raises:
      ValueError: if the shapes do not match or a number is out of range.

    References:
      Aharon, Elad and Bruckstein, K-SVD, 2006, section IV.D.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    check_scalars(max_coherence=max_coherence, min_count=min_count)
    m, d = dictionary.shape
    counts = usage(code, m) if counts is None else check_weights("counts", counts, m)
    vacant = vacant_atoms(dictionary, counts, min_count, max_coherence)
    squared = scaled_errors(signals, dictionary, code).ravel()
    worst, picks = lax.top_k(squared, min(_TRIES * m, squared.size))
    candidates = jnp.where(worst[:, None] > 0, signals.reshape(-1, d)[picks], 0)
    return _fill(dictionary, vacant, candidates, max_coherence, key)


def vacant_atoms(dictionary, counts, min_count, max_coherence):
    """Returns which atoms are unused or less-used duplicates, `(m,)` bool."""
    # Atoms are ordered by use, ties by place, so that exactly one of two equal atoms is replaced.
    rank = jnp.argsort(jnp.argsort(-counts, stable=True), stable=True)

    def has_better_twin(cosines, own):
        return jnp.any((cosines > max_coherence) & (own > rank[None, :]), axis=-1)

    worse_twin = _reduce_cosines(has_better_twin, dictionary, rank)
    usable = jnp.any(dictionary != 0, -1) & is_finite(dictionary)[:, 0]
    return (counts <= min_count) | worse_twin | ~usable


# A rejected candidate costs a product with all atoms: so many a place bound the time.
_TRIES = 8


def _fill(atoms, vacant, candidates, max_coherence, key):
    """Puts the first candidates, then random directions, incoherent with all atoms held
    into the vacant places."""
    (m, d), given = atoms.shape, candidates.shape[0]
    tries = given + _TRIES * m
    candidates = candidates if given else jnp.zeros((1, d), atoms.dtype)
    places = jnp.argsort(~vacant, stable=True)
    # Whatever finds no room among incoherent atoms stays a random direction.
    held = jnp.where(vacant[:, None], 0, unit_norm(atoms))

    def more(state):
        i, filled, _ = state
        return (i < tries) & (filled < jnp.sum(vacant))

    def place(state):
        i, filled, held = state
        # Drawn one at a time: all of them would take several times the memory of the atoms.
        random = jax.random.normal(jax.random.fold_in(key, i), (d,), atoms.dtype)
        candidate = unit_norm(jnp.where(i < given, candidates[i], random))
        fresh = jnp.max(jnp.abs(matmul(held, candidate))) <= max_coherence
        fresh &= jnp.any(candidate != 0) & jnp.all(jnp.isfinite(candidate))
        slot = jnp.where(fresh, places[jnp.minimum(filled, m - 1)], m)
        return i + 1, filled + fresh, held.at[slot].set(candidate, mode="drop")

    _, _, held = while_loop(more, place, (0, 0, held))
    found = jnp.any(held != 0, axis=-1, keepdims=True)
    random = jax.random.normal(jax.random.fold_in(key, tries), (m, d), atoms.dtype)
    new = jnp.where(found, held, unit_norm(random))
    return jnp.where(vacant[:, None], new, atoms)
