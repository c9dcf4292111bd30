import math

import jax.numpy as jnp
import numpy as np
import pytest

from laser_jax.metrics import active_atoms, sparse_bits, vq_bits
from laser_jax.sparse import SparseCode


def test_active_atoms_counts_nonzero_coefficients():
    code = SparseCode(jnp.zeros((2, 3), jnp.int32), jnp.array([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(active_atoms(code), [2, 0])


def test_bits_of_a_code():
    assert vq_bits(512) == 9
    assert vq_bits(512, stages=4) == 28
    assert sparse_bits(4, sparsity=4, coefficient_bits=3) == 12
    # 512 choose 8 by its logarithm's own sum.
    support = sum(math.log2((512 - i) / (i + 1)) for i in range(8))
    assert sparse_bits(512, sparsity=8, coefficient_bits=16) == pytest.approx(support + 128)
