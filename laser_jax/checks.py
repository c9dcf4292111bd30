"""Argument checks of public functions. They use static facts, so they cost nothing in jit.

`check_range` alone reads values, those of Python and NumPy numbers.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# Numbers of public functions by their names: whether they are in range, and the range as text.
_RANGES = {
    "tolerance": (lambda x: x >= 0, "at least 0"),
    "min_count": (lambda x: x >= 0, "at least 0"),
    "penalty": (lambda x: ~np.isnan(x), "a number"),
    "max_coherence": (lambda x: (x > 0) & (x <= 1), "in (0, 1]"),
    "decay": (lambda x: (x >= 0) & (x < 1), "in [0, 1)"),
    "learning_rate": (lambda x: x > 0, "above 0"),
    "step": (lambda x: x >= 0, "at least 0"),
    "scales": (lambda x: x >= 0, "at least 0"),
    "bit_price": (lambda x: x >= 0, "at least 0"),
    "smoothing": (lambda x: x > 0, "above 0"),
}


def check_range(name: str, value: object) -> None:
    """Raises ValueError if a number with a range is out of it.

    A JAX array is not read: that would wait for its device. NaN is allowed in an array of
    tolerances: it is that of a signal whose code is NaN then.
    """
    if name not in _RANGES or not isinstance(value, int | float | np.generic | np.ndarray):
        return
    numbers, (in_range, text) = np.asarray(value), _RANGES[name]
    if not is_real(numbers.dtype):
        return
    wrong = ~in_range(numbers)
    if name == "tolerance" and numbers.ndim:
        wrong &= ~np.isnan(numbers)
    if wrong.any():
        raise ValueError(f"{name} must be {text}, got {numbers[wrong].min()}.")


def check_floating(**arrays: ArrayLike) -> None:
    """Raises ValueError unless all arrays are floating point."""
    for name, x in arrays.items():
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise ValueError(f"{name} must be floating point, got {jnp.result_type(x)}.")


def check_floats(**arrays: ArrayLike) -> list[jax.Array]:
    """Returns the arrays in one floating type, at least float32, or raises ValueError.

    In bfloat16, residuals of 8 bits would select the atoms.
    """
    check_floating(**arrays)
    dtype = jnp.promote_types(jnp.result_type(*arrays.values()), jnp.float32)
    return [jnp.asarray(x).astype(dtype) for x in arrays.values()]


def check_pair(*, ndim: int | None = None, **pair: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Returns two arrays of equal shape as floats; see `check_floats`.

    Raises:
      ValueError: if they differ in shape, are empty, or do not have `ndim` axes.
    """
    a, b = check_floats(**pair)
    if a.shape != b.shape:
        raise ValueError(f"{' and '.join(pair)} {a.shape} and {b.shape} must have the same shape.")
    check_not_empty(**pair)
    if ndim not in (None, a.ndim):
        raise ValueError(f"{' and '.join(pair)} must have {ndim} axes, got shape {a.shape}.")
    return a, b


def check_not_empty(**arrays: ArrayLike) -> None:
    """Raises ValueError if an array has no elements, because its mean is undefined."""
    for name, x in arrays.items():
        if 0 in jnp.shape(x):
            raise ValueError(f"{name} must not be empty, got shape {jnp.shape(x)}.")


def check_dictionary(dictionary):
    """Returns a dictionary `(m, d)` as floats, m and d at least 1; see `check_floats`."""
    (dictionary,) = check_floats(dictionary=dictionary)
    if dictionary.ndim != 2 or dictionary.size == 0:
        raise ValueError(
            f"dictionary must have shape (m, d) with m >= 1 and d >= 1, got {dictionary.shape}."
        )
    return dictionary


def check_signals(signals, dictionary):
    """Returns signals `(..., d)` and dictionary `(m, d)` in one floating type.

    Raises:
      ValueError: if their widths differ.
    """
    signals, dictionary = check_floats(signals=signals, dictionary=dictionary)
    check_dictionary(dictionary)
    if signals.ndim == 0 or signals.shape[-1] != dictionary.shape[-1]:
        raise ValueError(
            f"signals {signals.shape} and dictionary {dictionary.shape} must have the same width "
            "(last axis)."
        )
    return signals, dictionary


def check_code(code, signals=None):
    """Returns the code in the floating type of the signals; without signals, at least float32.

    Without signals, integer coefficients stay integers.

    Raises:
      ValueError: unless indices are integers, coefficients are real and of the same shape, and
        there is one row of k >= 1 of them for each signal.
    """
    code = code._replace(**{name: jnp.asarray(x) for name, x in code._asdict().items()})
    (indices, coefficients), kinds = (x.shape for x in code), [x.dtype for x in code]
    if not jnp.issubdtype(kinds[0], jnp.integer) or not is_real(kinds[1]):
        raise ValueError(
            f"a code has integer indices and real coefficients, got {kinds[0]} and {kinds[1]}."
        )
    if indices != coefficients or not indices:
        raise ValueError(
            f"a code has indices and coefficients of one shape (..., k), got {indices} and "
            f"{coefficients}."
        )
    if signals is not None:
        if indices[-1] == 0:
            raise ValueError(f"a code of signals must have k >= 1 entries, got shape {indices}.")
        if indices[:-1] != signals.shape[:-1]:
            raise ValueError(
                f"code {indices} and signals {signals.shape} must agree in all but the last axis."
            )
        return code._replace(coefficients=code.coefficients.astype(signals.dtype))
    if jnp.issubdtype(kinds[1], jnp.integer):
        return code
    return code._replace(coefficients=check_floats(coefficients=code.coefficients)[0])


def check_levels(code):
    """Returns a code with its integer coefficients as int32, or raises ValueError."""
    code = check_code(code)
    if not jnp.issubdtype(code.coefficients.dtype, jnp.integer):
        raise ValueError(f"coefficients must be integers, got {code.coefficients.dtype}.")
    return code._replace(coefficients=code.coefficients.astype(jnp.int32))


def check_weights(name, weights, num_atoms=None):
    """Returns real numbers `(m,)`, one per atom, as floats, or raises ValueError."""
    weights = jnp.asarray(weights)
    if not is_real(weights.dtype):
        raise ValueError(f"{name} must be real numbers, got {weights.dtype}.")
    m = weights.size if num_atoms is None else num_atoms
    if weights.shape != (m,) or m == 0:
        raise ValueError(f"{name} must have shape ({num_atoms or 'm'},), got {weights.shape}.")
    return weights.astype(jnp.promote_types(weights.dtype, jnp.float32))


def check_statistics(statistics, *shapes):
    """Raises ValueError unless the statistics are floating-point arrays of these shapes."""
    arrays = jax.tree.leaves(statistics)
    found = tuple(jnp.shape(x) for x in arrays)
    if found != shapes:
        raise ValueError(f"statistics must have the shapes {shapes}, got {found}.")
    for x in arrays:
        check_floating(statistics=x)


def check_tolerance(tolerance, signals):
    """Returns a tolerance as a scalar or as one number per signal, `(...)`; None means 0.

    Raises:
      ValueError: unless it is real, and a scalar or broadcastable to one number per signal.
    """
    tolerance, leading = jnp.asarray(0 if tolerance is None else tolerance), signals.shape[:-1]
    if not is_real(tolerance.dtype):
        raise ValueError(f"tolerance must be real, got {tolerance.dtype}.")
    try:
        tolerance = tolerance.astype(signals.dtype)
        return jnp.broadcast_to(tolerance, leading) if tolerance.ndim else tolerance
    except ValueError:
        raise ValueError(
            f"tolerance must be a scalar or broadcast to one number per signal, {leading}, got "
            f"shape {tolerance.shape}."
        ) from None


def check_mask(mask, signals):
    """Returns the weights of the signals' entries in their shape and type; None stays None.

    Raises:
      ValueError: unless they are bool or real, and broadcast to the signals' shape.
    """
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if mask.dtype != bool and not is_real(mask.dtype):
        raise ValueError(f"mask must be bool or real weights, got {mask.dtype}.")
    try:
        return jnp.broadcast_to(mask.astype(signals.dtype), signals.shape)
    except ValueError:
        raise ValueError(
            f"mask must broadcast to the shape of the signals, {signals.shape}, got {mask.shape}."
        ) from None


def check_penalty(penalty, dictionary):
    """Returns a penalty, a scalar or `(m,)`, in the dictionary's type, or raises ValueError."""
    penalty, m = jnp.asarray(penalty), dictionary.shape[0]
    if not is_real(penalty.dtype):
        raise ValueError(f"penalty must be real, got {penalty.dtype}.")
    if penalty.shape not in ((), (m,)):
        raise ValueError(f"penalty must be a scalar or have shape ({m},), got {penalty.shape}.")
    return penalty.astype(dictionary.dtype)


def check_scalars(**numbers):
    """Raises ValueError unless all are real scalars."""
    for name, x in numbers.items():
        if jnp.ndim(x) != 0:
            raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(x)}.")
        if not is_real(jnp.result_type(x)):
            raise ValueError(f"{name} must be a real number, got {jnp.result_type(x)}.")


def is_real(dtype):
    """Returns whether a dtype is an integer or floating type, not bool or complex."""
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)


def check_rows(signals, num_atoms):
    """Returns the training signals `(..., d)` of a dictionary as `(n, d)` floats, n >= 1."""
    (signals,) = check_floats(signals=signals)
    if signals.ndim == 0 or signals.size == 0:
        raise ValueError(f"signals must have shape (..., d) and not be empty, got {signals.shape}.")
    if num_atoms < 1:
        raise ValueError(f"num_atoms must be at least 1, got {num_atoms}.")
    return signals.reshape(-1, signals.shape[-1])


def check_sparsity(sparsity, num_atoms, limit="the number of atoms"):
    """Raises ValueError unless `1 <= sparsity <= num_atoms`."""
    if not 1 <= sparsity <= num_atoms:
        raise ValueError(f"sparsity must be in [1, {num_atoms}] ({limit}), got {sparsity}.")


def check_integer(what, value):
    """Returns an integer of any type as one of Python, or raises ValueError."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{what} must be an integer, got {value!r}.") from None


def check_at_least(what, value, least):
    """Raises ValueError unless `value >= least`."""
    if not value >= least:  # NaN too
        raise ValueError(f"{what} must be at least {least}, got {value}.")


def check_choice(what, value, choices):
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}; choose from {', '.join(sorted(choices))}.")
