"""The rate of a sparse code, and pursuits that spend atoms where they are worth their bits.

A code that is stored has integers for coefficients: `quantize_coefficients`. What it costs says
a `RateModel`, tables of bits for which atoms, for their coefficients and for how many there are:

    levels = quantize_coefficients(code, step, bits=8)
    model = fit_rate_model(levels, num_atoms=512, max_level=127)
    bits = code_bits(levels, model)                        # (...,) bits of each signal

An entropy coder with these tables needs that many bits, to within a fraction of a percent. The
support is a set, so its order carries nothing: n atoms drawn from the index table cost
log2 n! less. That is reached by coding the indices sorted, each by the distribution of the
least of the draws that are left.

    levels = rate_distortion_pursuit(
        signals, dictionary, model, sparsity=16, step=step, bit_price=bit_price
    )

then lowers, greedily, squared error + bit_price x bits: `bit_price` is lambda, the squared error
that a bit must save. How many atoms a signal gets follows from that. `rate_distortion_stages`
gives residual vector quantisation the same freedom.

References:
  Neff and Zakhor, Very low bit-rate video coding based on matching pursuits, 1997.
  Chou, Lookabaugh and Gray, Entropy-constrained vector quantization, 1989.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from laser_jax.checks import (
    check_at_least,
    check_code,
    check_floating,
    check_levels,
    check_scalars,
    check_signals,
    check_sparsity,
    is_real,
)
from laser_jax.sparse.code import SparseCode, count
from laser_jax.sparse.codebook import check_stages
from laser_jax.sparse.coder import fill_unused
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import (
    BlockSize,
    default_block_size,
    map_blocks,
    matmul,
    per_platform,
    power_scales,
    rescaled,
    row_argmax,
    safe_norms,
)
from laser_jax.sparse.loops import fori_loop, while_loop
from laser_jax.sparse.nearest import nearest_atoms


@entry(static=("bits",), like="code")
def quantize_coefficients(code, scales, *, bits):
    """Returns the code with integer coefficients, the nearest multiples of the scales.

    Args:
      code: `SparseCode` of shape `(..., k)`.
      scales: step between two values, > 0: a scalar, or `(m,)` for each atom its own. A
        coefficient of an atom of scale 0 becomes 0.
      bits: of a coefficient, at least 2; values beyond `2^(bits - 1) - 1` steps are clipped.

    Returns:
      `SparseCode` with int32 coefficients. One that becomes 0 is an unused place.

    Raises:
      ValueError: if `bits` is not in [2, 32] or `scales` has more than one axis.
    """
    if not 2 <= bits <= 32:
        raise ValueError(f"bits must be in [2, 32], got {bits}.")
    code = check_code(code)
    largest = 2 ** (bits - 1) - 1
    scales = _scales_of(code, scales)
    levels = jnp.round(code.coefficients / jnp.where(scales == 0, 1, scales))
    levels = jnp.where(scales == 0, 0, levels)
    # 2^31 - 1 has no float32: the largest float below it, or the cast would wrap.
    largest = largest if largest < 2**24 else 2.0 ** (bits - 1) * (1 - 2.0**-24)
    return code._replace(coefficients=jnp.clip(levels, -largest, largest).astype(jnp.int32))


@entry(like="code")
def dequantize_coefficients(code, scales):
    """Returns the code that integer coefficients stand for; the inverse up to rounding.

    Args:
      code: `SparseCode` with integer coefficients.
      scales: as for `quantize_coefficients`.
    """
    code = check_code(code)
    return code._replace(coefficients=code.coefficients * _scales_of(code, scales))


def _scales_of(code, scales):
    scales = _check_scales("scales", scales)
    return scales if scales.ndim == 0 else scales[code.indices]


def _check_scales(name, scales, num_atoms=None):
    """Returns a scalar or `(m,)` numbers as floats, or raises ValueError."""
    dtype = jnp.result_type(scales)
    if not is_real(dtype):
        raise ValueError(f"{name} must be real numbers, got {dtype}.")
    scales = jnp.asarray(scales, jnp.promote_types(dtype, jnp.float32))
    m = scales.size if num_atoms is None else num_atoms
    if scales.shape not in ((), (m,)) or scales.size == 0:
        raise ValueError(
            f"{name} must be a scalar or have shape ({num_atoms or 'm'},), got {scales.shape}."
        )
    return scales


class RateModel(NamedTuple):
    """The bits of each part of an integer code.

    Attributes:
      index_bits: `(m,)` of an atom.
      level_bits: `(L,)` of a coefficient of 1, ..., L steps, its sign included.
      count_bits: `(k + 1,)` of having 0, ..., k atoms, less the log2 n! of a set.
    """

    index_bits: jax.Array
    level_bits: jax.Array
    count_bits: jax.Array


@entry(static=("num_atoms", "sparsity", "max_level"))
def uniform_rate_model(num_atoms, *, sparsity, max_level):
    """Returns the `RateModel` before anything is known: all symbols alike.

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
def fit_rate_model(code, *, num_atoms, max_level, stages=None, smoothing=0.5):
    """Returns the `RateModel` of the symbols in a code.

    Every symbol counts `smoothing` more than it was seen, so one never seen has finite bits.

    Args:
      code: `SparseCode` with integer coefficients, `(..., k)`.
      num_atoms: m.
      max_level: L; larger coefficients are counted as L.
      stages: None for supports that are sets. For residual codes k: stage s chooses among
        rows `[s m/k, (s+1) m/k)`, in order; coefficients are 1 or 0 and carry nothing.
      smoothing: > 0; 0.5 is Krichevsky and Trofimov's.

    Raises:
      ValueError: if coefficients are not integers, or `stages` is not the code's width or does
        not divide `num_atoms`.
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
def code_bits(code, model):
    """Returns the bits `(...,)` of each signal of an integer `SparseCode` under a `RateModel`.

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
    each = model.index_bits[code.indices] + model.level_bits[levels]
    return jnp.sum(jnp.where(used, each, 0), -1) + model.count_bits[jnp.sum(used, -1)]


@entry(static=("sparsity", "block_size"), like="signals")
def rate_distortion_pursuit(
    signals, dictionary, model, *, sparsity, step, bit_price, block_size=None
):
    """Codes each signal with the atoms that are worth their bits.

    Greedily lowers ||y - step q D||^2 + bit_price x bits(q) over integer coefficients q: the
    atom that lowers the error most for its index's bits is added, then each coefficient
    in turn moves to the better of the two integers beside its optimum; a signal is done when
    no atom is worth its bits.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array, atoms of any norm. Zero atoms are never used.
      model: `RateModel` of m atoms, `sparsity + 1` counts.
      sparsity: k, the most atoms a signal may have. Static.
      step: of the coefficients, > 0: a scalar, or `(m,)` for each atom its own.
      bit_price: lambda >= 0, the squared error that a bit must save.
      block_size: signals coded together; None chooses it by the number of atoms.

    Returns:
      `SparseCode` of shape `(..., k)` with int32 coefficients, at most `len(level_bits)` in
      magnitude, for `decode(dequantize_coefficients(code, step), dictionary)`.

    Raises:
      ValueError: if shapes do not fit each other or `sparsity` is out of range.
    """
    signals, dictionary = check_signals(signals, dictionary)
    m, d = dictionary.shape
    check_sparsity(sparsity, m)
    check_model(model, m, sparsity)
    check_scalars(bit_price=bit_price)
    step = _check_scales("step", step, m)
    if block_size is None:
        block_size = default_block_size(2 * m + d)
    else:
        check_at_least("block_size", block_size, 1)
        block_size = BlockSize(block_size, block_size)
    n = math.prod(signals.shape[:-1])
    flat = lax.stop_gradient(signals.reshape(n, d))
    # A block takes as long as its longest code: signals of like energy go together.
    order = jnp.argsort(jnp.sum(flat**2, -1))
    problem = _Problem.of(lax.stop_gradient(dictionary), model, step, bit_price)

    def code_rows(block):
        code = _pursue_block(block / problem.scale, problem, sparsity)
        return SparseCode(*(x.T for x in fill_unused(code, sparsity, m)))

    def code_all(size):
        # map_blocks deals signals out like cards; dealt this way, blocks are runs of the order.
        blocks = -(-n // size)
        padded = jnp.pad(order, (0, blocks * size - n), mode="edge")
        cut = flat[padded].reshape(blocks, size, d)
        code = jax.tree.map(lambda x: x.reshape(blocks * size, sparsity), lax.map(code_rows, cut))
        code = jax.tree.map(lambda x: jnp.zeros_like(x[:n]).at[padded].set(x), code)
        return jax.tree.map(lambda x: x.reshape(*signals.shape[:-1], sparsity), code)

    return per_platform(code_all, *block_size.within(n))


class _Problem(NamedTuple):
    """Unit atoms, the step of each one's coefficients, and what each symbol costs.

    Steps and prices are for signals over a scale, so that no square is lost or overflows.
    """

    scale: jax.Array  # a power of two near the largest step
    atoms: jax.Array  # (m, d)
    steps: jax.Array  # (m,)
    usable: jax.Array  # (m,) bool
    prices: RateModel

    @classmethod
    def of(cls, dictionary, model, step, bit_price):
        norms = safe_norms(dictionary)
        steps = (step * norms[:, 0]).astype(dictionary.dtype)
        usable = jnp.any(dictionary != 0, -1) & jnp.isfinite(steps) & (steps > 0)
        scale = power_scales(jnp.where(usable, steps, 0))[0]
        prices = (rescaled(jnp.asarray(bit_price * x, dictionary.dtype), scale) for x in model)
        # An atom that is not usable is multiplied by 0 all the same: a NaN would spoil the sum.
        atoms = jnp.where(usable[:, None], dictionary / norms, 0)
        return cls(scale, atoms, jnp.where(usable, steps / scale, 1), usable, RateModel(*prices))

    def best_level(self, target, step):
        """Returns the better of the levels beside a wanted coefficient `(b,)`, and its cost."""
        prices = self.prices.level_bits
        size = jnp.abs(target) / step
        low = jnp.clip(jnp.floor(size), 1, prices.size)
        levels = jnp.stack([low, jnp.minimum(low + 1, prices.size)])
        error = (levels - 2 * size[None, :]) * levels * (step**2)[None, :]
        costs = error + prices[levels.astype(jnp.int32) - 1]
        first = costs[0] <= costs[1]
        level = jnp.where(first, levels[0], levels[1]) * jnp.sign(target)
        return level, jnp.where(first, costs[0], costs[1])

    def gains(self, correlations):
        """Returns what each atom lowers the error by less its index's price, `(b, m)`."""
        target, steps = jnp.abs(correlations), self.steps[None, :]
        size = jnp.clip(target, steps, self.prices.level_bits.size * steps)
        return (2 * target - size) * size - self.prices.index_bits[None, :]


class _Pursuit(NamedTuple):
    places: jax.Array  # filled so far, the same for all that are not done
    residual: jax.Array  # (b, d)
    code: SparseCode  # (k, b), integers as floats
    taken: jax.Array  # (b, m), atoms that may not be chosen any more
    active: jax.Array  # (b,)


def _pursue_block(signals, problem, sparsity):
    _, atoms, steps, _, prices = problem
    m = atoms.shape[0]

    def revisit(i, state):
        residual, levels, indices, active = state
        atom, step = (x.at[indices[i]].get(mode="clip") for x in (atoms, steps))
        wanted = jnp.sum(residual * atom, -1) + step * levels[i]
        # A signal that is done stays as it is: how long others take must not change its code.
        level = jnp.where(active & (levels[i] != 0), problem.best_level(wanted, step)[0], levels[i])
        residual = residual - (step * (level - levels[i]))[:, None] * atom
        return residual, levels.at[i].set(level), indices, active

    def add_atom(state):
        t, residual, code, taken, active = state
        correlations = matmul(residual, atoms.T)
        index, gain = row_argmax(jnp.where(taken, -jnp.inf, problem.gains(correlations)))
        wanted = jnp.take_along_axis(correlations, index[:, None], 1)[:, 0]
        level, cost = problem.best_level(wanted, steps[index])
        cost += prices.index_bits[index] + prices.count_bits[t + 1] - prices.count_bits[t]
        grows = active & (gain > -jnp.inf) & (cost < 0) & (level != 0)
        level = jnp.where(grows, level, 0)
        indices = code.indices.at[t].set(jnp.where(grows, index, m))
        residual = residual - (steps[index] * level)[:, None] * atoms[index]
        residual, levels, *_ = fori_loop(
            0, t + 1, revisit, (residual, code.coefficients.at[t].set(level), indices, active)
        )
        taken |= lax.broadcasted_iota(jnp.int32, taken.shape, 1) == index[:, None]
        return _Pursuit(t + 1, residual, SparseCode(indices, levels), taken, grows)

    def unfinished(state):
        return (state.places < sparsity) & jnp.any(state.active)

    # Made of the signals, these vary over the devices of a `shard_map` as they do.
    none = jnp.zeros_like(signals, shape=(sparsity, signals.shape[0]))
    start = _Pursuit(
        jnp.int32(0),
        signals,
        SparseCode(none.astype(jnp.int32) + m, none),
        jnp.zeros_like(signals[:, :1], bool) | ~problem.usable[None, :],
        jnp.ones_like(signals[:, 0], bool),
    )
    code = while_loop(unfinished, add_atom, start).code
    return code._replace(coefficients=code.coefficients.astype(jnp.int32))


@entry(static=("stages",), like="signals")
def rate_distortion_stages(signals, dictionary, model, *, stages, bit_price):
    """Codes each signal by residual vector quantisation with as many stages as are worth it.

    A stage takes the atom of least squared error + bit_price x bits of what the stages before
    left; of all lengths, none included, the one of least error + bit_price x bits is kept.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array; stage s uses rows `[s m/k, (s+1) m/k)`.
      model: `RateModel` from `fit_rate_model(..., stages=stages)`.
      stages: k, the most stages.
      bit_price: lambda >= 0, the squared error that a bit must save.

    Returns:
      `SparseCode` of shape `(..., stages)`, coefficients 1 in the stages used and then 0.

    Raises:
      ValueError: if shapes do not fit each other or `stages` does not divide m.
    """
    signals, dictionary = check_signals(signals, dictionary)
    m, d = dictionary.shape
    check_stages(stages, m)
    check_model(model, m, stages)
    check_scalars(bit_price=bit_price)
    # An atom that is not finite is never taken.
    finite = jnp.all(jnp.isfinite(dictionary), -1)
    prices = jnp.where(finite, bit_price * model.index_bits, jnp.inf).astype(dictionary.dtype)
    dictionary = jnp.where(finite[:, None], dictionary, 0)
    # Over a power of two near the largest entry: no square is lost or overflows.
    scale = power_scales(dictionary.ravel())[0]
    dictionary = dictionary / scale
    prices, count_prices = rescaled(prices, scale), rescaled(bit_price * model.count_bits, scale)
    n, size = math.prod(signals.shape[:-1]), m // stages
    codebooks = [
        (dictionary[start : start + size], prices[start : start + size])
        for start in range(0, m, size)
    ]
    searches = [
        # Less what each of them costs, which would only be rounding.
        nearest_atoms(atoms, "rows", n, price - jnp.min(price, initial=jnp.finfo(price.dtype).max))
        for atoms, price in codebooks
    ]

    def code_rows(signals):
        residual, spent = signals / scale, jnp.zeros(signals.shape[0], signals.dtype)
        best = jnp.sum(residual**2, -1) + count_prices[0]
        length, indices = jnp.zeros(signals.shape[0], jnp.int32), []
        for stage, (search, (atoms, price)) in enumerate(zip(searches, codebooks, strict=True)):
            index = search(residual)
            residual = residual - atoms[index]
            spent = spent + price[index]
            cost = jnp.sum(residual**2, -1) + spent + count_prices[stage + 1]
            length = jnp.where(cost < best, stage + 1, length)
            best = jnp.minimum(cost, best)
            indices.append(index + stage * size)
        used = jnp.arange(stages)[None, :] < length[:, None]
        return SparseCode(jnp.stack(indices, -1), used.astype(jnp.int32))

    return map_blocks(code_rows, signals, default_block_size(size + d))


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
