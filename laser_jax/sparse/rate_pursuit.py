"""Pursuits that add an atom only where it saves more error than its bits cost.

They lower squared error + bit_price x bits under the tables of a `RateModel`. How many atoms a
signal gets follows from that.

References:
  Neff and Zakhor, Very low bit-rate video coding based on matching pursuits, 1997.
  Chou, Lookabaugh and Gray, Entropy-constrained vector quantization, 1989.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from laser_jax.checks import check_at_least, check_scalars, check_signals, check_sparsity
from laser_jax.sparse.blocks import map_blocks
from laser_jax.sparse.code import SparseCode
from laser_jax.sparse.codebook import check_stages
from laser_jax.sparse.coder import fill_unused
from laser_jax.sparse.entry import entry
from laser_jax.sparse.linalg import matmul, power_scales, rescaled, row_argmax, safe_norms
from laser_jax.sparse.loops import fori_loop, row, while_loop, with_row
from laser_jax.sparse.nearest import nearest_atoms
from laser_jax.sparse.platforms import BlockSize, default_block_size, per_platform
from laser_jax.sparse.quantization import check_scales
from laser_jax.sparse.rate import RateModel, check_model


@entry(static=("sparsity", "block_size"), like="signals")
def rate_distortion_pursuit(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    model: RateModel,
    *,
    sparsity: int,
    step: Real[ArrayLike, ""] | Real[Array, " m"],
    bit_price: Real[ArrayLike, ""],
    block_size: int | None = None,
) -> SparseCode:
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
      ValueError: if shapes do not match, or `sparsity`, `step` or `bit_price` is out of range.
    """
    signals, dictionary = check_signals(signals, dictionary)
    m, d = dictionary.shape
    check_sparsity(sparsity, m)
    check_model(model, m, sparsity)
    check_scalars(bit_price=bit_price)
    step = check_scales("step", step, m)
    if block_size is None:
        size = default_block_size(2 * m + d)
    else:
        check_at_least("block_size", block_size, 1)
        size = BlockSize(block_size, block_size)
    flat = lax.stop_gradient(signals.reshape(math.prod(signals.shape[:-1]), d))
    problem = _Problem.of(lax.stop_gradient(dictionary), model, step, bit_price)
    code = _pursue(flat, problem, sparsity, size)
    return jax.tree.map(lambda x: x.reshape(*signals.shape[:-1], sparsity), code)


def _pursue(signals, problem, sparsity, block_size):
    """Codes signals `(n, d)` in blocks of similar energy: a block takes as long as its longest."""
    (n, d), m = signals.shape, problem.atoms.shape[0]
    order = jnp.argsort(jnp.sum(signals**2, -1))

    def code_rows(block):
        code = _pursue_block(block / problem.scale, problem, sparsity)
        return SparseCode(*(x.T for x in fill_unused(code, sparsity, m)))

    def code_all(size):
        # Blocks of `map_blocks` take every q-th signal; these are runs of the order.
        blocks = -(-n // size)
        padded = jnp.pad(order, (0, blocks * size - n), mode="edge")
        cut = signals[padded].reshape(blocks, size, d)
        code = jax.tree.map(lambda x: x.reshape(blocks * size, sparsity), lax.map(code_rows, cut))
        return jax.tree.map(lambda x: jnp.zeros_like(x[:n]).at[padded].set(x), code)

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
        index, old = row(indices, i), row(levels, i)
        atom, step = (x.at[index].get(mode="clip") for x in (atoms, steps))
        wanted = jnp.sum(residual * atom, -1) + step * old
        # A signal that is done stays as it is: how long others take must not change its code.
        level = jnp.where(active & (old != 0), problem.best_level(wanted, step)[0], old)
        residual = residual - (step * (level - old))[:, None] * atom
        return residual, with_row(levels, i, level), indices, active

    def add_atom(state):
        t, residual, code, taken, active = state
        correlations = matmul(residual, atoms.T)
        index, gain = row_argmax(jnp.where(taken, -jnp.inf, problem.gains(correlations)))
        wanted = jnp.take_along_axis(correlations, index[:, None], 1)[:, 0]
        level, cost = problem.best_level(wanted, steps[index])
        cost += prices.index_bits[index] + prices.count_bits[t + 1] - prices.count_bits[t]
        grows = active & (gain > -jnp.inf) & (cost < 0) & (level != 0)
        level = jnp.where(grows, level, 0)
        indices = with_row(code.indices, t, jnp.where(grows, index, m))
        residual = residual - (steps[index] * level)[:, None] * atoms[index]
        residual, levels, *_ = fori_loop(
            0, t + 1, revisit, (residual, with_row(code.coefficients, t, level), indices, active)
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
def rate_distortion_stages(
    signals: Float[Array, "*batch d"],
    dictionary: Float[Array, "m d"],
    model: RateModel,
    *,
    stages: int,
    bit_price: Real[ArrayLike, ""],
) -> SparseCode:
    """Codes each signal by residual VQ with as many stages as are worth their bits.

    A stage takes the atom of least squared error + bit_price x bits for the residual of the earlier
    stages. Of all lengths, 0 included, the one of least error + bit_price x bits is kept.

    Args:
      signals: `(..., d)` float array.
      dictionary: `(m, d)` float array; stage s uses rows `[s m/k, (s+1) m/k)`.
      model: `RateModel` from `fit_rate_model(..., stages=stages)`.
      stages: k, the most stages.
      bit_price: lambda >= 0, the squared error that a bit must save.

    Returns:
      `SparseCode` of shape `(..., stages)`, coefficients 1 in the stages used and then 0.

    Raises:
      ValueError: if shapes do not match, `stages` does not divide m, or `bit_price` is below 0.
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
    code_rows = _stage_coder(codebooks, count_prices, scale, n)
    return map_blocks(code_rows, signals, default_block_size(size + d))


def _stage_coder(codebooks, count_prices, scale, num_signals):
    """Returns a function that codes a block of signals, given each stage's atoms and prices."""
    stages, size = len(codebooks), codebooks[0][1].size

    def search(atoms, price):
        # Without the least price, which all of them cost: it would only add rounding.
        extra = price - jnp.min(price, initial=jnp.finfo(price.dtype).max)
        return nearest_atoms(atoms, "rows", num_signals, extra)

    searches = [search(*codebook) for codebook in codebooks]

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

    return code_rows
