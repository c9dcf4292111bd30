"""Checks at the public entries: static facts only, so they cost nothing under jit."""

import jax.numpy as jnp


def check_floats(**arrays):
    """Returns the arrays in one floating type, float32 at least, or raises ValueError.

    Under bfloat16 a residual of 8 bits would decide between atoms.
    """
    arrays = {name: jnp.asarray(x) for name, x in arrays.items()}
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating point, got {x.dtype}.")
    dtype = jnp.promote_types(jnp.result_type(*arrays.values()), jnp.float32)
    return [x.astype(dtype) for x in arrays.values()]


def check_signals(signals, dictionary):
    """Returns signals `(..., d)` and dictionary `(m, d)` in one floating type.

    Raises:
      ValueError: if they do not fit each other.
    """
    signals, dictionary = check_floats(signals=signals, dictionary=dictionary)
    if dictionary.ndim != 2 or dictionary.shape[0] == 0:
        raise ValueError(f"dictionary must have shape (m, d) with m >= 1, got {dictionary.shape}.")
    if signals.ndim == 0 or signals.shape[-1] != dictionary.shape[-1]:
        raise ValueError(
            f"signals {signals.shape} and dictionary {dictionary.shape} must have the same width "
            "(last axis)."
        )
    return signals, dictionary


def check_code(code, signals):
    """Returns the code in the signals' floating type.

    Raises:
      ValueError: unless it has one row of k places for each signal.
    """
    indices, coefficients = code.indices.shape, code.coefficients.shape
    if indices != coefficients or indices[:-1] != signals.shape[:-1]:
        raise ValueError(
            f"code of indices {indices} and coefficients {coefficients} does not fit signals "
            f"{signals.shape}: all but the last axis must agree."
        )
    return code._replace(coefficients=code.coefficients.astype(signals.dtype))


def check_rows(signals, num_atoms):
    """Returns the signals `(..., d)` a dictionary is made from as `(n, d)` floats, n >= 1."""
    (signals,) = check_floats(signals=signals)
    if signals.ndim == 0 or signals.size == 0:
        raise ValueError(f"signals must have shape (..., d) and not be empty, got {signals.shape}.")
    if num_atoms < 1:
        raise ValueError(f"num_atoms must be at least 1, got {num_atoms}.")
    return signals.reshape(-1, signals.shape[-1])


def check_sparsity(sparsity, num_atoms):
    """Raises ValueError unless `1 <= sparsity <= num_atoms`."""
    if not 1 <= sparsity <= num_atoms:
        raise ValueError(f"sparsity must be in [1, {num_atoms}] (num_embeddings), got {sparsity}.")


def check_at_least(what, value, least):
    """Raises ValueError unless `value >= least`."""
    if value < least:
        raise ValueError(f"{what} must be at least {least}, got {value}.")


def check_choice(what, value, choices):
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"unknown {what} {value!r}; choose from {', '.join(sorted(choices))}.")
