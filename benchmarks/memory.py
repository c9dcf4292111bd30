"""Memory that one call of OMP takes at its peak, each in a process of its own."""

import subprocess
import sys

import jax

from benchmarks import libraries
from benchmarks.problems import SIZES, random_problem, size_name
from benchmarks.timing import print_table


def memory_table(options):
    """Prints peaks at every size: resident memory on a CPU, device memory on a GPU."""
    rows, names = [], list(libraries.omp_rows())
    for size in options.sizes:
        row = [size_name(size)]
        for name in names:
            command = [sys.executable, "-m", "benchmarks.sparse"]
            command += [f"--memory_of={name}", f"--sizes={SIZES.index(size)}"]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            row.append(run.stdout.strip().splitlines()[-1])
        rows.append(row)
    title = "Memory a call takes at its peak, MB (a process of its own each)"
    print_table(title, ["d, m, k, n", *names], rows)


def print_memory(name, size):
    """Prints by how many MB a call raises the peak of memory.

    On a CPU it needs Linux. On a GPU the peak of ours includes what compilation took.
    """
    d, m, k, n = size
    signals, atoms = random_problem(d, m, n)
    run, _ = libraries.omp_rows()[name](signals, atoms, k)
    if jax.default_backend() != "gpu":
        before, peak = resident("VmRSS"), lambda: resident("VmHWM")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the peak
    elif name in libraries.LIBRARIES:
        import torch

        torch.cuda.reset_peak_memory_stats()
        before, peak = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        before, peak = _jax_bytes("bytes_in_use"), lambda: _jax_bytes("peak_bytes_in_use")
    run()
    print(f"{(peak() - before) / 1e6:.0f}")


def _jax_bytes(key):
    return jax.devices()[0].memory_stats()[key]


def resident(key):
    with open("/proc/self/status") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith(key))
