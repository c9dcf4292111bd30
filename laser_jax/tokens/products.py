"""Products of integer matrices in float64: exact below 2^53, and far faster than NumPy's own."""

import numpy as np
from jaxtyping import Float, Integer

# Multiply-adds up to which OpenBLAS takes one thread. With more the product of a few rows waits
# for its threads, up to 50 times its time if other processes are running.
_ONE_THREAD = 2**18


def exact_product(
    rows: Integer[np.ndarray, "n a"], matrix: Float[np.ndarray, "a b"]
) -> Float[np.ndarray, "n b"]:
    """Returns `rows @ matrix`, float64 of integers.

    Args:
      rows: `(n, a)` integers.
      matrix: `(a, b)` float64 of integers; no sum of products may reach 2^53.
    """
    factor = rows.astype(np.float64)
    product = np.empty((len(rows), matrix.shape[1]))
    size = max(1, _ONE_THREAD // max(1, rows.size))
    for start in range(0, matrix.shape[1], size):
        part = slice(start, start + size)
        np.matmul(factor, matrix[:, part], out=product[:, part])
    return product
