"""K-SVD: each atom becomes the leading singular vector of the error its users have without it.

For atom j let E be the errors `(u, d)` of the u signals that use it, atom j's own
part left out. The best rank-one fit a v^T of E gives the new atom v and its new
coefficients a. v is the leading singular vector of the second moment E^T E,
`(d, d)`, which has a fixed shape whatever u is: so one compiled SVD serves every
atom, and moments of earlier batches can be added (`decay`).

Three methods:
- `exact`: atom after atom (Gauss-Seidel), SVD each. The error never rises.
- `approximate`: atom after atom, one power iteration from the old coefficients
  instead of the SVD (Rubinstein et al. 2008). The error never rises.
- `parallel`: all atoms at once from the same errors (Jacobi; Irofti and Dumitrescu 2014),
  batched SVD within the Krylov spaces of the old atoms. Sums over signals are all it needs,
  so it fills an accelerator and runs over devices, which the sequential sweeps should not:
  they would exchange errors at every atom. Where atoms share many signals the error can rise.

The users of each atom are found by sorting the (signal, atom) pairs once, so the
cost is O(n k d^2 + m d^3) a sweep (`approximate`: O(n k d)) and not O(n m d^2).
Memory: O(n (k + d)) for the sequential methods, O(m d^2) more for `parallel`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.checks import (
    check_choice,
    check_code,
    check_dictionary,
    check_scalars,
    check_signals,
    check_statistics,
)
from laser_jax.sparse.code import SparseCode, decode, drop_nonfinite, is_finite
from laser_jax.sparse.dictionary import unit_norm
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import each_matrix, matmul, power_scales, safe_norms, scaled
from laser_jax.sparse.loops import fori_loop
from laser_jax.sparse.support import least_squares

METHODS = ("exact", "approximate", "parallel")


@entry(static=("method",), like=("dictionary", "code"))
def ksvd_sweep(signals, dictionary, code, *, method="exact"):
    """Updates every atom once, with the coefficients of its users.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      method: "exact", "approximate" or "parallel"; see the module's docstring.

    Returns:
      `(dictionary, code)`. Atoms that were used have unit norm and point to the old
      atom's side; unused ones, and those whose SVD is not finite, are untouched. A signal
      or atom that is not finite takes no part: it gets coefficients 0.

    Raises:
      ValueError: if widths differ or `method` is unknown.

    References:
      Aharon, Elad and Bruckstein, K-SVD: an algorithm for designing overcomplete
      dictionaries for sparse representation, 2006.
      Rubinstein, Zibulevsky and Elad, Efficient implementation of the K-SVD
      algorithm using batch orthogonal matching pursuit, 2008 ("approximate").
      Irofti and Dumitrescu, GPU parallel implementation of the approximate K-SVD
      algorithm using OpenCL, 2014 ("parallel").
    """
    signals, dictionary, code = _checked(signals, dictionary, code, method)
    _, dictionary, code = _sweep(None, signals, dictionary, code, method)
    return dictionary, code


def ksvd_statistics(dictionary, *, method):
    """Returns the empty memory of `ksvd_update`: `(m, d, d)` moments, `(m, d)` if "approximate".

    Args:
      dictionary: `(m, d)` float array.
      method: "exact", "approximate" or "parallel", as for `ksvd_update`.
    """
    dictionary = check_dictionary(dictionary)
    check_choice("method", method, METHODS)
    m, d = dictionary.shape
    return jnp.zeros((m, d) if method == "approximate" else (m, d, d), dictionary.dtype)


@entry(static=("method",), like=("statistics", "dictionary", "code"))
def ksvd_update(statistics, signals, dictionary, code, *, method, decay):
    """One sweep in which each atom's moment is that of these signals plus the decayed past.

    statistics = decay x statistics + (moments of these signals): a sum over batches, as in
    `online_update`; in `ema_update` it is a mean, of which the new part is (1 - decay).

    Args:
      statistics: array from `ksvd_statistics` or the last update; None for an empty one.
      decay: share of the past kept, in [0, 1). The others as for `ksvd_sweep`.

    Returns:
      `(statistics, dictionary, code)`.

    Raises:
      ValueError: if the shapes do not fit or `method` is unknown.
    """
    signals, dictionary, code = _checked(signals, dictionary, code, method)
    check_scalars(decay=decay)
    empty = ksvd_statistics(dictionary, method=method)
    statistics = empty if statistics is None else statistics
    check_statistics(statistics, empty.shape)
    memory = jnp.asarray(decay, dictionary.dtype) * statistics
    return _sweep(memory, signals, dictionary, code, method)


def _checked(signals, dictionary, code, method):
    signals, dictionary = check_signals(signals, dictionary)
    check_choice("method", method, METHODS)
    return signals, dictionary, check_code(code, signals)


def _sweep(memory, signals, dictionary, code, method):
    """Returns memory with these signals' moments added, None if it is None, and the results."""
    (m, d), k = dictionary.shape, code.indices.shape[-1]
    if signals.size == 0:
        return memory, dictionary, code
    old, finite = dictionary, is_finite(dictionary)
    flat, dictionary, flat_code = drop_nonfinite(
        signals.reshape(-1, d), dictionary, SparseCode(*(x.reshape(-1, k) for x in code))
    )
    # Directions do not depend on the scale; the moments of a memory do.
    scale = power_scales(flat.ravel())[0] if memory is None else 1
    flat, flat_code = flat / scale, flat_code._replace(coefficients=flat_code.coefficients / scale)
    errors = flat - decode(flat_code, dictionary)
    if method == "parallel":
        moments = _all_moments(errors, dictionary, flat_code)
        memory = moments if memory is None else memory + moments
        new = _direction(memory, dictionary, method)
        new_code = least_squares(flat, new, flat_code)
    else:
        pairs = _sort_pairs(flat_code, m)
        memory, new, coefficients = _one_by_one(memory, errors, dictionary, pairs, method)
        coefficients = jnp.zeros_like(coefficients).at[pairs.order].set(coefficients)
        new_code = flat_code._replace(coefficients=coefficients.reshape(-1, k))
    new = jnp.where(finite, new, old)
    coefficients = scale * new_code.coefficients.reshape(code.indices.shape)
    return memory, new, SparseCode(code.indices, coefficients)


class _Pairs(NamedTuple):
    """The (signal, atom) pairs in use, sorted by atom; atom j holds `starts[j]:starts[j + 1]`."""

    order: jax.Array  # (n k,) place of each sorted pair in the code
    signal: jax.Array  # (n k,)
    coefficient: jax.Array  # (n k,)
    starts: jax.Array  # (m + 1,)


def _sort_pairs(code, num_atoms):
    k = code.indices.shape[-1]
    # Unused places come after every atom.
    atom = jnp.where(code.coefficients != 0, code.indices, num_atoms).ravel()
    order = jnp.argsort(atom, stable=True)
    starts = jnp.searchsorted(atom[order], jnp.arange(num_atoms + 1))
    return _Pairs(order, order // k, code.coefficients.ravel()[order], starts)


def _moment(errors, coefficients, method):
    """What the atom's direction is read from; sums over signals, so batches add up."""
    if method == "approximate":
        return matmul(coefficients[..., None, :], errors)[..., 0, :]
    return matmul(errors.mT, errors)


def _direction(moments, old, method):
    """The new unit atoms `(..., d)`, on the old ones' side; the old one where it is not finite."""
    if method == "approximate":
        new = moments
    elif method == "parallel":
        new = _leading_in_krylov(moments, old)
    else:
        # Hermitian: the moment's eigenvectors are its singular vectors, at half the time.
        new = each_matrix(lambda x: jnp.linalg.svd(x, hermitian=True)[0], moments)[..., 0]
    new = unit_norm(new)
    sign = jnp.where(jnp.sum(new * old, -1, keepdims=True) < 0, -1, 1)
    square = jnp.sum(new**2, -1)
    used = jnp.any(moments != 0, axis=tuple(range(old.ndim - 1, moments.ndim)))
    usable = used & (square > 0) & jnp.isfinite(square)
    return jnp.where(usable[..., None], sign * new, old)


# Basis vectors: on photographs 8 already give the leading one of 64 to float32's rounding.
_KRYLOV = 12


def _leading_in_krylov(moments, old):
    """Returns the best vectors `(m, d)` in the Krylov spaces of the moments from the old atoms.

    The Lanczos method: the leading singular vector wherever it stands out, and never one
    worse than the old atom. On a CPU nine times faster than the SVD of all the moments at
    d = 64.
    """
    m, d = old.shape
    size = min(_KRYLOV, d)

    def extend(j, basis):
        new = scaled(matmul(basis[:, j, None], moments))
        length = jnp.sum(new**2, -1, keepdims=True)
        for _ in range(2):  # once would leave rounding in it, which grows from step to step
            new -= matmul(matmul(new, basis.mT), basis)
        square = jnp.sum(new**2, -1, keepdims=True)
        # The space is exhausted where no more than rounding remains.
        fresh = square > length * (16 * jnp.finfo(new.dtype).eps) ** 2
        new = jnp.where(fresh, new * lax.rsqrt(jnp.where(fresh, square, 1)), 0)
        return basis.at[:, j + 1].set(new[:, 0])

    basis = jnp.zeros((m, size, d), old.dtype).at[:, 0].set(old / safe_norms(old))
    basis = fori_loop(0, size - 1, extend, basis)
    projected = matmul(matmul(basis, moments), basis.mT)
    weights = each_matrix(lambda x: jnp.linalg.svd(x, hermitian=True)[0], projected)[..., 0]
    return matmul(weights[:, None], basis)[:, 0]


def _one_by_one(memory, errors, dictionary, pairs, method):
    """Sequential sweep. The errors and coefficients follow each atom as it changes."""
    chunk = 128  # users taken at a time; an atom with more takes several rounds
    window = jnp.arange(chunk)

    def gather(start, stop, errors, coefficients, atom):
        """A chunk's users: their places, their coefficients, their errors without the atom."""
        place = jnp.where(start + window < stop, start + window, pairs.signal.size)
        coefficient = coefficients.at[place].get(mode="fill", fill_value=0)
        signal = pairs.signal.at[place].get(mode="fill", fill_value=errors.shape[0])
        error = errors.at[signal].get(mode="fill", fill_value=0)
        return place, signal, coefficient, error + coefficient[:, None] * atom[None, :]

    def update_atom(j, state):
        memory, errors, dictionary, coefficients = state
        start, stop, old = pairs.starts[j], pairs.starts[j + 1], dictionary[j]
        rounds = -(-(stop - start) // chunk)

        def add_moment(i, moment):
            _, _, coefficient, error = gather(start + i * chunk, stop, errors, coefficients, old)
            return moment + _moment(error, coefficient, method)

        empty = jnp.zeros(old.shape if method == "approximate" else (old.size, old.size), old.dtype)
        moment = empty if memory is None else memory[j]
        moment = fori_loop(0, rounds, add_moment, moment)
        new = _direction(moment, old, method)

        def move_users(i, state):
            errors, coefficients = state
            place, signal, _, error = gather(start + i * chunk, stop, errors, coefficients, old)
            coefficient = matmul(error, new) / safe_norms(new) ** 2
            error -= coefficient[:, None] * new[None, :]
            errors = errors.at[signal].set(error, mode="drop")
            return errors, coefficients.at[place].set(coefficient, mode="drop")

        errors, coefficients = fori_loop(0, rounds, move_users, (errors, coefficients))
        if memory is not None:
            memory = memory.at[j].set(moment)
        return memory, errors, dictionary.at[j].set(new), coefficients

    state = (memory, errors, dictionary, pairs.coefficient)
    memory, _, dictionary, coefficients = fori_loop(0, dictionary.shape[0], update_atom, state)
    return memory, dictionary, coefficients


def _all_moments(errors, dictionary, code):
    """Every atom's E^T E, `(m, d, d)`, each device's signals by themselves and then summed.

    Sorting all of a sharded batch would gather it on every device.
    """

    def share_moments(errors, code):
        return _restricted_moments(errors, dictionary, _sort_pairs(code, dictionary.shape[0]))

    n, devices = errors.shape[0], jax.device_count()
    if devices == 1 or n % devices:
        return share_moments(errors, code)
    split = jax.tree.map(lambda x: x.reshape(devices, n // devices, -1), (errors, code))
    return jnp.sum(jax.vmap(share_moments)(*split), axis=0)


def _restricted_moments(errors, dictionary, pairs):
    """Every atom's E^T E over these signals.

    Atoms have few or many users, so the sorted pairs are cut into groups of one size,
    each within one atom: one batched product, then a sum over each atom's groups. At
    a group size of the average number of users there are at most 2 m groups.
    """
    (m, _), total = dictionary.shape, pairs.signal.size
    size = max(16, -(-total // m))
    groups = -(-total // size) + m
    counts = -(-jnp.diff(pairs.starts) // size)
    ends = jnp.cumsum(counts)
    atom = jnp.searchsorted(ends, jnp.arange(groups), side="right")
    inside = jnp.minimum(atom, m - 1)
    first = pairs.starts[inside] + (jnp.arange(groups) - (ends - counts)[inside]) * size
    place = first[:, None] + jnp.arange(size)[None, :]
    valid = (place < pairs.starts[inside + 1][:, None]) & (atom < m)[:, None]
    place = jnp.minimum(place, total - 1)
    coefficient = pairs.coefficient[place][..., None]
    error = errors[pairs.signal[place]] + coefficient * dictionary[inside][:, None]
    error = jnp.where(valid[..., None], error, 0)
    moments = _moment(error, None, "parallel")
    return jax.ops.segment_sum(moments, atom, m, indices_are_sorted=True)
