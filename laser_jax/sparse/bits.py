"""The bits of fixed-length codes."""

import math

from laser_jax.checks import check_at_least, check_sparsity
from laser_jax.sparse.codebook import check_stages
from laser_jax.sparse.entry import static_value


def vq_bits(num_atoms: int, *, stages: int = 1) -> float:
    """Returns the bits of a VQ code: an index of m atoms, or k of m / k for residual VQ.

    Raises:
      ValueError: if there is no atom or `stages` does not divide m.
    """
    num_atoms, stages = static_value("num_atoms", num_atoms), static_value("stages", stages)
    check_at_least("num_atoms", num_atoms, 1)
    check_stages(stages, num_atoms)
    return stages * math.log2(num_atoms / stages)


def sparse_bits(num_atoms: int, *, sparsity: int, coefficient_bits: float) -> float:
    """Returns the bits of a fixed-length sparse code: log2 C(m, k) + k coefficients.

    The support is a set: its order carries nothing.

    Args:
      num_atoms: m.
      sparsity: k.
      coefficient_bits: precision of a coefficient.

    Raises:
      ValueError: if a number is out of range.
    """
    num_atoms, sparsity = static_value("num_atoms", num_atoms), static_value("sparsity", sparsity)
    check_sparsity(sparsity, num_atoms)
    check_at_least("coefficient_bits", coefficient_bits, 0)
    return math.log2(math.comb(num_atoms, sparsity)) + sparsity * coefficient_bits
