"""Products, norms, row maxima and blocks of signals: what the coders and updates share."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.loops import scan

# A plain float32 product is TF32 on a GPU and bfloat16 on a TPU.
matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def safe_norms(vectors):
    """Returns the norms `(..., 1)` to divide `(..., d)` vectors by: 1 for zero vectors.

    Gradients at a zero vector are finite too.
    """
    squares = jnp.sum(vectors**2, axis=-1, keepdims=True)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1))


def scaled(vectors):
    """Returns `(..., d)` vectors over their largest entries: no square is lost or overflows."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=-1, keepdims=True, initial=0))
    return vectors / jnp.where(largest > 0, largest, 1)


def each_matrix(function, matrices):
    """Applies a LAPACK-backed `function` to matrices `(..., r, c)`.

    On a CPU one matrix after another. jaxlib spreads a stack over threads that other
    (virtual) CPU devices may hold, and then all wait for ever; and on hosts of some hundred
    cores batched `eigh` corrupts memory (jax issue 39292).
    """
    if jax.default_backend() != "cpu":
        return function(matrices)
    leading = matrices.shape[:-2]
    out = lax.map(function, matrices.reshape(-1, *matrices.shape[-2:]))
    return out.reshape(*leading, *out.shape[1:])


def row_argmax(x, group=32):
    """Returns index and value of each row's maximum of `(b, m)`; the first one in a tie.

    The maximum of each group, the first best group, the first best in it: only maxima and
    minima, as XLA's argmax is ten times slower than those on a CPU.
    """
    b, m = x.shape
    grouped = jnp.pad(x, ((0, 0), (0, -m % group)), constant_values=-jnp.inf)
    grouped = grouped.reshape(b, (m + -m % group) // group, group)
    # Without the barrier XLA computes the groups' maxima anew for each of their two uses.
    maxima = lax.optimization_barrier(grouped.max(-1))
    value = maxima.max(-1)
    best_group = _first(maxima, value)
    group_of_best = jnp.take_along_axis(grouped, best_group[:, None, None], axis=1)[:, 0]
    within = _first(group_of_best, value)
    return jnp.minimum(best_group * group + within, m - 1), value


def _first(x, value):
    """Returns the first place in each row of `x` that holds its `value`; if none, the last."""
    place = lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.min(jnp.where(x == value[:, None], place, x.shape[1] - 1), axis=1)


def default_block_size(floats):
    """Returns how many signals to take together if each needs `floats` numbers at hand.

    4 MB stays in a CPU's cache: 2 to 4 times faster than one big array. On an
    accelerator the bound is memory alone: 1 GB.
    """
    return max(32, (2**20 if jax.default_backend() == "cpu" else 2**28) // floats)


def map_blocks(function, arrays, block_size):
    """Applies `function` to blocks of signals, so that memory stays bounded.

    Args:
      function: pytree of `(b, width)` -> pytree of `(b, ...)`, row by row.
      arrays: pytree of arrays `(..., width)` with equal leading axes.
      block_size: upper bound of b.

    Returns:
      Pytree of `(..., ...)` arrays, what one call on all rows would return.
    """
    leading = jax.tree.leaves(arrays)[0].shape[:-1]
    n = math.prod(leading)
    blocks = _in_blocks(arrays, block_size)

    def restore(x):
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:n].reshape(*leading, *x.shape[2:])

    return jax.tree.map(restore, lax.map(function, blocks))


def sum_blocks(function, arrays, block_size):
    """Returns the sum of `function` over blocks of signals; zero rows must add nothing.

    What rounding loses at each addition is carried along (Kahan).

    Args and function as for `map_blocks`, but it returns a pytree of any shapes.
    """
    blocks = _in_blocks(arrays, block_size)
    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], blocks))
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(sums, block):
        totals, lost = sums
        new = jax.tree.map(jnp.add, function(block), lost)
        return (jax.tree.map(jnp.add, totals, new), jax.tree.map(_lost, totals, new)), None

    return scan(add, (empty, empty), blocks)[0][0]


def _lost(a, b):
    """Returns what rounding takes from a + b, exactly; 0 where the sum is not finite."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    return jnp.where(jnp.isfinite(total), lost, 0)


def _in_blocks(arrays, block_size):
    """`(..., width)` arrays as `(blocks, b, width)`, zero rows at the end.

    Block q holds signals q, q + blocks, q + 2 blocks, ...: signals sharded over
    devices along their first axis stay where they are.
    """
    n = math.prod(jax.tree.leaves(arrays)[0].shape[:-1])
    least = max(1, -(-n // block_size))
    # Where the blocks divide evenly over the devices no signal moves, and none is padded.
    even = (q for q in range(least, 2 * least) if n % (q * jax.device_count()) == 0)
    blocks = next(even, least)
    b = -(-n // blocks)

    def cut(x):
        flat = jnp.pad(x.reshape(n, x.shape[-1]), ((0, b * blocks - n), (0, 0)))
        return flat.reshape(b, blocks, x.shape[-1]).swapaxes(0, 1)

    return jax.tree.map(cut, arrays)
