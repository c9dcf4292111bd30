"""The loops of `jax.lax`, for code that may run inside `jax.shard_map`.

There a type says over which axes of the mesh an array varies, and the carry of a loop must
not change its type. A carry that starts as a constant varies over no axis, and its successor
over those of the data. These loops start the carry with all axes that it ever has.

`row` and `with_row` index by the counter of a loop. Indexing by `x[i]` and `x.at[i].set` handles
indices that are negative or out of range: more to trace, and several kernels to compile.
"""

import jax
import jax.numpy as jnp
from jax import lax


def fori_loop(lower, upper, body, init):
    """`lax.fori_loop`, its carry of one type inside `shard_map`."""
    start = _match_successor(lambda x: body(jnp.asarray(lower, jnp.int32), x), init)
    return lax.fori_loop(lower, upper, body, start)


def while_loop(condition, body, init):
    """`lax.while_loop`, its carry of one type inside `shard_map`."""
    return lax.while_loop(condition, body, _match_successor(body, init))


def scan(body, init, xs):
    """`lax.scan` over the first axis of `xs`, its carry of one type inside `shard_map`."""

    def step(carry):
        return body(carry, jax.tree.map(_first, xs))[0]

    return lax.scan(body, _match_successor(step, init), xs)


def row(x, i, axis=0):
    """Returns `x[i]`, or that along another axis, for an index known to be in range."""
    return lax.dynamic_index_in_dim(x, i, axis, keepdims=False, allow_negative_indices=False)


def with_row(x, i, new, axis=0):
    """Returns `x.at[i].set(new)`, or that along another axis, for an index known to be in range."""
    return lax.dynamic_update_index_in_dim(x, new, i, axis, allow_negative_indices=False)


def _first(xs):
    return xs[0] if len(xs) else _vary(jnp.zeros(xs.shape[1:], xs.dtype), [xs])


def _match_successor(step, init):
    """Returns `init`, varying over each axis over which a part of it or of `step(init)` does."""
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return init
    parts = jax.tree.leaves((init, step(init)))
    return jax.tree.map(lambda x: _vary(x, parts), init)


def _vary(x, others):
    """Returns `x`, varying over the axes of the others too.

    Of a selection that never takes them; `lax.pcast` needs the names of the axes, and where a
    type holds these changed in several versions of JAX. XLA removes all of it.
    """
    for other in others:
        other = lax.stop_gradient(jnp.sum(jnp.ravel(other)[:1]))
        x = jnp.where(False, other.astype(jnp.result_type(x)), x)
    return x
