"""Times that can be compared: several functions in turn, round after round, medians."""

import os
import time

import jax
import numpy as np


def waiting(function, *args):
    """Returns a function without arguments that calls `function` and waits for what it returns."""
    return lambda: jax.block_until_ready(function(*args))


def machine():
    """Returns what a stored time depends on beside its own settings."""
    return {
        "backend": jax.default_backend(), "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(), "jax": jax.__version__,
    }  # fmt: skip


def median_times(runs, *, rounds):
    """Returns the median milliseconds of each function of a dict, run in turn.

    Args:
      runs: name -> function without arguments, already compiled; it returns when it is done.
      rounds: of all; a function slower than a second is run once.
    """
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if times[name] and times[name][0] > 1:
                continue
            time.sleep(0.03)  # the OpenMP threads of the one before spin for a while
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(t)) for name, t in times.items()}
