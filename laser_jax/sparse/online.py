"""Online dictionary updates: cheap enough for every batch, no SVD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import (
    check_code,
    check_dictionary,
    check_mask,
    check_scalars,
    check_signals,
    check_statistics,
)
from laser_jax.sparse.code import (
    SparseCode,
    decode,
    drop_nonfinite,
    is_finite,
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
    m, d = dictionary.shape
    return OnlineStatistics(*(jnp.zeros(shape, dictionary.dtype) for shape in ((m, m), (m, d))))


@entry(static=("nonnegative",), like=("statistics", "dictionary"))
def online_update(
    statistics: OnlineStatistics | None,
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    decay: Real[ArrayLike, ""],
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    nonnegative: bool = False,
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
      mask: weights of the signals' entries as for `omp`. The signals then count as `impute` makes
        them: what is hidden is what the code says it is, so a step of the pass is shorter.
      nonnegative: whether atoms stay >= 0. Static.

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
    m, d = dictionary.shape
    statistics = online_statistics(dictionary) if statistics is None else statistics
    check_statistics(statistics, (m, m), (m, d))
    check_scalars(decay=decay)
    decay = jnp.asarray(decay, dictionary.dtype)
    old, finite = dictionary, is_finite(dictionary)
    dictionary, moments = _moments(signals, dictionary, code, check_mask(mask, signals))
    statistics = jax.tree.map(lambda old, new: decay * old + new, statistics, moments)
    return statistics, jnp.where(finite, _descend(statistics, dictionary, nonnegative), old)


def _moments(signals, dictionary, code, mask):
    """Returns the dictionary without what is not finite, and the moments of the signals."""
    if mask is not None:
        signals, weights = hide(signals, mask)
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    if mask is not None:
        signals, weight = impute(signals, weights, decode(code, dictionary))
        signals = jnp.sqrt(weight) * signals
        code = code._replace(coefficients=jnp.sqrt(weight) * code.coefficients)

    def moments(x, y):
        return OnlineStatistics(matmul(x.T, x), matmul(x.T, y))

    return dictionary, sum_over_signals(moments, code, (signals,), dictionary.shape[0])


def _descend(statistics, dictionary, nonnegative):
    """One pass of block coordinate descent; every atom used gets norm 1."""

    def update_atom(j, dictionary):
        row = statistics.code_moment[j]
        step = statistics.cross_moment[j] - matmul(row, dictionary)
        new = dictionary[j] + step / jnp.where(row[j] > 0, row[j], 1)
        new = unit_norm(jnp.maximum(new, 0) if nonnegative else new)
        usable = (row[j] > 0) & jnp.any(new != 0) & jnp.all(jnp.isfinite(new))
        return dictionary.at[j].set(jnp.where(usable, new, dictionary[j]))

    return fori_loop(0, dictionary.shape[0], update_atom, dictionary)


@entry(like="dictionary")
def residual_update(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    learning_rate: Real[ArrayLike, ""],
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
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    residual = signals - decode(code, dictionary)
    gradient = sum_over_signals(lambda x, r: matmul(x.T, r), code, (residual,), m)
    new = dictionary + learning_rate * gradient / jnp.maximum(usage(code, m), 1)[:, None]
    return jnp.where(finite, new, old)
