"""Dictionary learning in one call: code, update the atoms, replace the useless ones, repeat."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from laser_jax.checks import (
    check_at_least,
    check_choice,
    check_rows,
    check_scalars,
    check_signals,
    check_sparsity,
)
from laser_jax.sparse.code import SparseCode, is_finite, squared_errors
from laser_jax.sparse.dictionary import init_from_signals, replace_atoms, unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.ksvd import METHODS as SWEEPS
from laser_jax.sparse.ksvd import ksvd_sweep
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.loops import while_loop
from laser_jax.sparse.omp import omp
from laser_jax.sparse.online import online_update

METHODS = (*SWEEPS, "online")


class FitResult(NamedTuple):
    """What `fit_dictionary` learned.

    Attributes:
      dictionary: `(m, d)`, unit-norm atoms.
      code: `SparseCode` of the signals, `(..., k)`.
      errors: `(iterations,)`, mean over finite signals of the squared error ||y - x D||^2 after
        each iteration's coding and update. The last is that of `dictionary` and `code`; it is
        repeated for iterations that `tolerance` saved.
    """

    dictionary: jax.Array
    code: SparseCode
    errors: jax.Array


@entry(
    static=("num_atoms", "sparsity", "method", "iterations"),
    like=FitResult(None, "signals", None),  # type: ignore[arg-type] # the pattern of a result
)
def fit_dictionary(
    signals,
    *,
    num_atoms,
    sparsity,
    method="approximate",
    iterations=50,
    max_coherence=0.99,
    dictionary=None,
    tolerance=0.0,
    key,
):
    """Learns a dictionary in which the signals are sparse.

    Approximates argmin over D, X of ||Y - X D||^2 subject to ||x_i||_0 <= k, in turn
    over X (by `omp`) and over D. Atoms start as signals; between iterations those that
    go unused, or nearly equal another, are replaced by signals approximated badly. A
    signal that is not finite takes no part.

    Args:
      signals: `(..., d)` float array, one signal a row.
      num_atoms: m, at least 1.
      sparsity: atoms per signal, `1 <= sparsity <= num_atoms`.
      method: how atoms learn: "exact", "approximate" or "parallel" sweeps as in `ksvd_sweep`,
        or "online" (`online_update`, no SVD), all signals in each iteration.
      iterations: codings and updates, at least 1.
      max_coherence: |cosine| above which of two atoms the less used one is replaced.
      dictionary: `(m, d)` float array to start from; None for signals. Atoms of any norm.
      tolerance: stops after an iteration that lowers the error by less than this share of
        it, at least 0; 0 never stops early.
      key: PRNG key.

    Returns:
      `FitResult(dictionary, code, errors)`.

    Raises:
      ValueError: if there is no signal, `method` is unknown, a number is out of range or
        `dictionary` does not fit.

    References:
      Aharon, Elad and Bruckstein, K-SVD: an algorithm for designing overcomplete
      dictionaries for sparse representation, 2006.
    """
    flat = check_rows(signals, num_atoms)
    check_sparsity(sparsity, num_atoms)
    check_choice("method", method, METHODS)
    check_at_least("iterations", iterations, 1)
    check_scalars(max_coherence=max_coherence, tolerance=tolerance)
    init_key, key = jax.random.split(key)
    dictionary = start_dictionary(flat, num_atoms, dictionary, max_coherence, init_key)
    flat = flat.astype(dictionary.dtype)
    scale = power_scales(jnp.where(is_finite(flat), flat, 0).ravel())[0]  # squares stay in range
    flat = flat / scale
    keys, places = jax.random.split(key, iterations), jnp.arange(iterations)

    def iterate(state):
        i, _, start, _, _, errors = state
        code = omp(flat, start, sparsity=sparsity)
        dictionary, code = _learn(flat, start, code, method)
        coded = is_finite(flat) & is_finite(code.coefficients)
        squared = squared_errors(flat, dictionary, code)
        error = jnp.sum(squared) / jnp.maximum(jnp.sum(coded), 1)
        next_start = replace_atoms(flat, dictionary, code, max_coherence=max_coherence, key=keys[i])
        last = errors[i - 1]
        stop = (i > 0) & (tolerance > 0) & (last - error < tolerance * last)
        return i + 1, stop, next_start, dictionary, code, jnp.where(places < i, errors, error)

    shape = flat.shape[0], sparsity
    no_code = SparseCode(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, flat.dtype))
    errors = jnp.zeros(iterations, flat.dtype)
    # The next iteration starts from the replaced atoms; what is returned fits the code.
    *_, dictionary, code, errors = while_loop(
        lambda state: (state[0] < iterations) & ~state[1],
        iterate,
        (0, False, dictionary, dictionary, no_code, errors),
    )
    shape = *jnp.shape(signals)[:-1], sparsity
    code = SparseCode(code.indices.reshape(shape), scale * code.coefficients.reshape(shape))
    return FitResult(dictionary, code, (errors * scale) * scale)


def start_dictionary(signals, num_atoms, dictionary, max_coherence, key):
    """Returns the atoms that learning starts with: the given ones, of any norm, or signals.

    Raises:
      ValueError: if the given dictionary does not have `num_atoms` rows of the signals' width.
    """
    if dictionary is None:
        return init_from_signals(signals, num_atoms, max_coherence=max_coherence, key=key)
    _, dictionary = check_signals(signals, dictionary)
    if dictionary.shape[0] != num_atoms:
        raise ValueError(
            f"dictionary must have num_atoms = {num_atoms} rows, got {dictionary.shape}."
        )
    return unit_norm(dictionary)


def _learn(signals, dictionary, code, method):
    if method == "online":
        return online_update(None, signals, dictionary, code, decay=0.0)[1], code
    return ksvd_sweep(signals, dictionary, code, method=method)
