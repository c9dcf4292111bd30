"""Online dictionary updates: cheap enough for every batch, no SVD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from laser_jax.checks import (
    check_code,
    check_dictionary,
    check_scalars,
    check_signals,
    check_statistics,
)
from laser_jax.sparse.code import decode, drop_nonfinite, is_finite, to_dense, usage
from laser_jax.sparse.dictionary import unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import default_block_size, matmul, sum_blocks
from laser_jax.sparse.loops import fori_loop


class OnlineStatistics(NamedTuple):
    """Decayed moments of the codes, X^T X `(m, m)`, and of codes with signals, X^T Y `(m, d)`."""

    code_moment: jax.Array
    cross_moment: jax.Array


def online_statistics(dictionary):
    """Returns the empty `OnlineStatistics` of a `(m, d)` dictionary."""
    dictionary = check_dictionary(dictionary)
    m, d = dictionary.shape
    return OnlineStatistics(*(jnp.zeros(shape, dictionary.dtype) for shape in ((m, m), (m, d))))


@entry(like=("statistics", "dictionary"))
def online_update(statistics, signals, dictionary, code, *, decay):
    """Moves each atom to its best place given all codes so far, the old ones decayed.

    One pass of block coordinate descent over ||Y - X D||^2; atoms that were used are
    then scaled to norm 1, the others are untouched. A signal or atom that is not finite
    takes no part.

    statistics = decay x statistics + (moments of these signals): a sum over batches, as in
    `ksvd_update`; in `ema_update` it is a mean, of which the new part is (1 - decay).

    Args:
      statistics: `OnlineStatistics` from `online_statistics` or the last update; None for an
        empty one.
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      decay: share of the past kept, in [0, 1).

    Returns:
      `(statistics, dictionary)`.

    Raises:
      ValueError: if the shapes do not fit.

    References:
      Mairal, Bach, Ponce and Sapiro, Online dictionary learning for sparse coding,
      2009, algorithm 2.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    m, d = dictionary.shape
    statistics = online_statistics(dictionary) if statistics is None else statistics
    check_statistics(statistics, (m, m), (m, d))
    check_scalars(decay=decay)
    decay = jnp.asarray(decay, dictionary.dtype)
    old, finite = dictionary, is_finite(dictionary)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    moments = _sum_over_signals(
        lambda x, y: OnlineStatistics(matmul(x.T, x), matmul(x.T, y)),
        code,
        signals,
        m,
    )
    statistics = jax.tree.map(lambda old, new: decay * old + new, statistics, moments)

    def update_atom(j, dictionary):
        row = statistics.code_moment[j]
        step = statistics.cross_moment[j] - matmul(row, dictionary)
        new = unit_norm(dictionary[j] + step / jnp.where(row[j] > 0, row[j], 1))
        usable = (row[j] > 0) & jnp.any(new != 0) & jnp.all(jnp.isfinite(new))
        return dictionary.at[j].set(jnp.where(usable, new, dictionary[j]))

    new = fori_loop(0, m, update_atom, dictionary)
    return statistics, jnp.where(finite, new, old)


@entry(like="dictionary")
def residual_update(signals, dictionary, code, *, learning_rate):
    """Moves each atom along the mean residual of its users, weighted by their coefficients.

    D += learning_rate x (X^T R) / uses, R the residuals; an atom's step is the mean
    over the signals that use it, so rare atoms learn as fast as frequent ones. A signal
    or atom that is not finite takes no part.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      learning_rate: step, > 0; 1 over the mean squared coefficient is a full step.

    Returns:
      `(m, d)` float array, not normalised.

    Raises:
      ValueError: if the shapes do not fit.
    """
    signals, dictionary = check_signals(signals, dictionary)
    code = check_code(code, signals)
    check_scalars(learning_rate=learning_rate)
    learning_rate = jnp.asarray(learning_rate, dictionary.dtype)
    m, old, finite = dictionary.shape[0], dictionary, is_finite(dictionary)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    residual = signals - decode(code, dictionary)
    gradient = _sum_over_signals(lambda x, r: matmul(x.T, r), code, residual, m)
    new = dictionary + learning_rate * gradient / jnp.maximum(usage(code, m), 1)[:, None]
    return jnp.where(finite, new, old)


def _sum_over_signals(function, code, signals, num_atoms):
    """Sums function(X, Y), the dense codes of one block of signals in memory at a time."""
    # Blocks of at least m signals: else adding up (m, m) sums costs more than making them.
    block_size = default_block_size(num_atoms, least=num_atoms)
    return sum_blocks(
        lambda block: function(to_dense(block[0], num_atoms), block[1]), (code, signals), block_size
    )
