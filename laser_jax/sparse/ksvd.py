"""K-SVD: each atom becomes the leading singular vector of its users' error without it.

For atom j let E be the errors `(u, d)` of the u signals that use it, atom j's own
part left out. The best rank-one fit a v^T of E gives the new atom v and its new
coefficients a. v is the leading singular vector of the second moment E^T E,
`(d, d)`, whose shape does not depend on u: so one compiled SVD serves every
atom, and moments of earlier batches can be added (`decay`).

Three methods:
- `exact`: atom after atom (Gauss-Seidel), SVD each. The error never rises.
- `approximate`: atom after atom, one power iteration from the old coefficients
  instead of the SVD (Rubinstein et al. 2008). The error never rises.
- `parallel`: all atoms at once from the same errors (Jacobi; Irofti and Dumitrescu 2014),
  batched SVD within the Krylov spaces of the old atoms. Sums over signals are all it needs,
  so it keeps an accelerator busy and runs on several devices. The sequential sweeps should not:
  they would exchange errors at every atom. Where atoms share many signals the error can rise.

The users of each atom are found by sorting the (signal, atom) pairs once, so the
cost is O(n k d^2 + m d^3) a sweep (`approximate`: O(n k d)) and not O(n m d^2).
Memory: O(n (k + d)) for the sequential methods, O(m d^2) more for `parallel`.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from laser_jax.checks import (
    check_choice,
    check_code,
    check_dictionary,
    check_mask,
    check_scalars,
    check_signals,
    check_statistics,
)
from laser_jax.sparse.atom_rules import PlainRule, WeightedRule
from laser_jax.sparse.atoms import num_shards
from laser_jax.sparse.code import SparseCode, decode, drop_nonfinite, is_finite, own_part
from laser_jax.sparse.entry import entry
from laser_jax.sparse.ksvd_sweeps import all_moments, one_by_one, sort_pairs
from laser_jax.sparse.linalg import power_scales
from laser_jax.sparse.masked import hide
from laser_jax.sparse.support import least_squares

METHODS = ("exact", "approximate", "parallel")
# Value of `nonnegative` -> whether atoms, and whether coefficients, are >= 0.
NONNEGATIVE = {
    False: (False, False),
    True: (True, True),
    "dictionary": (True, False),
    "code": (False, True),
}


@entry(static=("method", "nonnegative", "atoms_axis"), like=("dictionary", "code"))
def ksvd_sweep(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    method: str = "exact",
    mask: Real[Array, "*#batch #d"] | Bool[Array, "*#batch #d"] | None = None,
    nonnegative: bool | str = False,
    atoms_axis: str | None = None,
) -> tuple[Float[Array, "m d"], SparseCode]:
    """Updates every atom once, with the coefficients of its users.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array.
      code: `SparseCode` of the signals.
      method: "exact", "approximate" or "parallel"; see the module's docstring.
      mask: weights of the signals' entries as for `omp`. An entry of an atom is then the weighted
        mean of what its users see there, and one that no user sees stays. Not for "exact".
      nonnegative: True keeps atoms and coefficients >= 0, "dictionary" atoms, "code" coefficients,
        which must be so at the start. Only for "approximate". Static.
      atoms_axis: as for `omp`: the mesh axis over which the dictionary is sharded. The code is that
        of all atoms. Only for "parallel", as the others exchange errors at every atom.

    Returns:
      `(dictionary, code)`. Atoms that were used have unit norm and point to the old
      atom's side; unused ones, and those whose SVD is not finite, are untouched. A signal
      or atom that is not finite is ignored: it gets coefficients 0.

    Raises:
      ValueError: if widths differ, `method` is unknown or cannot do what is asked.

    References:
      Mairal, Elad and Sapiro, Sparse representation for color image restoration, 2008 (`mask`).
      Aharon, Elad and Bruckstein, K-SVD: an algorithm for designing overcomplete
      dictionaries for sparse representation, 2006.
      Rubinstein, Zibulevsky and Elad, Efficient implementation of the K-SVD
      algorithm using batch orthogonal matching pursuit, 2008 ("approximate").
      Irofti and Dumitrescu, GPU parallel implementation of the approximate K-SVD
      algorithm using OpenCL, 2014 ("parallel").
    """
    signals, dictionary, code = _checked(signals, dictionary, code, method, atoms_axis)
    mask = check_mask(mask, signals)
    if mask is not None and method == "exact":
        raise ValueError("method 'exact' does not take a mask; use method='approximate'.")
    rule = (PlainRule if mask is None else WeightedRule)(method, *_kept(nonnegative, method))
    _, dictionary, code = _sweep(None, signals, dictionary, code, rule, mask, atoms_axis)
    return dictionary, code


def check_nonnegative(nonnegative):
    """Returns whether atoms and whether coefficients must be >= 0."""
    if nonnegative not in NONNEGATIVE:
        raise ValueError(
            f'nonnegative must be True, False, "dictionary" or "code", got {nonnegative!r}.'
        )
    return NONNEGATIVE[nonnegative]


def nonnegative_name(atoms, code):
    """Returns the value of `nonnegative` for atoms, and coefficients, that are >= 0."""
    return next(name for name, kept in NONNEGATIVE.items() if kept == (atoms, code))


def _kept(nonnegative, method):
    kept = check_nonnegative(nonnegative)
    if any(kept) and method != "approximate":
        raise ValueError(
            f"method {method!r} does not take nonnegative atoms or coefficients; use "
            "method='approximate'."
        )
    return kept


def ksvd_statistics(
    dictionary: Float[Array, "m d"], *, method: str
) -> Float[Array, "m d"] | Float[Array, "m d d"]:
    """Returns the empty memory of `ksvd_update`: `(m, d, d)` moments, `(m, d)` if "approximate".

    Args:
      dictionary: `(m, d)` float array.
      method: "exact", "approximate" or "parallel", as for `ksvd_update`.
    """
    dictionary = check_dictionary(dictionary)
    check_choice("method", method, METHODS)
    return PlainRule(method).empty(dictionary)


@entry(static=("method", "nonnegative", "atoms_axis"), like=("statistics", "dictionary", "code"))
def ksvd_update(
    statistics: Float[Array, "m d"] | Float[Array, "m d d"] | None,
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    code: SparseCode,
    *,
    method: str,
    decay: Real[ArrayLike, ""],
    nonnegative: bool | str = False,
    atoms_axis: str | None = None,
) -> tuple[Float[Array, "..."], Float[Array, "m d"], SparseCode]:
    """One sweep in which each atom's moment is that of these signals plus the decayed past.

    statistics = decay x statistics + (moments of these signals): a sum over batches, as in
    `online_update`; in `ema_update` it is a mean, of which the new part is (1 - decay).

    Args:
      statistics: array from `ksvd_statistics` or the last update; None for an empty one.
      decay: share of the past kept, in [0, 1). The others as for `ksvd_sweep`; with `atoms_axis`
        the statistics are those of the device's atoms.

    Returns:
      `(statistics, dictionary, code)`.

    Raises:
      ValueError: if the shapes do not match, `method` is unknown or cannot do what is asked.
    """
    signals, dictionary, code = _checked(signals, dictionary, code, method, atoms_axis)
    check_scalars(decay=decay)
    empty = ksvd_statistics(dictionary, method=method)
    statistics = empty if statistics is None else statistics
    check_statistics(statistics, empty.shape)
    memory = jnp.asarray(decay, dictionary.dtype) * statistics
    rule = PlainRule(method, *_kept(nonnegative, method))
    return _sweep(memory, signals, dictionary, code, rule, atoms_axis=atoms_axis)


def _checked(signals, dictionary, code, method, atoms_axis):
    signals, dictionary = check_signals(signals, dictionary)
    check_choice("method", method, METHODS)
    if atoms_axis is not None and method != "parallel":
        raise ValueError(
            f"method {method!r} does not take atoms_axis, as it updates atom after atom; use "
            "method='parallel'."
        )
    return signals, dictionary, check_code(code, signals)


def _sweep(memory, signals, dictionary, code, rule, mask=None, atoms_axis=None):
    """Returns memory with these signals' moments added, None if it is None, and the results."""
    (m, d), k = dictionary.shape, code.indices.shape[-1]
    if signals.size == 0:
        return memory, dictionary, code
    old, finite = dictionary, is_finite(dictionary)
    flat, weights = signals.reshape(-1, d), None
    if mask is not None:
        flat, weights = hide(flat, mask.reshape(-1, d))
        weights = weights / power_scales(weights.ravel())[0]
    flat, dictionary, flat_code = drop_nonfinite(
        flat, dictionary, SparseCode(*(x.reshape(-1, k) for x in code)), atoms_axis
    )
    # Directions do not depend on the scale; the moments of a memory do.
    scale = power_scales(flat.ravel())[0] if memory is None else 1
    flat, flat_code = flat / scale, flat_code._replace(coefficients=flat_code.coefficients / scale)
    errors = flat - decode(flat_code, dictionary, atoms_axis=atoms_axis)
    if rule.method == "parallel":
        own = own_part(flat_code, m, atoms_axis)
        if weights is None:
            moments = all_moments(errors, dictionary, own, num_shards(atoms_axis))
        else:
            moments = rule.all_moments(errors, weights, dictionary, own)
        memory = moments if memory is None else memory + moments
        new = rule.direction(memory, dictionary)
        new_code = least_squares(flat, new, flat_code, mask=weights, atoms_axis=atoms_axis)
    else:
        pairs = sort_pairs(flat_code, m)
        memory, new, coefficients = one_by_one(memory, errors, weights, dictionary, pairs, rule)
        coefficients = jnp.zeros_like(coefficients).at[pairs.order].set(coefficients)
        new_code = flat_code._replace(coefficients=coefficients.reshape(-1, k))
    new = jnp.where(finite, new, old)
    coefficients = scale * new_code.coefficients.reshape(code.indices.shape)
    return memory, new, SparseCode(code.indices, coefficients)
