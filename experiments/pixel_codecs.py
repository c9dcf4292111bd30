"""Codecs of pixel patches: learning their dictionaries at a rate, and their bits.

A codec turns signals into an integer `SparseCode` and a `RateModel` into bits. All learn from the
same signals: residual vector quantisation and sparse codes, with a fixed number of atoms
or with as many as are worth their bits.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from laser_jax.sparse import (
    RateModel,
    SparseCode,
    code_bits,
    decode,
    dequantize_coefficients,
    fit_dictionary,
    fit_rate_model,
    init_from_signals,
    omp,
    online_statistics,
    online_update,
    quantize_coefficients,
    rate_distortion_pursuit,
    rate_distortion_stages,
    replace_atoms,
    residual_nearest_atoms,
    uniform_rate_model,
)
from laser_jax.sparse.codebook import stage_kmeans

LEVEL_BITS = 9
MAX_LEVEL = 2 ** (LEVEL_BITS - 1) - 1
# Of the step of coefficients, in units of the square root of what a bit must save: between 2 and
# 4 the curves lie within 0.1 dB of each other.
STEP_RATIO = 2.5


class Codec(NamedTuple):
    """A learned codec.

    Attributes:
      dictionary: `(m, d)`.
      model: `RateModel` of the training signals' codes.
      step: of the coefficients; 1 for residual codes.
      encode: signals `(n, d)` -> integer `SparseCode`.
    """

    dictionary: jax.Array
    model: RateModel
    step: float
    encode: object

    def approximate(self, code):
        """Returns the signals that an integer code stands for."""
        return decode(dequantize_coefficients(code, self.step), self.dictionary)

    def bits(self, code):
        """Returns the bits of each signal."""
        return code_bits(code, self.model)


def learn_sparse(signals, *, num_atoms, sparsity, bit_price, iterations, seed):
    """Returns a codec with as many atoms a signal as are worth their bits.

    The dictionary learns from the quantised codes at the very rate it is used at: each
    iteration codes at `bit_price` under the tables of the one before.
    """
    step, key = STEP_RATIO * bit_price**0.5, jax.random.key(seed)
    model = _first_model(num_atoms, sparsity)
    pursue = functools.partial(
        rate_distortion_pursuit, sparsity=sparsity, step=step, bit_price=bit_price
    )
    dictionary = init_from_signals(signals, num_atoms, key=key)
    for iteration in range(iterations):
        code = pursue(signals, dictionary, model)
        real = dequantize_coefficients(code, step)
        _, dictionary = online_update(
            online_statistics(dictionary), signals, dictionary, real, decay=0.0
        )
        model = fit_rate_model(code, num_atoms=num_atoms, max_level=MAX_LEVEL)
        if iteration < iterations - 2:  # new atoms need two iterations to find their use
            residual = signals - decode(real, dictionary)
            key, now = jax.random.split(key)
            replaced = replace_atoms(
                residual, dictionary, real, max_coherence=0.98, key=now, min_count=1
            )
            new = jnp.any(replaced != dictionary, axis=-1)
            dictionary = replaced
            # The table has no data on atoms that were never used.
            fresh = jnp.where(new, jnp.log2(num_atoms), model.index_bits)
            model = model._replace(index_bits=fresh)
    return Codec(dictionary, model, step, lambda y: pursue(y, dictionary, model))


def learn_sparse_unrated(signals, *, num_atoms, sparsity, bit_price, iterations, seed):
    """As `learn_sparse`, but the dictionary is learned with four atoms a signal: only the tables
    know the rate."""
    fit = fit_dictionary(
        signals, num_atoms=num_atoms, sparsity=4, method="online",
        iterations=iterations, key=jax.random.key(seed),
    )  # fmt: skip
    step = STEP_RATIO * bit_price**0.5
    pursue = functools.partial(
        rate_distortion_pursuit, sparsity=sparsity, step=step, bit_price=bit_price
    )
    model = _first_model(num_atoms, sparsity)
    for _ in range(3):
        code = pursue(signals, fit.dictionary, model)
        model = fit_rate_model(code, num_atoms=num_atoms, max_level=MAX_LEVEL)
    return Codec(fit.dictionary, model, step, lambda y: pursue(y, fit.dictionary, model))


def _first_model(num_atoms, sparsity):
    """A `RateModel` to begin with: small coefficients are frequent, and any number of atoms."""
    model = uniform_rate_model(num_atoms, sparsity=sparsity, max_level=MAX_LEVEL)
    # Under even tables nearly no atom would be worth its bits.
    return model._replace(
        level_bits=1 + 2 * jnp.log2(jnp.arange(1, MAX_LEVEL + 1)), count_bits=0 * model.count_bits
    )


def learn_fixed_sparse(signals, *, num_atoms, sparsity, step, iterations, seed):
    """Returns a codec of `sparsity` atoms a signal, their coefficients rounded to a step."""
    fit = fit_dictionary(
        signals, num_atoms=num_atoms, sparsity=sparsity, method="online",
        iterations=iterations, key=jax.random.key(seed),
    )  # fmt: skip

    def encode(y):
        code = omp(y, fit.dictionary, sparsity=sparsity)
        return quantize_coefficients(code, step, bits=LEVEL_BITS)

    model = fit_rate_model(encode(signals), num_atoms=num_atoms, max_level=MAX_LEVEL)
    return Codec(fit.dictionary, model, step, encode)


def learn_stages(signals, *, start, stages, bit_price, iterations):
    """Returns a residual codec with as many stages as are worth their bits.

    Begins with the dictionary `start` of `stage_kmeans`; then stages are chosen at `bit_price`,
    and each entry moves to the mean of what it had to approximate.
    """
    dictionary, num_atoms = start, len(start)
    model = _no_stage_yet(num_atoms, stages)
    choose = functools.partial(rate_distortion_stages, stages=stages, bit_price=bit_price)
    for _ in range(iterations):
        code = choose(signals, dictionary, model)
        dictionary = _stage_means(signals, dictionary, code)
        model = fit_rate_model(code, num_atoms=num_atoms, max_level=1, stages=stages)
    return Codec(dictionary, model, 1.0, lambda y: choose(y, dictionary, model))


def learn_fixed_stages(signals, *, num_atoms, stages, iterations, seed):
    """Returns a residual codec that always uses every stage; `stages=1` is vector quantisation."""
    key = jax.random.key(seed)
    dictionary = stage_kmeans(signals, num_atoms, stages=stages, key=key, iterations=iterations)

    def encode(y):
        code = residual_nearest_atoms(y, dictionary, stages=stages)
        return code._replace(coefficients=code.coefficients.astype(jnp.int32))

    model = fit_rate_model(encode(signals), num_atoms=num_atoms, max_level=1, stages=stages)
    return Codec(dictionary, model, 1.0, encode)


def _no_stage_yet(num_atoms, stages):
    none = SparseCode(jnp.zeros((1, stages), jnp.int32), jnp.zeros((1, stages), jnp.int32))
    return fit_rate_model(none, num_atoms=num_atoms, max_level=1, stages=stages)


@jax.jit
def _stage_means(signals, dictionary, code):
    """Stage by stage, each entry becomes the mean of the residuals that chose it."""
    (m, d), stages = dictionary.shape, code.indices.shape[-1]
    residual, codebooks = signals, []
    for stage, codebook in enumerate(jnp.split(dictionary, stages)):
        index = code.indices[:, stage] - stage * (m // stages)
        used = code.coefficients[:, stage].astype(signals.dtype)[:, None]
        counts = jnp.zeros((m // stages, 1)).at[index].add(used)
        sums = jnp.zeros((m // stages, d)).at[index].add(used * residual)
        codebook = jnp.where(counts > 0, sums / jnp.maximum(counts, 1), codebook)
        residual = residual - used * codebook[index]
        codebooks.append(codebook)
    return jnp.concatenate(codebooks)
