"""Times of functions that run in turn, and the machine they were measured on."""

import os
import time

import jax
import numpy as np


def waiting(function, *args):
    """Returns a function without arguments that calls `function` and waits for its result."""
    return lambda: jax.block_until_ready(function(*args))


def machine():
    """Returns what a stored time depends on besides its own settings."""
    return {
        "backend": jax.default_backend(), "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(), "jax": jax.__version__,
    }  # fmt: skip


def seconds_of(function, *args):
    """Returns the seconds of one call; `function` returns when its result is computed."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def median_times(runs, *, rounds):
    """Returns name -> median milliseconds of functions without arguments, already compiled.

    They run in turn, round after round: a machine that slows down slows all of them.
    """
    times = []
    for _ in range(rounds):
        for run in runs.values():
            time.sleep(0.03)  # OpenMP threads of the previous function still spin
            times.append(seconds_of(run))
    medians = 1e3 * np.median(np.reshape(times, (rounds, len(runs))), 0)
    return dict(zip(runs, medians.tolist(), strict=True))
