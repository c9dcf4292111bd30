"""Gradients of pursuits: the coefficients computed again over a held support.

A coder returns its code without a gradient. `run_with_gradient` attaches one: that of a `replay`,
which computes the coefficients from the atoms that were chosen. It runs block by block, so that
memory stays bounded.

A replay takes signals `(b, d)`, unit atoms `(k, b, d)` in the order of their choice, and whether
each place is used, `(k, b)`; it returns coefficients `(k, b)`.
"""

import functools

import jax
import jax.numpy as jnp

from laser_jax.checks import check_mask, check_signals
from laser_jax.sparse.blocks import map_blocks
from laser_jax.sparse.code import drop_nonfinite
from laser_jax.sparse.coder import run_coder
from laser_jax.sparse.linalg import power_scales, safe_norms
from laser_jax.sparse.masked import apply_weights
from laser_jax.sparse.platforms import default_block_size


def run_with_gradient(code_block, replay, signals, dictionary, *, mask=None, **options):
    """`run_coder`, and the gradient of the function `replay` through the coefficients."""
    signals, dictionary = check_signals(signals, dictionary)
    code = run_coder(code_block, signals, dictionary, mask=mask, **options)
    mask = check_mask(mask, signals)
    signals, *roots = (signals,) if mask is None else apply_weights(signals, mask)[:2]
    coefficients = _coefficients(signals, dictionary, code, tuple(roots), replay)
    return code._replace(coefficients=coefficients)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _coefficients(signals, dictionary, code, roots, replay):
    """Returns `code.coefficients`, with the gradient of `replay` attached."""
    del signals, dictionary, roots, replay
    return code.coefficients


@_coefficients.defjvp
def _coefficients_jvp(replay, primals, tangents):
    signals, dictionary, code, roots = primals

    def replay_all(signals, dictionary):
        return _replay_blocks(signals, dictionary, code, roots, replay)

    _, tangent = jax.jvp(replay_all, (signals, dictionary), tangents[:2])
    return _coefficients(*primals, replay), tangent


@functools.partial(jax.jit, static_argnums=4)
def _replay_blocks(signals, dictionary, code, roots, replay):
    signals, dictionary, code = drop_nonfinite(signals, dictionary, code)
    # Over powers of two, as in the coders.
    scales = power_scales(dictionary)
    floats = code.indices.shape[-1] * (signals.shape[-1] + code.indices.shape[-1])
    # On accelerators too, a gradient stores several times this.
    block_size = default_block_size(floats, most=2**22)

    @jax.checkpoint  # of each block only its signals and support stay in memory
    def replay_rows(dictionary, block):
        rows, indices, coefficients, *roots = block
        atoms = dictionary[indices.T]
        for root in roots:
            rows, atoms = rows * root, atoms * root[None]
        own, scale = power_scales(rows), scales[indices, 0]
        norms = safe_norms(atoms)
        values = replay(rows / own, atoms / norms, coefficients.T != 0) / norms[..., 0]
        return values.T * own / scale

    replay_block = functools.partial(replay_rows, dictionary / scales)
    return map_blocks(replay_block, (signals, *code, *roots), block_size)


def inner_products(signals, atoms, used):
    return jnp.where(used, jnp.sum(atoms * signals[None, :, :], -1), 0)
