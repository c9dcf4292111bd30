"""The rate of a sparse code: the bits of its integers.

A `RateModel` gives these bits. It has tables for the atoms, for their coefficients and for the
number of atoms:

    levels = quantize_coefficients(code, step, bits=8)
    model = fit_rate_model(levels, num_atoms=512, max_level=127)
    bits = code_bits(levels, model)                        # (...,) bits of each signal

An entropy coder with these tables needs that many bits, to within a fraction of a percent. The
support is a set, so its order carries nothing: n atoms drawn from the index table cost
log2 n! less. An entropy coder reaches this with sorted indices, each coded under the distribution
of the smallest of the remaining draws.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from laser_jax.checks import (
    check_at_least,
    check_floating,
    check_levels,
    check_scalars,
    check_sparsity,
)
from laser_jax.sparse.code import SparseCode, count
from laser_jax.sparse.codebook import check_stages
from laser_jax.sparse.entry import entry


class RateModel(NamedTuple):
    """The bits of each part of an integer code.

    Attributes:
      index_bits: `(m,)` of an atom.
      level_bits: `(L,)` of a coefficient of 1, ..., L steps, its sign included.
      count_bits: `(k + 1,)` of having 0, ..., k atoms, less the log2 n! of a set.
    """

    index_bits: Float[Array, " m"]
    level_bits: Float[Array, " levels"]
    count_bits: Float[Array, " counts"]


@entry(static=("num_atoms", "sparsity", "max_level"))
def uniform_rate_model(num_atoms: int, *, sparsity: int, max_level: int) -> RateModel:
    """Returns the `RateModel` in which all symbols are equally likely.

    Args:
      num_atoms: m.
      sparsity: k, the most atoms a signal may have.
      max_level: L, the largest integer coefficient.
    """
    check_sparsity(sparsity, num_atoms)
    check_at_least("max_level", max_level, 1)
    return RateModel(
        jnp.full(num_atoms, math.log2(num_atoms), jnp.float32),
        jnp.full(max_level, math.log2(2 * max_level), jnp.float32),
        math.log2(sparsity + 1) - _log2_factorials(sparsity),
    )


@entry(static=("num_atoms", "max_level", "stages"))
def fit_rate_model(
    code: SparseCode,
    *,
    num_atoms: int,
    max_level: int,
    stages: int | None = None,
    smoothing: Real[ArrayLike, ""] = 0.5,
) -> RateModel:
    """Returns the `RateModel` of the symbols in a code.

    `smoothing` is added to the count of every symbol, so that unseen symbols have finite bits.

    Args:
      code: `SparseCode` with integer coefficients, `(..., k)`.
      num_atoms: m.
      max_level: L; larger coefficients are counted as L.
      stages: None for supports that are sets. For residual codes k: stage s chooses among
        rows `[s m/k, (s+1) m/k)`, in order; coefficients are 1 or 0 and carry nothing.
      smoothing: > 0; 0.5 is Krichevsky and Trofimov's.

    Raises:
      ValueError: if coefficients are not integers, or `stages` is not the code's width or does
        not divide `num_atoms`, or `smoothing` is a number that is not positive.
    """
    code = check_levels(code)
    check_at_least("num_atoms", num_atoms, 1)
    check_scalars(smoothing=smoothing)
    check_at_least("max_level", max_level, 1)
    k = code.indices.shape[-1]
    used = code.coefficients != 0
    uses = count(code.indices, num_atoms, where=used)
    count_bits = _bits(count(jnp.sum(used, -1), k + 1), smoothing)
    if stages is not None:
        check_stages(stages, num_atoms)
        if stages != k:
            raise ValueError(f"a code of {stages} stages has width {stages}, got {k}.")
        index_bits = _bits(uses.reshape(stages, -1), smoothing).ravel()
        return RateModel(index_bits, jnp.zeros(1), count_bits)
    magnitudes = jnp.clip(jnp.abs(code.coefficients), 1, max_level) - 1
    levels = count(magnitudes, max_level, where=used)
    return RateModel(
        _bits(uses, smoothing), 1 + _bits(levels, smoothing), count_bits - _log2_factorials(k)
    )


@entry(like="code")
def code_bits(code: SparseCode, model: RateModel) -> Float[Array, "*batch"]:
    """Returns the bits `(...,)` of each signal of an integer `SparseCode` under a `RateModel`.

    The last level stands for all larger ones, as in `fit_rate_model`; an entropy coder sends what
    such a level exceeds it by in addition. An atom that the model does not have has infinite bits.

    Raises:
      ValueError: if coefficients are not integers, or the model is one of fewer places.
    """
    code, model = check_levels(code), RateModel(*map(jnp.asarray, model))
    check_model(model)
    k = code.indices.shape[-1]
    check_at_least("the rate model's count_bits", model.count_bits.shape[0], k + 1)
    used = code.coefficients != 0
    last = model.level_bits.shape[0] - 1
    levels = jnp.clip(jnp.abs(code.coefficients) - 1, 0, last)
    known = (code.indices >= 0) & (code.indices < model.index_bits.shape[0])
    each = model.index_bits[code.indices] + model.level_bits[levels]
    each = jnp.where(known, each, jnp.inf)
    return jnp.sum(jnp.where(used, each, 0), -1) + model.count_bits[jnp.sum(used, -1)]


def check_model(model, num_atoms=None, sparsity=None):
    """Raises ValueError unless the `RateModel` is one of m atoms and at most k of them."""
    check_floating(**model._asdict())
    atoms, levels, counts = (jnp.shape(x) for x in model)
    if not all(len(x) == 1 and x[0] for x in (atoms, levels, counts)):
        raise ValueError(
            f"tables of a rate model are (m,), (L,), (k + 1,), got {atoms, levels, counts}."
        )
    if num_atoms is None:
        return
    if atoms != (num_atoms,) or counts != (sparsity + 1,):
        raise ValueError(
            f"the rate model has index_bits {atoms} and count_bits {counts}; {num_atoms} atoms and "
            f"at most {sparsity} of them a signal need ({num_atoms},) and ({sparsity + 1},)."
        )


def _bits(counts, smoothing):
    """-log2 of the shares that `(..., n)` counts have, each with the smoothing added."""
    counts = counts.astype(jnp.float32) + smoothing  # before, as a float16 ends at 65504
    return jnp.log2(jnp.sum(counts, -1, keepdims=True)) - jnp.log2(counts)


def _log2_factorials(k):
    """log2 n! for n = 0, ..., k."""
    return jnp.asarray([math.lgamma(n + 1) / math.log(2) for n in range(k + 1)], jnp.float32)
