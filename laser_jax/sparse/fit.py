"""Dictionary learning in one call: code, update the atoms, replace the useless ones, repeat."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from laser_jax.sparse.checks import (
    check_at_least,
    check_choice,
    check_rows,
    check_scalars,
    check_sparsity,
)
from laser_jax.sparse.code import SparseCode, is_finite, squared_errors
from laser_jax.sparse.dictionary import init_from_signals, replace_atoms
from laser_jax.sparse.entry import entry
from laser_jax.sparse.ksvd import ksvd_sweep
from laser_jax.sparse.loops import scan
from laser_jax.sparse.omp import omp
from laser_jax.sparse.online import online_statistics, online_update

METHODS = ("ksvd", "approximate", "parallel", "online")


class FitResult(NamedTuple):
    """What `fit_dictionary` learned.

    Attributes:
      dictionary: `(m, d)`, unit-norm atoms.
      code: `SparseCode` of the signals, `(..., k)`.
      errors: `(iterations,)`, mean over finite signals of the squared error ||y - x D||^2 after
        each iteration's coding and update. The last is that of `dictionary` and `code`.
    """

    dictionary: jax.Array
    code: SparseCode
    errors: jax.Array


@entry(
    static=("num_atoms", "sparsity", "method", "iterations"), like=FitResult(None, "signals", None)
)
def fit_dictionary(
    signals,
    *,
    num_atoms,
    sparsity,
    method="ksvd",
    iterations=50,
    max_coherence=0.99,
    key,
):
    """Learns a dictionary in which the signals are sparse.

    Approximates argmin over D, X of ||Y - X D||^2 subject to ||x_i||_0 <= k, in turn
    over X (by `omp`) and over D. Atoms start as signals; between iterations those that
    go unused, or nearly equal another, are replaced by signals approximated badly.

    Args:
      signals: `(..., d)` float array, one signal a row.
      num_atoms: m, at least 1.
      sparsity: atoms per signal, `1 <= sparsity <= num_atoms`.
      method: how atoms learn: "ksvd" (exact sweeps), "approximate" or "parallel" sweeps,
        or "online" (block coordinate descent, no SVD), all signals in each iteration.
      iterations: codings and updates, at least 1.
      max_coherence: |cosine| above which of two atoms the less used one is replaced.
      key: PRNG key.

    Returns:
      `FitResult(dictionary, code, errors)`.

    Raises:
      ValueError: if there is no signal, `method` is unknown or a number out of range.

    References:
      Aharon, Elad and Bruckstein, K-SVD: an algorithm for designing overcomplete
      dictionaries for sparse representation, 2006.
    """
    flat = check_rows(signals, num_atoms)
    check_sparsity(sparsity, num_atoms)
    check_choice("method", method, METHODS)
    check_at_least("iterations", iterations, 1)
    check_scalars(max_coherence=max_coherence)
    init_key, key = jax.random.split(key)
    dictionary = init_from_signals(flat, num_atoms, max_coherence=max_coherence, key=init_key)

    def learn(dictionary, code):
        if method == "online":
            _, dictionary = online_update(
                online_statistics(dictionary), flat, dictionary, code, decay=0.0
            )
            return dictionary, code
        return ksvd_sweep(flat, dictionary, code, method="exact" if method == "ksvd" else method)

    def iterate(state, key):
        dictionary = state[0]
        code = omp(flat, dictionary, sparsity=sparsity)
        dictionary, code = learn(dictionary, code)
        coded = is_finite(flat) & is_finite(code.coefficients)
        squared = squared_errors(flat, dictionary, code)
        error = jnp.sum(squared) / jnp.maximum(jnp.sum(coded), 1)
        replaced = replace_atoms(flat, dictionary, code, max_coherence=max_coherence, key=key)
        return (replaced, dictionary, code), error

    shape = flat.shape[0], sparsity
    no_code = SparseCode(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, flat.dtype))
    # The next iteration starts from the replaced atoms; what is returned fits the code.
    state = dictionary, dictionary, no_code
    (_, dictionary, code), errors = scan(iterate, state, jax.random.split(key, iterations))
    code = SparseCode(*(x.reshape(*jnp.shape(signals)[:-1], sparsity) for x in code))
    return FitResult(dictionary, code, errors)
