"""What an accelerator does with all of this, in one command of under eight minutes.

    python -m benchmarks.gpu [--sizes=small] [--minutes=8]

Prints the tables of `benchmarks.sparse` and of `benchmarks.step` at an accelerator's sizes, beside
PyTorch and orthogonal-matching-pursuit-gpu where they are installed, and the floors that
operations and bytes set at the device's published rates. `--sizes=small` runs the same tables at
sizes of seconds, on any backend. A table that would start after the time is over is left out, and
named.
"""

import argparse
import os
import time

import jax

from benchmarks import floors, learning, omp, problems, step
from benchmarks.memory import memory_table
from benchmarks.sparse import Options
from benchmarks.timing import installed, print_table

# Precision -> `jax_default_matmul_precision` and the network's dtype. JAX's default is TF32.
PRECISIONS = {
    "float32": ("highest", "float32"),
    "TF32": (None, "float32"),
    "bfloat16": (None, "bfloat16"),
}
STEPS = {
    "vq": step.ROWS["vq"],
    "plain convolutions, vq": step.ROWS["plain convolutions, vq"],
    "gradient": step.ROWS["gradient"],
    "ksvd, parallel": step.ROWS["ksvd, parallel"],
}
FULL = Options(3, problems.GPU_SIZES, ("random",))
FULL_STEP = step.Options(
    num_hiddens=128, batch_size=64, rounds=3, image_size=256, num_downsamples=3,
    update_every_steps=4,
)  # fmt: skip
SMALL = Options(1, ((16, 64, 4, 512), (64, 128, 16, 256)), ("random",))
SMALL_STEP = step.Options(num_hiddens=8, batch_size=8, rounds=1)


def step_tables(options):
    """Prints the training step in each precision, and its share of the device's rate."""
    shares, device = [], floors.device_rates()
    for precision, (products, dtype) in PRECISIONS.items():
        print(f"\nTraining step in {precision}:")
        with jax.default_matmul_precision(products):
            changes = {
                name: {**change, "model": {**change.get("model", {}), "dtype": dtype}}
                for name, change in STEPS.items()
            }
            rows = step.build_rows(changes, {}, options)
            milliseconds = step.print_rows(rows, {}, options)
        for name, ms in milliseconds.items():
            rate = (rows[name].operations or 0) / ms / 1e9
            peak = device and device.operations[precision]
            share = f"{100 * rate / peak:.0f}%" if peak else ""
            shares.append([f"{name}, {precision}", f"{ms:.1f}", f"{rate:.2f}", share])
    header = ["step", "ms", "TFLOP/s (operations that XLA counts)", "share of the peak"]
    print_table("Arithmetic of a training step", header, shares)


def tables(sizes):
    """Returns name -> function that prints it, the most wanted first."""
    options, step_options = (SMALL, SMALL_STEP) if sizes == "small" else (FULL, FULL_STEP)
    made = {
        "floors": lambda: floors.floors_table(options),
        "sparse coding": lambda: omp.omp_table(options),
        "training step": lambda: step_tables(step_options),
        "K-SVD": lambda: learning.ksvd_table(options),
        "vector quantisation": lambda: learning.vq_table(options),
        "coders": lambda: learning.coders_table(options),
        "memory": lambda: memory_table(options),
    }
    # These have sizes of their own.
    left_out = ("K-SVD", "vector quantisation", "coders", "memory") if sizes == "small" else ()
    return {name: table for name, table in made.items() if name not in left_out}


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--sizes", choices=("full", "small"), default="full")
    parser.add_argument("--minutes", type=float, default=8)
    options = parser.parse_args()
    # PyTorch needs some of the GPU's memory, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    start, late = time.monotonic(), []
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} ({device.device_kind})")
    print(f"PyTorch is {'' if installed('torch') else 'not '}installed.")
    for name, table in tables(options.sizes).items():
        # A table takes up to two minutes.
        if time.monotonic() - start > 60 * (options.minutes - 2):
            late.append(name)
            continue
        table()
    print(f"\n{time.monotonic() - start:.0f} seconds.", end=" ")
    print(f"Left out, as the time was over: {', '.join(late)}." if late else "All tables.")


if __name__ == "__main__":
    main()
