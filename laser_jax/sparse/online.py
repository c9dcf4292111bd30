"""Online dictionary updates: cheap enough for every batch, no SVD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import (
    check_code,
    check_dictionary,
    check_mask,
    check_scalars,
    check_signals,
    check_statistics,
)
from laser_jax.sparse.atoms import num_shards
from laser_jax.sparse.code import (
    SparseCode,
    decode,
    drop_nonfinite,
    is_finite,
    own_part,
    sum_over_signals,
    usage,
)
from laser_jax.sparse.dictionary import unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul
from laser_jax.sparse.loops import fori_loop
from laser_jax.sparse.masked import hide, impute


class OnlineStatistics(NamedTuple):
    """Decayed moments of the codes, X^T X `(m, m)`, and of codes with signals, X^T Y `(m, d)`."""

    code_moment: Float[Array, "m m"]
    cross_moment: Float[Array, "m d"]


def online_statistics(dictionary: Float[Array, "m d"]) -> OnlineStatistics:
    """Returns the empty `OnlineStatistics` of a `(m, d)` dictionary."""
    dictionary = check_dictionary(dictionary)
    m = dictionary.shape[0]
    return _empty(m, m, dictionary)


def _empty(rows, columns, dictionary):
    shapes = (rows, columns), dictionary.shape
    return OnlineStatistics(*(jnp.zeros(shape, dictionary.dtype) for shape in shapes))


# Atoms whose steps take one product: as fast as larger blocks, and little of it is to be corrected.
_BLOCK = 64


@entry(static=("nonnegative", "atoms_axis"), like=("statistics", "dictionary"))
def online_update(
    statistics: OnlineStatistics | None,
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    decay: Real[ArrayLike, ""],
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    nonnegative: bool = False,
    atoms_axis: str | None = None,
) -> tuple[OnlineStatistics, Float[Array, "m d"]]:
    """Moves each atom to its best place given all codes so far, the old ones decayed.

    One pass of block coordinate descent over ||Y - X D||^2; atoms that were used are
    then scaled to norm 1, the others are untouched. A signal or atom that is not finite
    is ignored.

    statistics = decay x statistics + (moments of these signals): a sum over batches, as in
    `ksvd_update`; in `ema_update` it is a mean, of which the new part is (1 - decay).

    Args:
      statistics: `OnlineStatistics` from `online_statistics` or the last update; None for an
        empty one.
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      decay: share of the past kept, in [0, 1).
      mask: weights of the signals' entries as for `omp`. The signals are then those of `impute`:
        hidden entries are taken from the approximation, so a step of the pass is shorter.
      nonnegative: whether atoms stay >= 0. Static.
      atoms_axis: as for `omp`: the mesh axis over which the dictionary is sharded, and both moments
        by their rows. The code is that of all atoms. 64 atoms a step exchange a product.

    Returns:
      `(statistics, dictionary)`.

    Raises:
      ValueError: if the shapes do not match.

    References:
      Mairal, Bach, Ponce and Sapiro, Online dictionary learning for sparse coding,
      2009, algorithm 2.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    (m, d), shards = dictionary.shape, num_shards(atoms_axis)
    if statistics is None:
        statistics = _empty(m, shards * m, dictionary)
    check_statistics(statistics, (m, shards * m), (m, d))
    check_scalars(decay=decay)
    decay = jnp.asarray(decay, dictionary.dtype)
    old, finite = dictionary, is_finite(dictionary)
    mask = check_mask(mask, signals)
    dictionary, moments = _moments(signals, dictionary, code, mask, atoms_axis)
    statistics = jax.tree.map(lambda old, new: decay * old + new, statistics, moments)
    new = _descend(statistics, dictionary, nonnegative, atoms_axis)
    return statistics, jnp.where(finite, new, old)


def _moments(signals, dictionary, code, mask, atoms_axis):
    """Returns the dictionary without what is not finite, and the moments of the signals."""
    if mask is not None:
        signals, weights = hide(signals, mask)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code, atoms_axis)
    if mask is not None:
        approximation = decode(code, dictionary, atoms_axis=atoms_axis)
        signals, weight = impute(signals, weights, approximation)
        signals = jnp.sqrt(weight) * signals
        code = code._replace(coefficients=jnp.sqrt(weight) * code.coefficients)

    m = dictionary.shape[0]

    def moments(x, y):
        own = x
        if atoms_axis is not None:
            own = lax.dynamic_slice_in_dim(x, lax.axis_index(atoms_axis) * m, m, axis=1)
        return OnlineStatistics(matmul(own.T, x), matmul(own.T, y))

    return dictionary, sum_over_signals(moments, code, (signals,), m * num_shards(atoms_axis))


def _descend(statistics, dictionary, nonnegative, atoms_axis):
    """One pass of block coordinate descent; every atom used gets norm 1.

    A product gives the steps of a block of atoms from the dictionary before it. Within the block
    the change of each atom corrects the steps of the later ones.
    """
    m, size = dictionary.shape[0], min(_BLOCK, dictionary.shape[0])
    blocks = -(-m // size)
    place = jnp.arange(size)

    def update_block(i, dictionary):
        owner, start = i // blocks, i % blocks * size
        first = jnp.minimum(start, m - size)  # the last block may hold atoms of the one before
        own = place >= start - first
        # The moment is symmetric: these are the block's rows, as far as they are of atoms here.
        moment = lax.dynamic_slice(statistics.code_moment, (0, owner * m + first), (m, size))
        moved = matmul(moment.T, dictionary)
        if atoms_axis is not None:
            moved = lax.psum(moved, atoms_axis)
            own = own & (lax.axis_index(atoms_axis) == owner)
        cross, atoms, moment = (
            lax.dynamic_slice_in_dim(x, first, size)
            for x in (statistics.cross_moment, dictionary, moment)
        )

        def update_atom(j, state):
            atoms, steps = state
            square = moment[j, j]
            new = atoms[j] + steps[j] / jnp.where(square > 0, square, 1)
            new = unit_norm(jnp.maximum(new, 0) if nonnegative else new)
            usable = own[j] & (square > 0) & jnp.any(new != 0) & jnp.all(jnp.isfinite(new))
            change = jnp.where(usable, new - atoms[j], 0)
            steps = steps - moment[:, j, None] * change[None, :]
            return atoms.at[j].set(jnp.where(usable, new, atoms[j])), steps

        atoms = fori_loop(0, size, update_atom, (atoms, cross - moved))[0]
        return lax.dynamic_update_slice_in_dim(dictionary, atoms, first, axis=0)

    return fori_loop(0, blocks * num_shards(atoms_axis), update_block, dictionary)


@entry(static=("atoms_axis",), like="dictionary")
def residual_update(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    learning_rate: Real[ArrayLike, ""],
    atoms_axis: str | None = None,
) -> Float[Array, "m d"]:
    """Moves each atom along the mean residual of its users, weighted by their coefficients.

    D += learning_rate x (X^T R) / uses, R the residuals; an atom's step is the mean
    over the signals that use it, so rare atoms learn as fast as frequent ones. A signal
    or atom that is not finite is ignored.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      learning_rate: step, > 0; 1 over the mean squared coefficient is a full step.
      atoms_axis: as for `omp`: the mesh axis over which the dictionary is sharded. The code is that
        of all atoms.

    Returns:
      `(m, d)` float array, not normalised.

    Raises:
      ValueError: if the shapes do not match.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    check_scalars(learning_rate=learning_rate)
    learning_rate = jnp.asarray(learning_rate, dictionary.dtype)
    m, old, finite = dictionary.shape[0], dictionary, is_finite(dictionary)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code, atoms_axis)
    residual = signals - decode(code, dictionary, atoms_axis=atoms_axis)
    code = own_part(code, m, atoms_axis)
    gradient = sum_over_signals(lambda x, r: matmul(x.T, r), code, (residual,), m)
    new = dictionary + learning_rate * gradient / jnp.maximum(usage(code, m), 1)[:, None]
    return jnp.where(finite, new, old)
