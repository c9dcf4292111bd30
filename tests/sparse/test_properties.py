"""For any shape, dtype and size: the right result, or a ValueError that names the error.

One row a function: its arguments for a drawn problem, and what then holds of its result, read in
float64. What squares to nothing in float32 counts as zero.
"""

import inspect
import itertools
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laser_jax import sparse
from laser_jax.sparse import EmaStatistics, OnlineStatistics, RateModel, SparseCode, ksvd

KEY = jax.random.key(0)
TINY = 1e-18
# Leading axes, width, atoms, sparsity; the types of signals, dictionary and coefficients. Each is
# one more program to compile for every function.
CASES = [
    (((), 1, 1, 1), ["float32"] * 3),
    (((0,), 2, 3, 2), ["float32"] * 3),
    (((7,), 2, 3, 3), ["float64"] * 3),
    (((7,), 2, 3, 3), ["bfloat16", "float16", "float16"]),
    (((2, 3), 5, 8, 2), ["float32"] * 3),
]
if os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
    sizes = itertools.product([(), (0,), (7,), (2, 3)], (1, 2, 5), (1, 3, 8))
    shapes = [(*size, k) for size in sizes for k in {1, min(2, size[2]), size[2]}]
    dtypes = itertools.product(["float32", "float64", "float16", "bfloat16"], repeat=3)
    CASES = list(itertools.product(shapes, dtypes))


class Problem(NamedTuple):
    signals: Any
    dictionary: Any
    code: SparseCode  # real coefficients
    levels: SparseCode  # integer ones
    sparsity: int
    seed: int

    def __repr__(self):
        arrays = self.signals, self.dictionary, self.code.coefficients, self.levels.coefficients
        described = (
            f"{type(x).__name__} {x.dtype}{x.shape} {np.max(np.abs(f64(x)), initial=0):.0e}"
            for x in arrays
        )
        return f"Problem({', '.join(described)}, sparsity={self.sparsity}, seed={self.seed})"

    @property
    def m(self):
        return len(self.dictionary)

    @property
    def d(self):
        return self.dictionary.shape[1]

    def pick(self, *choices):
        return choices[self.seed % len(choices)]

    def by_shape(self, *choices):
        """The values that a program is compiled for."""
        return choices[(self.m + self.sparsity) % len(choices)]


@st.composite
def problems(draw):
    (leading, d, m, k), dtypes = draw(st.sampled_from(CASES))
    seed = draw(st.integers(0, 2**32 - 1))
    rng, jax_arrays = np.random.default_rng(seed), draw(st.booleans())

    def floats(*shape, dtype, scale):
        x = scale * rng.normal(size=shape)
        rows = x.reshape(-1, shape[-1])
        fault = draw(st.sampled_from(["none", "zero", "twins"]))
        if fault == "zero":
            rows[:1] = 0
        elif fault == "twins":
            rows[-1:] = rows[:1]
        dtype = jnp.dtype(dtype)
        x = np.clip(x, *(float(s * jnp.finfo(dtype).max) for s in (-1, 1))).astype(dtype)
        return jnp.asarray(x) if jax_arrays else x

    def indices(low, high):
        whole = rng.permuted(np.tile(np.arange(m), (*leading, 1)), axis=-1)[..., :k]
        dtype = draw(st.sampled_from(["int32", "int64", "uint8"]))
        return whole.astype(dtype), rng.integers(low, high, whole.shape)

    scale, scale_of_atoms = (draw(st.sampled_from([1, 1e15, 1e-30, 0])) for _ in range(2))
    places, levels = indices(-4, 5)
    scale_of_code = draw(st.sampled_from([1, 1e-30] if scale_of_atoms > 1 else [1, 1e15]))
    return Problem(
        floats(*leading, d, dtype=dtypes[0], scale=scale),
        floats(m, d, dtype=dtypes[1], scale=scale_of_atoms),
        SparseCode(places, floats(*leading, k, dtype=dtypes[2], scale=scale_of_code)),
        SparseCode(places, levels.astype(draw(st.sampled_from(["int32", "int8"])))),
        k,
        seed,
    )


def f64(x):
    return np.asarray(x).astype(np.float64)


def norms(x):
    return np.linalg.norm(f64(x), axis=-1)


def unit(x):
    size = norms(x)[..., None]
    return f64(x) / np.where(size > 0, size, 1)


def dense(code, m):
    indices, coefficients = (np.reshape(x, (-1, np.shape(x)[-1])) for x in code)
    out = np.zeros((len(indices), m))
    np.add.at(out, (np.arange(len(indices))[:, None], indices.astype(int)), f64(coefficients))
    return out


def rows(x):
    return f64(x).reshape(-1, np.shape(x)[-1])


def errors(p, code, dictionary=None):
    dictionary = p.dictionary if dictionary is None else dictionary
    return rows(p.signals) - dense(code, p.m) @ f64(dictionary)


def close(found, expected, scale=0.0, rtol=1e-4):
    assert np.shape(found) == np.shape(expected)
    scale = np.max(np.abs(expected), initial=scale)
    np.testing.assert_allclose(f64(found), expected, rtol=rtol, atol=rtol * scale + TINY)


def counts_as_zero(dictionary):
    """The dictionary without the atoms that square to nothing."""
    return np.where(norms(dictionary)[:, None] > TINY, f64(dictionary), 0)


def is_code(p, code, dtype="float32"):
    assert code.indices.shape == code.coefficients.shape == (*p.signals.shape[:-1], p.sparsity)
    assert code.indices.dtype == "int32" and code.coefficients.dtype == dtype
    indices = np.sort(code.indices, axis=-1)
    assert np.all(indices >= 0) and np.all(indices < p.m)
    assert np.all(np.diff(indices, axis=-1) > 0)


def lowers_the_error(p, a, code):
    is_code(p, code)
    assert np.all(norms(errors(p, code)) <= 1.001 * norms(rows(p.signals)) + TINY)


def beats_any_atom(p, a, code):
    lowers_the_error(p, a, code)
    size = norms(rows(p.signals))
    best = np.max(np.abs(rows(p.signals) @ unit(counts_as_zero(p.dictionary)).T), -1)
    least = np.sqrt(np.maximum(size**2 - best**2, 0))
    assert np.all(norms(errors(p, code)) <= least + 1e-3 * size + TINY)


def leaves_nothing_along_its_atoms(p, a, code):
    used = dense(code, p.m) != 0
    along = errors(p, code) @ unit(counts_as_zero(p.dictionary)).T
    size = norms(rows(p.signals))[:, None]
    assert np.all(np.abs(along) * used <= 1e-3 * size + TINY)


def is_omp(p, a, code):
    beats_any_atom(p, a, code)
    leaves_nothing_along_its_atoms(p, a, code)


def is_nonnegative(p, a, code):
    lowers_the_error(p, a, code)
    assert np.all(f64(code.coefficients) >= 0)


def has_one_support_a_group(p, a, code):
    for i in range(2):  # both signals are that of the problem
        is_omp(p, a, SparseCode(*(x[..., i, :] for x in code)))


def is_no_worse_than_zeros(p, a, x):
    signals, x = rows(p.signals), rows(x)
    rest = signals - x @ f64(p.dictionary)
    cost = np.sum(rest**2, -1) / 2 + 0.1 * np.sum(np.abs(x), -1)
    assert np.all(cost <= (1 + 1e-3) * np.sum(signals**2, -1) / 2)


def is_top_k(p, a, code):
    is_code(p, code)
    atoms, signals = counts_as_zero(p.dictionary), rows(p.signals)
    products = signals @ unit(atoms).T
    found = dense(code, p.m) * norms(atoms)
    size = norms(signals)
    largest = -np.sort(-np.abs(products), axis=-1)[:, : p.sparsity]
    close(np.sum(np.abs(found), -1), np.sum(largest, -1), 1e15 * np.any(size > 1e12), rtol=1e-3)
    assert np.all((found == 0) | (np.abs(found - products) <= 1e-3 * size[:, None] + TINY))


def are_nearest(signals, atoms, picks):
    distances = norms(signals[:, None] - atoms[None])
    largest = norms(signals) + np.max(norms(atoms))
    excess = distances[np.arange(len(picks)), picks] ** 2 - np.min(distances, -1) ** 2
    assert np.all(excess <= 1e-5 * largest**2 + TINY**2)


def is_nearest_in_stages(p, a, code):
    assert code.indices.shape == (*p.signals.shape[:-1], a.get("stages", 1))
    assert np.all(np.asarray(code.coefficients) == 1)
    left, stages = rows(p.signals), np.split(f64(p.dictionary), a.get("stages", 1))
    for s, atoms in enumerate(stages):
        picks = np.asarray(code.indices)[..., s].ravel() - s * len(atoms)
        are_nearest(left, atoms, picks)
        left = left - atoms[picks]


def is_decoded(p, a, out):
    assert out.shape == p.signals.shape
    scale = np.max(np.abs(dense(p.code, p.m)) @ np.abs(f64(p.dictionary)), initial=0)
    close(rows(out), dense(p.code, p.m) @ f64(p.dictionary), scale, rtol=0.05)


def is_quantized(p, a, out):
    wanted, step = f64(p.code.coefficients), np.broadcast_to(a["scales"], p.m)
    step = step[np.asarray(p.code.indices, int)]
    back = f64(sparse.dequantize_coefficients(out, a["scales"]).coefficients)
    inside = np.clip(wanted, -127 * step, 127 * step)
    assert out.coefficients.dtype == "int32"
    assert np.all(np.abs(back - inside) <= 0.501 * step)


def is_perplexity(p, a, out):
    share = f64(a["counts"]) / (np.sum(f64(a["counts"])) or 1)
    close(out, np.exp(-np.sum(share * np.log(np.where(share > 0, share, 1)))), rtol=1e-3)


def is_ema(p, a, out):
    (counts, sums), atoms = out
    close(counts, 0.5 + 0.5 * usage_of(a["code"], p.m))
    chosen = (dense(a["code"], p.m) != 0).T
    close(sums, 0.5 + 0.5 * chosen @ rows(p.signals), np.max(np.abs(f64(p.signals)), initial=0))
    assert atoms.shape == (p.m, p.d)


def usage_of(code, m):
    return np.sum(dense(code, m) != 0, axis=0)


def atoms_are_units_where_used(p, out, code):
    used = usage_of(code, p.m) > 0
    changed = np.any(f64(out) != f64(jnp.asarray(p.dictionary, "float32")), -1)
    assert not np.any(changed & ~used)
    close(norms(out)[changed], np.ones(np.sum(changed)))


def is_swept(p, a, out):
    dictionary, code = out[-2:]
    atoms_are_units_where_used(p, dictionary, p.code)
    np.testing.assert_array_equal(code.indices, p.code.indices)
    before, after = (np.sum(norms(e)) for e in (errors(p, p.code), errors(p, code, dictionary)))
    if a["method"] != "parallel" or p.sparsity == 1:
        assert after <= 1.001 * before + TINY


def is_empty_memory(p, a, out):
    arrays = jax.tree.leaves(out)
    assert all(len(x) == p.m and x.dtype == "float32" and not np.any(x) for x in arrays)


def is_online(p, a, out):
    (moment, cross), dictionary = out
    x, y = dense(p.code, p.m), rows(p.signals)
    close(moment, x.T @ x)
    close(cross, x.T @ y, np.max(np.abs(x).T @ np.abs(y), initial=0))
    atoms_are_units_where_used(p, dictionary, p.code)


def is_residual_step(p, a, out):
    x, uses = dense(p.code, p.m), usage_of(p.code, p.m)[:, None]
    step = x.T @ errors(p, p.code) / np.maximum(uses, 1)
    sizes = np.abs(x).T @ (np.abs(rows(p.signals)) + np.abs(x) @ np.abs(f64(p.dictionary)))
    close(out, f64(p.dictionary) + 0.5 * step, np.max(sizes, initial=0))


def is_coherence(p, a, out):
    cosines = np.abs(unit(p.dictionary) @ unit(p.dictionary).T)
    close(out, np.max(cosines * (1 - np.eye(p.m)), -1), rtol=1e-3)


def is_mean_square_cosine(p, a, out):
    cosines = unit(p.dictionary) @ unit(p.dictionary).T
    total = np.sum((cosines * (1 - np.eye(p.m))) ** 2)
    close(out, total / (p.m * max(p.m - 1, 1)), 1, rtol=0.02)


def some(coefficients):
    return coefficients if np.size(coefficients) else np.ones((1, 2), np.float32)


def is_mean_l1(p, a, out):
    sizes = np.sum(np.abs(rows(a["coefficients"])), -1)
    close(out, np.mean(sizes), rtol=0.02)


def is_dct(p, a, out):
    size, count = a["patch_size"], a["num_frequencies"]
    assert out.shape == (count**2, size**2)
    close(norms(out), np.ones(count**2))
    np.testing.assert_allclose(np.mean(f64(out)[1:], -1), 0, atol=1e-5)


def are_units(p, a, out):
    assert out.shape == (p.m, p.d)
    close(norms(out), np.ones(p.m))


def are_replaced(p, a, out):
    atoms = f64(p.dictionary)
    cosines = np.abs(unit(counts_as_zero(atoms)) @ unit(counts_as_zero(atoms)).T)
    alone = np.max(cosines * (1 - np.eye(p.m)), -1) < a["max_coherence"] - 1e-3
    keep = alone & (usage_of(p.code, p.m) > 0) & (norms(atoms) > TINY)
    np.testing.assert_array_equal(f64(out)[keep], f64(jnp.asarray(p.dictionary, "float32"))[keep])
    new = np.any(f64(out) != f64(jnp.asarray(p.dictionary, "float32")), -1)
    close(norms(out)[new], np.ones(np.sum(new)))
    assert np.all(new[usage_of(p.code, p.m) == 0])


def is_fit(p, a, out):
    is_code(p, out.code)
    close(norms(out.dictionary), np.ones(p.m))
    squares = np.mean(np.sum(errors(p, out.code, out.dictionary) ** 2, -1))
    energy = np.mean(norms(rows(p.signals)) ** 2)
    assert abs(float(out.errors[-1]) - squares) <= 1e-3 * energy + TINY
    assert squares <= 1.001 * energy + TINY


def is_rate_model(p, a, out):
    fitted, k = "code" in a, p.sparsity
    assert [len(x) for x in out] == [p.m, 4, k + 1]
    orders = [math.lgamma(n + 1) / math.log(2) for n in range(k + 1)]
    # Kraft: an index, a magnitude with its sign, a count.
    for bits, copies in ((out[0], 1), (out[1], 2), (f64(out[2]) + orders, 1)):
        close(copies * np.sum(2 ** -f64(bits)), 1.0)
    if fitted and usage_of(p.levels, p.m).sum() > 1:
        assert np.argmin(out.index_bits) == np.argmax(usage_of(p.levels, p.m))


def bits_of(levels, model):
    index, level, count = (f64(x) for x in model)
    size = np.abs(rows(levels.coefficients)).astype(int)
    each = index[rows(levels.indices).astype(int)] + level[np.clip(size, 1, len(level)) - 1]
    return np.sum(each * (size > 0), -1) + count[np.sum(size > 0, -1)]


def is_worth_its_bits(p, a, out):
    dictionary = f64(p.dictionary) if "stages" in a else a["step"] * unit(p.dictionary)
    assert out.coefficients.dtype == "int32" and np.max(np.abs(out.coefficients), initial=0) <= 4
    squares = np.sum(errors(p, out, dictionary) ** 2, -1)
    energy = norms(rows(p.signals)) ** 2
    cost = squares + a["bit_price"] * bits_of(out, a["model"])
    assert np.all(cost <= energy + a["bit_price"] * float(a["model"].count_bits[0]) + 1e-3 * energy)


def two(p):
    return {"signals": p.signals, "dictionary": p.dictionary}


def coder(p):
    return {
        **two(p), "sparsity": p.sparsity, "block_size": p.by_shape(None, 4),
        "tolerance": p.pick(None, 0.0, np.float16(0)),
    }  # fmt: skip


def grouped(p):
    return {**coder(p), "signals": p.signals[..., None, :].repeat(2, axis=-2)}


def coded(p):
    return {**two(p), "code": p.code}


def single(p):
    ones = np.ones((*p.signals.shape[:-1], 1), np.float32)
    return SparseCode(np.asarray(p.code.indices)[..., :1], ones)


def learner(p):
    return {"signals": p.signals, "num_atoms": p.m, "key": KEY}


def swept(p):
    return {**coded(p), "method": p.by_shape(*ksvd.METHODS)}


def updated(p):
    shape = (p.m, p.d) if swept(p)["method"] == "approximate" else (p.m, p.d, p.d)
    return {**swept(p), "statistics": p.by_shape(None, np.zeros(shape, np.float32)), "decay": 0.5}


def rates(p):
    return sparse.uniform_rate_model(p.m, sparsity=p.sparsity, max_level=4)


def online(p):
    return OnlineStatistics(np.zeros((p.m, p.m)), np.zeros((p.m, p.d)))


def ema(p):
    return EmaStatistics(np.ones(p.m), np.ones((p.m, p.d)))


def rates_of_stages(p):
    return RateModel(np.ones(p.m), np.zeros(1), np.arange(p.m + 1.0))


ROWS = {
    "omp": (lambda p: {**coder(p), "selection": p.by_shape("correlation", "ols")}, is_omp),
    "nonnegative_omp": (coder, is_nonnegative),
    "simultaneous_omp": (grouped, has_one_support_a_group),
    "lasso": (lambda p: {**two(p), "penalty": 0.1, "iterations": 30}, is_no_worse_than_zeros),
    "matching_pursuit": (coder, beats_any_atom),
    "gradient_pursuit": (coder, beats_any_atom),
    "iterative_hard_thresholding": (lambda p: {**coder(p), "iterations": 5}, lowers_the_error),
    "top_k": (coder, is_top_k),
    "nearest_atom": (lambda p: {**two(p), "block_size": p.by_shape(None, 4)}, is_nearest_in_stages),
    "residual_nearest_atoms": (lambda p: {**two(p), "stages": p.m}, is_nearest_in_stages),
    "decode": (lambda p: {"code": p.code, "dictionary": p.dictionary}, is_decoded),
    "to_dense": (
        lambda p: {"code": p.by_shape(p.code, p.levels), "num_atoms": p.m},
        lambda p, a, out: close(rows(out), dense(a["code"], p.m)),
    ),
    "usage": (
        lambda p: {"code": p.by_shape(p.code, p.levels), "num_atoms": p.m},
        lambda p, a, out: close(out, usage_of(a["code"], p.m)),
    ),
    "energy": (
        lambda p: {"code": p.by_shape(p.code, p.levels), "num_atoms": p.m},
        lambda p, a, out: close(out, np.sum(dense(a["code"], p.m) ** 2, axis=0), rtol=1e-3),
    ),
    "perplexity": (
        lambda p: {"counts": p.pick(abs(p.dictionary[:, 0]), np.arange(p.m))},
        is_perplexity,
    ),
    "least_squares": (
        lambda p: {**coded(p), "block_size": p.by_shape(None, 4)},
        leaves_nothing_along_its_atoms,
    ),
    "ema_update": (
        lambda p: {"signals": p.signals, "code": single(p), "statistics": ema(p), "decay": 0.5},
        is_ema,
    ),
    "ksvd_statistics": (
        lambda p: {"dictionary": p.dictionary, "method": p.by_shape(*ksvd.METHODS)},
        is_empty_memory,
    ),
    "online_statistics": (lambda p: {"dictionary": p.dictionary}, is_empty_memory),
    "ksvd_sweep": (swept, is_swept),
    "ksvd_update": (updated, is_swept),
    "online_update": (lambda p: {**coded(p), "statistics": online(p), "decay": 0.5}, is_online),
    "residual_update": (lambda p: {**coded(p), "learning_rate": 0.5}, is_residual_step),
    "coherence": (lambda p: {"dictionary": p.dictionary}, is_coherence),
    "unit_norm": (
        lambda p: {"vectors": p.signals},
        lambda p, a, out: close(out, unit(p.signals), 1, rtol=0.02),
    ),
    "coherence_penalty": (lambda p: {"dictionary": p.dictionary}, is_mean_square_cosine),
    "coefficient_l1": (lambda p: {"coefficients": some(p.code.coefficients)}, is_mean_l1),
    "vq_bits": (
        lambda p: {"num_atoms": p.m, "stages": p.by_shape(1, p.m)},
        lambda p, a, out: close(out, a["stages"] * math.log2(p.m / a["stages"])),
    ),
    "sparse_bits": (
        lambda p: {"num_atoms": p.m, "sparsity": p.sparsity, "coefficient_bits": 8},
        lambda p, a, out: close(2 ** (out - 8 * p.sparsity), math.comb(p.m, p.sparsity)),
    ),
    "dct_dictionary": (
        lambda p: {"patch_size": p.d, "num_frequencies": p.d if p.d == 1 else p.d + p.seed % 4},
        is_dct,
    ),
    "extract_patches": (
        lambda p: {"images": p.dictionary[..., None], "patch_size": min(2, p.m, p.d)},
        lambda p, a, out: close(
            sparse.average_patches(out, (p.m, p.d, 1), patch_size=a["patch_size"])[..., 0],
            f64(p.dictionary),
            np.max(np.abs(f64(p.dictionary))),
        ),
    ),
    "average_patches": (
        lambda p: {
            "patches": p.signals[..., None, :],
            "image_shape": (1, 1, p.d),
            "patch_size": 1,
            "weights": p.by_shape(None, np.full((*p.signals.shape[:-1], 1), 0.5)),
        },
        lambda p, a, out: close(f64(out)[..., 0, 0, :], f64(p.signals), rtol=0.02),
    ),
    "kmeans_init": (
        lambda p: {**learner(p), "iterations": p.by_shape(0, 2)},
        lambda p, a, out: close(
            np.clip(out, np.min(rows(p.signals), 0), np.max(rows(p.signals), 0)), f64(out)
        ),
    ),
    "init_from_signals": (learner, are_units),
    "replace_atoms": (
        lambda p: {
            **coded(p),
            "max_coherence": 0.9,
            "min_count": 0,
            "key": KEY,
            "counts": p.by_shape(
                None, usage_of(p.code, p.m), usage_of(p.code, p.m).astype(np.float16)
            ),
        },
        are_replaced,
    ),
    "fit_dictionary": (
        lambda p: {
            **learner(p),
            "sparsity": p.sparsity,
            "iterations": 2,
            "method": p.by_shape("exact", "approximate", "parallel", "online"),
        },
        is_fit,
    ),
    "quantize_coefficients": (
        lambda p: {"code": p.code, "scales": p.by_shape(0.1, np.full(p.m, 0.1)), "bits": 8},
        is_quantized,
    ),
    "dequantize_coefficients": (
        lambda p: {"code": p.levels, "scales": p.by_shape(3, 0.1, np.arange(1.0, p.m + 1))},
        lambda p, a, out: close(
            dense(out, p.m), dense(p.levels, p.m) * np.broadcast_to(a["scales"], p.m)
        ),
    ),
    "uniform_rate_model": (
        lambda p: {"num_atoms": p.m, "sparsity": p.sparsity, "max_level": 4},
        is_rate_model,
    ),
    "fit_rate_model": (
        lambda p: {"code": p.levels, "num_atoms": p.m, "max_level": 4, "smoothing": 0.5},
        is_rate_model,
    ),
    "code_bits": (
        lambda p: {"code": p.levels, "model": rates(p)},
        lambda p, a, out: close(np.ravel(out), bits_of(p.levels, a["model"])),
    ),
    "rate_distortion_pursuit": (
        lambda p: {
            **two(p),
            "model": rates(p),
            "sparsity": p.sparsity,
            "step": 0.1,
            "bit_price": 0.01,
            "block_size": p.by_shape(None, 4),
        },
        is_worth_its_bits,
    ),
    "rate_distortion_stages": (
        lambda p: {**two(p), "model": rates_of_stages(p), "stages": p.m, "bit_price": 0.01},
        is_worth_its_bits,
    ),
}


def test_every_public_function_has_a_row():
    functions = {x for x in sparse.__all__ if not inspect.isclass(getattr(sparse, x))}
    assert functions == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
@given(p=problems())
def test_results_are_right_and_finite(name, p, refuses):
    arguments, check = ROWS[name]
    function, arguments = getattr(sparse, name), arguments(p)
    if "num_atoms" in arguments and "signals" in arguments and p.signals.size == 0:
        refuses(function, **arguments)  # nothing to learn from
    else:
        answer = function(**arguments)
        assert all(np.all(np.isfinite(f64(x))) for x in jax.tree.leaves(answer))
        check(p, arguments, answer)


@pytest.mark.parametrize("method", ksvd.METHODS)
@given(scale=st.sampled_from([1e-30, 1, 1e30]), seed=st.integers(0, 2**32 - 1))
def test_an_atom_is_learned_whatever_the_scale(method, scale, seed):
    rng = np.random.default_rng(seed)
    signals, old = scale * rng.normal(size=(7, 5)), unit(rng.normal(size=(1, 5)))
    code = SparseCode(np.zeros((7, 1), int), signals @ old.T)
    new, _ = sparse.ksvd_sweep(signals, old, code, method=method)
    if method == "approximate":
        expected = unit(old @ signals.T @ signals)
    else:
        expected = np.linalg.svd(signals)[2][:1]
    assert abs(np.vdot(f64(new), expected)) > 1 - 1e-3


def test_codes_with_k_of_zero_are_zero_everywhere():
    code = SparseCode(np.zeros((2, 0), int), np.zeros((2, 0), np.float32))
    levels = code._replace(coefficients=np.zeros((2, 0), int))
    model = sparse.fit_rate_model(levels, num_atoms=3, max_level=4)
    answers = [
        sparse.decode(code, np.ones((3, 5))),
        sparse.to_dense(code, 3),
        sparse.usage(code, 3),
        sparse.energy(code, 3),
        sparse.code_bits(levels, model),
    ]
    assert [x.shape for x in answers] == [(2, 5), (2, 3), (3,), (3,), (2,)]
    assert not any(x.any() for x in answers)


def test_more_signals_than_a_half_type_has_integers_are_counted():
    for dtype in ("bfloat16", "float16", "int8"):
        code = SparseCode(jnp.zeros((5000, 1), "int32"), jnp.full((5000, 1), 16, dtype))
        assert sparse.usage(code, 1) == 5000 and sparse.energy(code, 1) == 5000 * 256


SCALARS = [np.ones((2, 2)), 1j]
NUMBERS = {
    "sparsity": lambda p: [0, -1, p.m + 1],
    "stages": lambda p: [0, -1, p.m + 1],
    "num_atoms": lambda p: [0, -1],
    "max_level": lambda p: [0, -1],
    "block_size": lambda p: [0, -1],
    "iterations": lambda p: [-1],
    "bits": lambda p: [-1, 1, 33],
    "coefficient_bits": lambda p: [-1],
    "coefficients": lambda p: [*not_floats(np.ones((2, 3))), np.float32(1), np.ones((0, 3))],
    "patch_size": lambda p: [0, -1],
    "num_frequencies": lambda p: [p.d - 1] + [2] * (p.d == 1),
    "method": lambda p: ["svd"],
    "selection": lambda p: ["best"],
    "scales": lambda p: [np.ones((1, 1)), np.ones(0), np.ones(p.m) * 1j, -1, -np.ones(p.m)],
    "counts": lambda p: [np.ones(p.m + 1, bool), np.ones((p.m, 1)), np.ones(p.m) * 1j, 1.0],
    **dict.fromkeys(["learning_rate", "smoothing"], lambda p: [*SCALARS, 0, -1, np.nan]),
    **dict.fromkeys(["step", "bit_price", "tolerance"], lambda p: [*SCALARS, -0.1, np.nan]),
    "decay": lambda p: [*SCALARS, -0.1, 1.0, np.nan],
    "max_coherence": lambda p: [*SCALARS, 0.0, 1.5, np.float32(np.nan)],
    "min_count": lambda p: [*SCALARS, -1, np.nan],
}


def not_floats(x):
    return [np.ones(x.shape, dtype) for dtype in ("int32", "uint8", "bool", "complex64")]


def flaws(name, argument, value, p, arguments):
    """Returns invalid values of an argument."""
    if argument in NUMBERS:
        return NUMBERS[argument](p)
    if argument in ("signals", "vectors"):
        bad = [*not_floats(value), np.float32(1)]
        if {"dictionary", "statistics"} & set(arguments):
            bad.append(np.ones((*value.shape[:-1], p.d + 1)))
        return bad + [value[None]] * ("code" in arguments)
    if argument == "dictionary":
        bad = [*not_floats(value), value[0], value[None], value[:0], value[:, :0]]
        return bad + [np.ones((p.m, p.d + 1))] * ("signals" in arguments)
    if argument == "code":
        i, c = (np.asarray(x) for x in value)
        bad = [(f64(i), c), (i, c != 0), (i, c * 1j), (i[None], c), (1, 1.0)]
        if name in ("fit_rate_model", "code_bits"):
            bad.append((i, f64(c)))
        if "signals" in arguments:
            bad.extend([(i[None], c[None]), (i[..., :0], c[..., :0])])
        return [SparseCode(*map(np.asarray, pair)) for pair in bad]
    if argument in ("statistics", "model"):
        spoil = [lambda x: x[None], lambda x: np.asarray(x) * 1j, lambda x: x[:0]]
        return [jax.tree.map(f, value) for f in spoil if value is not None]
    return []


@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=settings().max_examples // 2)
@given(p=problems())
def test_every_invalid_argument_raises(name, p, refuses):
    arguments = ROWS[name][0](p)
    for argument, value in arguments.items():
        for bad in flaws(name, argument, value, p, arguments):
            refuses(getattr(sparse, name), **{**arguments, argument: bad})
