"""The least time that OMP's operations and bytes take at a device's published rates."""

from typing import NamedTuple

import jax

from benchmarks.problems import size_name
from benchmarks.timing import number, print_table


class Rates(NamedTuple):
    """A device's published rates: TFLOP/s by precision, and TB/s of its memory."""

    operations: dict[str, float]
    bytes: float


# NVIDIA's figures for the SXM modules, without sparsity.
_HOPPER = {"float32": 67, "TF32": 494, "bfloat16": 989}
RATES = {"H100": Rates(_HOPPER, 3.35), "H200": Rates(_HOPPER, 4.8)}


def device_rates():
    """Returns the `Rates` of JAX's first device, None if it is not in the list."""
    kind = jax.devices()[0].device_kind
    return next((rates for name, rates in RATES.items() if name in kind), None)


class Work(NamedTuple):
    """Of all steps together: floating point operations, and bytes through device memory."""

    operations: float
    bytes: float


def designs(d, m, k, n):
    """Returns name -> `Work` of the designs of OMP, in float32.

    Every step reads the residuals and finds the best of `(n, m)` correlations; all make an atom
    orthogonal to those before it, 4 n d k^2 operations in two passes over k / 2 directions.
    """
    scores, basis = n * m * k, n * d * k * k
    chosen = 8 * n * d * k * 4  # residual, atom and direction, read and written
    directions = 2 * basis * 4  # two passes, each reads k / 2 of them twice
    return {
        # Correlations are written by the product and read by the search.
        "products": Work(2 * scores * d + 4 * basis, 8 * scores + directions + chosen),
        # They stay on the chip: the search is the product's epilogue.
        "one fused kernel a step": Work(2 * scores * d + 4 * basis, directions + chosen),
        # k / 2 gathered rows of the Gram matrix a step; correlations are read and written.
        "Gram rows": Work(scores * k + 2 * m * m * d + 2 * basis, 2 * scores * k + 8 * scores),
    }


def floors_table(options):
    """Prints operations, bytes and the floor of each design at each size."""
    rates = device_rates() or RATES["H100"]
    rows = []
    for size in options.sizes:
        made = designs(*size)
        floor = {name: max(times_ms(work, rates)) for name, work in made.items()}
        best = min(floor, key=floor.get)
        for name, work in made.items():
            rows.append([
                size_name(size), name,
                number(work.operations / size[2] / 1e9), number(work.bytes / size[2] / 1e9),
                *map(number, times_ms(work, rates)),
                f"{floor[name]:.2f}{' (least)' if name == best else ''}",
            ])  # fmt: skip
    kind = "this device" if device_rates() else "an H100 (this device is not in the list)"
    print_table(
        f"Floors of OMP in float32 at the published rates of {kind}",
        ["d, m, k, n", "design", "GFLOP a step", "GB a step", "operations, ms", "bytes, ms",
         "floor, ms"],
        rows,
    )  # fmt: skip


def times_ms(work, rates):
    """Returns the milliseconds that operations and bytes take, each alone."""
    seconds = work.operations / rates.operations["float32"], work.bytes / rates.bytes
    return tuple(1e3 * x / 1e12 for x in seconds)
