"""Dictionary learning in one call: code, update atoms, replace unused atoms, repeat."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray, Real

from laser_jax.checks import (
    check_at_least,
    check_choice,
    check_mask,
    check_rows,
    check_scalars,
    check_signals,
    check_sparsity,
)
from laser_jax.sparse.code import SparseCode, decode, is_finite, squared_errors
from laser_jax.sparse.dictionary import init_from_signals, replace_atoms, unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.ksvd import METHODS as SWEEPS
from laser_jax.sparse.ksvd import check_nonnegative, ksvd_sweep, nonnegative_name
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.loops import while_loop
from laser_jax.sparse.masked import hide
from laser_jax.sparse.nonnegative import nonnegative_omp
from laser_jax.sparse.omp import omp
from laser_jax.sparse.online import online_update

METHODS = (*SWEEPS, "online")


class FitResult(NamedTuple):
    """The result of `fit_dictionary`.

    Attributes:
      dictionary: `(m, d)`, unit-norm atoms.
      code: `SparseCode` of the signals, `(..., k)`.
      errors: `(iterations,)`, mean over finite signals of the squared error ||y - x D||^2 after
        each iteration's coding and update, NaN if there is none. The last is that of `dictionary`
        and `code`; it is repeated for the iterations that `tolerance` skipped.
    """

    dictionary: Float[Array, "m d"]
    code: SparseCode
    errors: Float[Array, " iterations"]


@entry(
    static=("num_atoms", "sparsity", "method", "iterations", "nonnegative"),
    like=FitResult(None, "signals", None),  # type: ignore[arg-type] # the pattern of a result
)
def fit_dictionary(
    signals: Float[Array, "*batch d"],
    *,
    num_atoms: int,
    sparsity: int,
    method: str = "approximate",
    iterations: int = 50,
    max_coherence: Real[ArrayLike, ""] = 0.99,
    dictionary: Float[ArrayLike, "m d"] | None = None,
    tolerance: Real[ArrayLike, ""] = 0.0,
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    nonnegative: bool | str = False,
    key: PRNGKeyArray,
) -> FitResult:
    """Learns a dictionary in which the signals are sparse.

    Approximates argmin over D, X of ||Y - X D||^2 subject to ||x_i||_0 <= k, in turn over X (by
    `omp`) and over D. Atoms start as signals. Between iterations, unused atoms and near duplicates
    are replaced by signals with large errors. A signal that is not finite is ignored.

    Args:
      signals: `(..., d)` float array, one signal a row.
      num_atoms: m, at least 1.
      sparsity: atoms per signal, `1 <= sparsity <= num_atoms`.
      method: how atoms learn: "exact", "approximate" or "parallel" sweeps as in `ksvd_sweep`,
        or "online" (`online_update`, no SVD), all signals in each iteration.
      iterations: codings and updates, at least 1.
      max_coherence: |cosine| above which of two atoms the less used one is replaced, in (0, 1].
      dictionary: `(m, d)` float array to start from; None for signals. Atoms of any norm.
      tolerance: stops after an iteration that lowers the error by no more than this share of
        it, at least 0; 0 never stops early.
      mask: weights of the signals' entries as for `omp`; not with "exact".
      nonnegative: True keeps atoms and coefficients >= 0, "dictionary" atoms, "code" coefficients.
        With "approximate" and "online" only. Static.
      key: PRNG key.

    Returns:
      `FitResult(dictionary, code, errors)`.

    Raises:
      ValueError: if there is no signal, `method` is unknown or does not support an option, a
        number is out of range or `dictionary` has another shape.

    References:
      Aharon, Elad and Bruckstein, K-SVD, IEEE Transactions on Signal Processing 2006.
    """
    flat = check_rows(signals, num_atoms)
    check_sparsity(sparsity, num_atoms)
    check_choice("method", method, METHODS)
    check_at_least("iterations", iterations, 1)
    check_scalars(max_coherence=max_coherence, tolerance=tolerance)
    problem = _Problem(sparsity, method, max_coherence, tolerance, *check_nonnegative(nonnegative))
    (flat, weights), scale = _prepare(flat, check_mask(mask, flat.reshape(jnp.shape(signals))))
    init_key, key = jax.random.split(key)
    flat, start = problem.start(flat, weights, num_atoms, dictionary, init_key)
    result = problem.fit(flat, weights, start, jax.random.split(key, iterations))
    shape = *jnp.shape(signals)[:-1], sparsity
    code = SparseCode(*(x.reshape(shape) for x in result.code))
    code = code._replace(coefficients=scale * code.coefficients)
    return FitResult(result.dictionary, code, (result.errors * scale) * scale)


def _prepare(signals, mask):
    """Returns signals and weights `(n, d)`, hidden entries 0, scaled by a power of two; and it."""
    weights = None
    if mask is not None:
        signals, weights = hide(signals, mask.reshape(signals.shape))
    scale = power_scales(jnp.where(is_finite(signals), signals, 0).ravel())[0]  # squares in range
    return (signals / scale, weights), scale


class _Problem(NamedTuple):
    """The static and scalar arguments of `fit_dictionary`."""

    sparsity: int
    method: str
    max_coherence: ArrayLike
    tolerance: ArrayLike
    nonnegative_atoms: bool
    nonnegative_code: bool

    def start(self, signals, weights, num_atoms, dictionary, key):
        """Returns the signals and the unit atoms to start from, in one floating type."""
        candidates = self._candidates(signals, weights, _means(signals, weights))
        dictionary = start_dictionary(
            candidates, num_atoms, dictionary, self.max_coherence, key, self.nonnegative_atoms
        )
        return signals.astype(dictionary.dtype), dictionary

    def fit(self, signals, weights, start, keys):
        """Returns the `FitResult` after at most as many iterations as there are keys."""
        iterations = len(keys)
        shape = signals.shape[0], self.sparsity
        no_code = SparseCode(jnp.zeros(shape, jnp.int32), jnp.zeros(shape, signals.dtype))

        def iterate(state):
            i, _, start, _, errors = state
            dictionary, code = self.learn(signals, weights, start)
            error = _mean_error(signals, weights, dictionary, code)
            candidates = self._candidates(signals, weights, decode(code, dictionary))
            options = {"max_coherence": self.max_coherence, "key": keys[i]}
            next_start = replaced(
                candidates, dictionary, code, nonnegative=self.nonnegative_atoms, **options
            )
            last = errors[i - 1]
            stop = (i > 0) & (self.tolerance > 0) & hardly_falls(last, error, self.tolerance)
            errors = jnp.where(jnp.arange(iterations) < i, errors, error)
            return i + 1, stop, next_start, (dictionary, code), errors

        # The next iteration starts from the replaced atoms; what is returned fits the code.
        *_, (dictionary, code), errors = while_loop(
            lambda state: (state[0] < iterations) & ~state[1],
            iterate,
            (0, False, start, (start, no_code), jnp.zeros(iterations, signals.dtype)),
        )
        return FitResult(dictionary, code, errors)

    def learn(self, signals, weights, dictionary):
        """Codes the signals and updates the atoms."""
        coder = nonnegative_omp if self.nonnegative_code else omp
        code = coder(signals, dictionary, sparsity=self.sparsity, mask=weights)
        options = {"mask": weights}
        if self.method == "online":
            options |= {"decay": 0.0, "nonnegative": self.nonnegative_atoms}
            return online_update(None, signals, dictionary, code, **options)[1], code
        options["nonnegative"] = nonnegative_name(self.nonnegative_atoms, self.nonnegative_code)
        return ksvd_sweep(signals, dictionary, code, method=self.method, **options)

    def _candidates(self, signals, weights, instead):
        """Returns the signals as candidates for atoms, `instead` where an entry is hidden."""
        if weights is not None:
            signals = jnp.where(is_finite(signals) & (weights == 0), instead, signals)
        return signals


def replaced(candidates, dictionary, code, *, nonnegative, **options):
    """Returns `replace_atoms` of these arguments, atoms >= 0 if `nonnegative`."""
    if not nonnegative:
        return replace_atoms(candidates, dictionary, code, **options)
    # Of nonnegative candidates only random directions, which fill up a dictionary, are not so.
    return jnp.abs(replace_atoms(jnp.maximum(candidates, 0), dictionary, code, **options))


def start_dictionary(signals, num_atoms, dictionary, max_coherence, key, nonnegative):
    """Returns the atoms that learning starts with: the given ones, of any norm, or signals.

    With `nonnegative` they are >= 0.

    Raises:
      ValueError: if the given dictionary does not have `num_atoms` rows of the signals' width.
    """
    if dictionary is None:
        signals = jnp.maximum(signals, 0) if nonnegative else signals
        atoms = init_from_signals(signals, num_atoms, max_coherence=max_coherence, key=key)
    else:
        _, dictionary = check_signals(signals, dictionary)
        if dictionary.shape[0] != num_atoms:
            raise ValueError(
                f"dictionary must have num_atoms = {num_atoms} rows, got {dictionary.shape}."
            )
        atoms = unit_norm(dictionary)
    return jnp.abs(atoms) if nonnegative else atoms


def _means(signals, weights):
    """Returns the mean `(1, d)` of each entry over the signals that show it."""
    if weights is None:
        return None
    shown = jnp.where(is_finite(signals), weights, 0)
    total = jnp.sum(shown * jnp.where(is_finite(signals), signals, 0), axis=0, keepdims=True)
    count = jnp.sum(shown, axis=0, keepdims=True)
    return total / jnp.where(count > 0, count, 1)


def _mean_error(signals, weights, dictionary, code):
    return mean_of_finite(squared_errors(signals, dictionary, code, weights), signals, code)


def mean_of_finite(errors, signals, code):
    """Returns the mean of errors `(...,)` over finite signals and codes; NaN if there are none."""
    coded = jnp.sum(is_finite(signals) & is_finite(code.coefficients))
    return jnp.where(coded > 0, jnp.sum(errors) / jnp.maximum(coded, 1), jnp.nan)


def hardly_falls(last, error, tolerance):
    """Returns whether an error is not lower than the last one by more than a share of it."""
    return last - error <= tolerance * last


def count_iterations(result, tolerance):
    """Returns how many iterations a fit took before its errors repeat the last one."""
    errors = np.asarray(result.errors)
    stops = np.flatnonzero(hardly_falls(errors[:-1], errors[1:], errors.dtype.type(tolerance)))
    return int(stops[0]) + 2 if tolerance > 0 and stops.size else errors.size
