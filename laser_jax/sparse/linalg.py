"""Products, norms, scales and row maxima: what the coders and updates share."""

import functools

import jax.numpy as jnp
from jax import lax

from laser_jax.sparse.loops import fori_loop, with_row

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
