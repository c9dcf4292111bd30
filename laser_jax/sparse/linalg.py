"""Products, norms, row maxima and blocks of signals: what the coders and updates share."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.loops import fori_loop, scan, with_row

# A plain float32 product is TF32 on a GPU and bfloat16 on a TPU.
matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def safe_norms(vectors):
    """Returns the norms `(..., 1)` to divide `(..., d)` vectors by: 1 for zero vectors.

    Gradients at a zero vector are finite too.
    """
    wide = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    scales = power_scales(wide)
    squares = jnp.sum((wide / scales) ** 2, axis=-1, keepdims=True)
    norms = scales * jnp.sqrt(jnp.where(squares > 0, squares, 1))
    return norms.astype(vectors.dtype)


def power_scales(vectors, axis=-1):
    """Returns a power of two near each vector's largest entry, of which squares are safe.

    Along `axis`, which is kept. Division by it is exact. 1 where the largest entry is 0 or not
    finite.
    """
    info = jnp.finfo(vectors.dtype)
    largest = largest_entries(vectors, axis)
    inside = jnp.clip(largest, float(info.tiny), float(info.max) / 4)
    power = lax.reduce_precision(inside, info.nexp, 0)
    return jnp.where((largest >= float(info.tiny)) & jnp.isfinite(largest), power, 1)


def largest_entries(vectors, axis=-1):
    """Returns the size of each vector's largest entry, along `axis`, which is kept."""
    return jnp.max(jnp.abs(lax.stop_gradient(vectors)), axis, keepdims=True, initial=0)


def within_range(x):
    """Returns numbers with infinity replaced by the largest float, because it would lead to NaN."""
    largest = float(jnp.finfo(x.dtype).max)
    return jnp.clip(x, -largest, largest)


def scaled(vectors):
    """Returns `(..., d)` vectors over `power_scales`: no square is lost or overflows."""
    return vectors / power_scales(vectors)


def rescaled(squares, scale):
    """Returns squares of numbers as those of the numbers over a scale."""
    # XLA would divide by the square of the scale, which may be 0 or infinite.
    return lax.optimization_barrier(squares / scale) / scale


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


def row_argmax(x, group=32, *, of_size=False):
    """Returns index and value of each row's maximum of `(b, m)`; the first one in a tie.

    With `of_size` of the numbers' absolute values, which are not written anywhere.

    The maximum of each group, the first best group, the first best in it: only maxima and
    minima, as XLA's argmax is ten times slower than those on a CPU.
    """
    b, m = x.shape
    lowest = 0 if of_size else -jnp.inf
    grouped = jnp.pad(x, ((0, 0), (0, -m % group)), constant_values=lowest)
    grouped = grouped.reshape(b, (m + -m % group) // group, group)
    maxima = jnp.maximum(grouped.max(-1), -grouped.min(-1)) if of_size else grouped.max(-1)
    # Without the barrier XLA recomputes the groups' maxima for each of their two uses.
    maxima = lax.optimization_barrier(maxima)
    value = maxima.max(-1)
    best_group = _first(maxima, value)
    group_of_best = jnp.take_along_axis(grouped, best_group[:, None, None], axis=1)[:, 0]
    within = _first(jnp.abs(group_of_best) if of_size else group_of_best, value)
    return jnp.minimum(best_group * group + within, m - 1), value


def row_largest(x, count, group=32):
    """Returns the indices `(count, b)` of the largest sizes in each row of `(b, m)`, in order.

    Equal ones in the order of their places; NaN is taken for 0. After each only the maximum of
    its group is found again, and sizes are computed where they are compared: writing all of them
    takes longer.
    """
    b, m = x.shape
    grouped = jnp.pad(x, ((0, 0), (0, -m % group)))
    grouped = grouped.reshape(b, (m + -m % group) // group, group)
    padding = jnp.arange(m + -m % group).reshape(grouped.shape[1:]) >= m
    maxima = jnp.nan_to_num(jnp.maximum(grouped.max(-1), -grouped.min(-1)))
    maxima = lax.optimization_barrier(maxima)
    groups = lax.broadcasted_iota(jnp.int32, maxima.shape, 1)
    places = lax.broadcasted_iota(jnp.int32, (b, group), 1)

    def take(i, state):
        indices, maxima, last = state
        value = maxima.max(-1)
        best = _first(maxima, value)
        members, last_place = (
            jnp.take_along_axis(x, best.reshape(b, *(1 for _ in x.shape[1:])), axis=1)[:, 0]
            for x in (grouped, last)
        )
        members = jnp.where(padding[best], -1, jnp.nan_to_num(jnp.abs(members)))
        # What the group has left is smaller than `value`, or equal to it and in a later place.
        later = places > last_place[:, None]
        equal = (members == value[:, None]) & later
        place = jnp.min(jnp.where(equal, places, group - 1), axis=1)
        left = (members < value[:, None]) | (equal & (places != place[:, None]))
        found = groups == best[:, None]
        new = jnp.max(jnp.where(left, members, -jnp.inf), axis=1)
        same = new == value  # the next of this group must come after this place
        return (
            with_row(indices, i, best * group + place),
            jnp.where(found, new[:, None], maxima),
            jnp.where(found, jnp.where(same, place, -1)[:, None], last),
        )

    start = jnp.zeros((count, b), jnp.int32), maxima, jnp.full_like(groups, -1)
    return fori_loop(0, count, take, start)[0]


def _first(x, value):
    """Returns the first place in each row of `x` that holds its `value`; if none, the last."""
    place = lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.min(jnp.where(x == value[:, None], place, x.shape[1] - 1), axis=1)


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


def _at_block_size(function, block_size, num_signals):
    if isinstance(block_size, BlockSize):
        return per_platform(function, *block_size.within(num_signals))
    return function(block_size)


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
