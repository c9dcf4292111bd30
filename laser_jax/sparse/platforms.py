"""What differs between CPUs and accelerators, by the platform a program is compiled for.

A form that is chosen because XLA's CPU backend is slow at the other goes through `per_platform`.
`atoms.choose_form` says in which forms the coders see signals and atoms.
"""

from typing import NamedTuple

from jax import lax


def per_platform(function, cpu, other):
    """Returns `function(cpu)` where the program is compiled for a CPU, else `function(other)`.

    By the platform of the arrays or of an export, not by the default one. Both are traced, one
    is compiled.
    """
    if cpu == other:
        return function(cpu)
    return lax.platform_dependent(cpu=lambda: function(cpu), default=lambda: function(other))


class BlockSize(NamedTuple):
    """How many signals to take together on a CPU and on others."""

    cpu: int
    other: int

    def within(self, num_signals):
        """Returns it cut to the number of signals; all of them if their number is symbolic."""
        if not isinstance(num_signals, int):
            return BlockSize(num_signals, num_signals)
        return BlockSize(*(min(size, max(num_signals, 1)) for size in self))


def default_block_size(floats, *, least=32, most=2**28):
    """Returns the `BlockSize` if each signal needs `floats` numbers of memory.

    4 MB stays in a CPU's cache: 2 to 4 times faster than one big array. On an
    accelerator the bound is memory alone: `most` numbers, 1 GB.
    """
    return BlockSize(*(max(least, numbers // floats) for numbers in (2**20, most)))


def each_matrix(function, matrices):
    """Applies a LAPACK-backed `function` to matrices `(..., r, c)`.

    On a CPU one matrix after another. jaxlib spreads a stack over threads that other
    (virtual) CPU devices may hold, which deadlocks; and on hosts of some hundred
    cores batched `eigh` corrupts memory (jax issue 39292).
    """

    def one_by_one():
        leading = matrices.shape[:-2]
        out = lax.map(function, matrices.reshape(-1, *matrices.shape[-2:]))
        return out.reshape(*leading, *out.shape[1:])

    return per_platform(lambda apply: apply(), one_by_one, lambda: function(matrices))
