"""Signals taken in blocks, so that memory stays bounded, and signals under `vmap` as one batch."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.loops import scan
from laser_jax.sparse.platforms import BlockSize, per_platform


def map_blocks(function, arrays, block_size):
    """Applies `function` to blocks of signals, so that memory stays bounded.

    Args:
      function: pytree of `(b, width)` -> pytree of `(b, ...)`, row by row.
      arrays: pytree of arrays `(..., width)` with equal leading axes.
      block_size: upper bound of b, or a `BlockSize`.

    Returns:
      Pytree of `(..., ...)` arrays, what one call on all rows would return.
    """
    leading = jax.tree.leaves(arrays)[0].shape[:-1]
    n = math.prod(leading)

    def restore(x):
        blocks, b, *rest = x.shape
        return x.swapaxes(0, 1).reshape(b * blocks, *rest)[:n].reshape(*leading, *rest)

    def map_all(size):
        return jax.tree.map(restore, lax.map(function, _in_blocks(arrays, size)))

    return _at_block_size(map_all, block_size, n)


def sum_blocks(function, arrays, block_size):
    """Returns the sum of `function` over blocks of signals; zero rows must add nothing.

    The rounding error of each addition is carried along (Kahan).

    Args and function as for `map_blocks`, but it returns a pytree of any shapes.
    """

    def add(sums, block):
        totals, lost = sums
        new = jax.tree.map(jnp.add, function(block), lost)
        return (jax.tree.map(jnp.add, totals, new), jax.tree.map(_lost, totals, new)), None

    def sum_all(size):
        blocks = _in_blocks(arrays, size)
        shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], blocks))
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return scan(add, (empty, empty), blocks)[0][0]

    return _at_block_size(sum_all, block_size, math.prod(jax.tree.leaves(arrays)[0].shape[:-1]))


def one_batch(function, dictionary, signals, *rows):
    """Returns `function(dictionary, signals, *rows)`, of signals under `vmap` that of one batch.

    `vmap` adds its axis to the leading axes of the signals, so that `function` sees how many they
    are and takes them in blocks. Where the axis is one of dictionaries too, `function` is mapped.
    Forward values only: a derivative through this has no reverse mode.

    Args:
      function: row by row; its results have the leading axes of the signals first.
      dictionary: `(m, d)`, or a pytree of what all signals share.
      signals: `(..., d)`.
      rows: each a number, or an array with the leading axes of the signals first.
    """
    call = jax.custom_batching.custom_vmap(function)

    @call.def_vmap
    def _(size, batched, dictionary, signals, *rows):
        if any(jax.tree.leaves(batched[0])):
            axes = jax.tree.map(lambda x: 0 if x else None, batched)
            out = jax.vmap(function, axes, axis_size=size)(dictionary, signals, *rows)
        else:
            leading = signals.shape[batched[1] : -1]

            def widen(x, batched):
                if x.ndim == 0:
                    return x
                x = x if batched else x[None]
                if x.ndim == 1:  # a number for all signals
                    x = x.reshape(-1, *(1 for _ in leading))
                return jnp.broadcast_to(x, (size, *leading, *x.shape[len(leading) + 1 :]))

            out = call(dictionary, *map(widen, (signals, *rows), batched[1:]))
        return out, jax.tree.map(lambda _: True, out)

    return call(dictionary, signals, *rows)


def _at_block_size(function, block_size, num_signals):
    if isinstance(block_size, BlockSize):
        return per_platform(function, *block_size.within(num_signals))
    return function(block_size)


def _in_blocks(arrays, block_size):
    """`(..., width)` arrays as `(blocks, b, width)`, zero rows at the end.

    Block q holds signals q, q + blocks, q + 2 blocks, ...: signals sharded over
    devices along their first axis stay where they are.
    """
    n = math.prod(jax.tree.leaves(arrays)[0].shape[:-1])
    if isinstance(n, int):
        least = max(1, -(-n // block_size))
        # Where the blocks divide evenly over the devices no signal moves, and none is padded.
        even = (q for q in range(least, 2 * least) if n % (q * jax.device_count()) == 0)
        blocks = next(even, least)
        b = -(-n // blocks)
    else:
        b, blocks = block_size, -(-n // block_size)

    def cut(x):
        flat = jnp.pad(x.reshape(n, x.shape[-1]), ((0, b * blocks - n), (0, 0)))
        return flat.reshape(b, blocks, x.shape[-1]).swapaxes(0, 1)

    return jax.tree.map(cut, arrays)


def _lost(a, b):
    """Returns what rounding takes from a + b, exactly; 0 where the sum is not finite."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    return jnp.where(jnp.isfinite(total), lost, 0)
