"""Sparse coding in several libraries: time, compile time and memory.

    python -m benchmarks.sparse [--rounds=9] [--sizes=0,2] [--tables=omp --tables=vq]

Prints Markdown tables. Rows of libraries that are not installed are left out, and where JAX
computes on a GPU so are SPAMS and scikit-learn. In each table all rows run in turn, round after
round, after compilation, and times are medians: a machine that slows down slows all of them.
The libraries: SPAMS (C++; it selects atoms by the error they leave), scikit-learn (a loop over
signals in Cython; timed on 1,000 signals and scaled to all), PyTorch (`torch_twins`) and
orthogonal-matching-pursuit-gpu. `--dictionaries=random` needs jax and absl-py alone.
"""

import os
from typing import NamedTuple

import jax
from absl import app, flags

from benchmarks import constraints, fitting, learning, memory, omp, problems, streaming

TABLES = {
    "omp": omp.omp_table,
    "memory": memory.memory_table,
    "coders": learning.coders_table,
    "constraints": constraints.constraints_table,
    "vq": learning.vq_table,
    "ksvd": learning.ksvd_table,
    "fit": fitting.fit_table,
    "streaming": streaming.streaming_table,
}

ROUNDS = flags.DEFINE_integer("rounds", 9, "Rounds; a row slower than a second gets one.")
SIZES = flags.DEFINE_list(
    "sizes", [],
    "Places in the list of sizes, the GPU's after the CPU's; default: those of the backend.",
)  # fmt: skip
DICTIONARIES = flags.DEFINE_multi_enum(
    "dictionaries", list(problems.PROBLEMS), list(problems.PROBLEMS),
    "Source of signals and atoms; photo is left out at widths that are no square patch.",
)  # fmt: skip
CHOSEN = flags.DEFINE_multi_enum("tables", list(TABLES), list(TABLES), "Tables to make.")
MEMORY_OF = flags.DEFINE_string("memory_of", "", "Used by the memory table: one row, one size.")


class Options(NamedTuple):
    """What a table is made of.

    Attributes:
      rounds: of timing.
      sizes: `(d, m, k, n)` each.
      dictionaries: names in `problems.PROBLEMS`.
    """

    rounds: int
    sizes: tuple
    dictionaries: tuple

    @property
    def kind(self):
        """The problem of tables that have only one."""
        return "photo" if "photo" in self.dictionaries else "random"

    @property
    def signals(self):
        """The same in words."""
        return {"photo": "photographs", "random": "random signals"}[self.kind]


def chosen_sizes(places):
    """Returns the sizes at `places`; by default the CPU's, and the GPU's on an accelerator.

    Raises:
      UsageError: if a place is not in the list.
    """
    known = [str(place) for place in range(len(problems.SIZES))]
    if wrong := [place for place in places if place not in known]:
        raise app.UsageError(f"--sizes: {', '.join(wrong)} not in 0 to {known[-1]}.")
    if places:
        return tuple(problems.SIZES[int(place)] for place in places)
    return problems.CPU_SIZES if jax.default_backend() == "cpu" else problems.SIZES


def main(_):
    # PyTorch needs some of the GPU's memory, too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    sizes = chosen_sizes(SIZES.value)
    if MEMORY_OF.value:
        memory.print_memory(MEMORY_OF.value, *sizes)
        return
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} ({device.device_kind}), medians of "
          f"{ROUNDS.value} rounds, float32")  # fmt: skip
    options = Options(ROUNDS.value, sizes, tuple(DICTIONARIES.value))
    for name in CHOSEN.value:
        TABLES[name](options)


if __name__ == "__main__":
    app.run(main)
