"""What a code uses and what it costs."""

import math

import jax.numpy as jnp


def active_atoms(code):
    """Returns the nonzero coefficients of each signal, `(...,)`.

    Divided by the number of atoms this is the code's `sparsity`.
    """
    return jnp.sum(code.coefficients != 0, axis=-1)


def vq_bits(num_atoms, *, stages=1):
    """Returns the bits of a VQ code: an index of m atoms, or k of m / k for residual VQ."""
    return stages * math.log2(num_atoms / stages)


def sparse_bits(num_atoms, *, sparsity, coefficient_bits):
    """Returns the bits of a fixed-length sparse code: log2 C(m, k) + k coefficients.

    The support is a set: its order carries nothing.

    Args:
      num_atoms: m.
      sparsity: k.
      coefficient_bits: precision of a coefficient.
    """
    return math.log2(math.comb(num_atoms, sparsity)) + sparsity * coefficient_bits
