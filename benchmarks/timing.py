"""Comparable times: several functions in turn, round after round; medians."""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def installed(package):
    """Returns whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


class Compiled(NamedTuple):
    """A program compiled ahead of its first call.

    Attributes:
      run: calls it on the arrays that it was compiled for, and waits for the result.
      seconds: what tracing and compiling took.
      megabytes: what it allocates beside arguments and result.
    """

    run: Callable[[], Any]
    seconds: float
    megabytes: float


def compiled(function, *arrays):
    """Returns `jax.jit(function)` compiled for arrays."""
    arrays = jax.tree.map(jnp.asarray, arrays)
    start = time.perf_counter()
    program = jax.jit(function).lower(*arrays).compile()
    seconds = time.perf_counter() - start
    megabytes = program.memory_analysis().temp_size_in_bytes / 1e6
    return Compiled(lambda: jax.block_until_ready(program(*arrays)), seconds, megabytes)


def first_call(run):
    """Returns the seconds of a function's first call, compilation included."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def median_times(runs, *, rounds):
    """Returns the median milliseconds of each function, the functions run in turn.

    Each timed call follows another: after a pause threads wake up late and cores run slowly.

    Args:
      runs: name -> function without arguments, already compiled; it returns when its result is
        computed.
      rounds: timed calls of each function; a function that takes longer than a second is called
        once.
    """
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if times[name] and times[name][0] > 1:
                continue
            time.sleep(0.03)  # OpenMP threads of the previous function still spin
            first = first_call(run)
            times[name].append(first if first > 1 else first_call(run))
    return {name: 1e3 * float(np.median(t)) for name, t in times.items()}


def print_table(title, header, rows):
    """Prints a Markdown table below a heading."""
    print(f"\n### {title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def number(x):
    """Returns a number with three significant digits and no exponent, and nothing for None."""
    if x is None:
        return ""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"
