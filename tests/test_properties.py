"""Images, losses, metrics and batches of any shape, dtype and size.

Each call returns the right value or raises a ValueError that names the error. See also
`sparse/test_properties.py`.
"""

import itertools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft
from skimage.metrics import structural_similarity

from laser_jax import images, losses, metrics
from laser_jax.data import eval_batches, train_batches
from laser_jax.sparse import SparseCode

FLOATS = ("float32", "float64", "float16", "bfloat16")
SHAPES = [(2, 12, 11, 3), (1, 4, 5, 1), (2, 1, 1, 2), (0, 12, 12, 3), (2, 0, 4, 3), (2, 12, 12, 0)]


class Pair(NamedTuple):
    a: np.ndarray
    b: np.ndarray
    number: int

    def __repr__(self):
        described = f"{type(self.a).__name__} {self.a.dtype}{self.a.shape}"
        return f"Pair({described} up to {np.max(f64(self.a), initial=0):.0e}, {self.number})"

    @property
    def rows(self):
        return self.a.reshape(math.prod(self.a.shape[:-1]), self.a.shape[-1])


@st.composite
def pairs(draw, scales=(1, 1e15, 1e-30, 0)):
    shape, scale = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(scales))
    dtype, number = jnp.dtype(draw(st.sampled_from(FLOATS))), draw(st.integers(0, 2**32 - 1))
    a, b = np.random.default_rng(number).random((2, *shape)) * scale
    a, b = (np.minimum(x, float(jnp.finfo(dtype).max)).astype(dtype) for x in (a, b))
    b = draw(st.sampled_from([a, b]))
    return Pair(*map(jnp.asarray, (a, b)), number) if draw(st.booleans()) else Pair(a, b, number)


def f64(x):
    return np.asarray(x).astype(np.float64)


def dct(x):
    height, width = x.shape[1:3]
    weights = 1 + np.arange(height)[:, None] / height + np.arange(width)[None] / width
    return np.mean(weights[None, :, :, None] * np.abs(fft.dctn(x, axes=(1, 2), norm="ortho")))


def gradient(x):
    return np.mean([np.mean(np.abs(np.diff(x, axis=axis))) for axis in (1, 2)])


def decibels(squared):
    return -10 * np.log10(np.maximum(f64(squared), 1e-10))


def similarity(p):
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return np.array(
        [
            structural_similarity(*map(f64, x), channel_axis=-1, data_range=1, **window)
            for x in zip(p.a, p.b, strict=True)
        ]
    )


def covariances(p):
    """Returns two singular covariances of width 3, and the term of their overlap."""
    factors = np.random.default_rng(p.number).normal(size=(2, 3, 2))
    return [x @ x.T for x in factors], np.linalg.norm(factors[0].T @ factors[1], "nuc")


def frechet(p):
    found, overlap = covariances(p)
    return 12 + sum(np.trace(x) for x in found) - 2 * overlap


def penalty(x):
    size = np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = (x / np.where(size > 0, size, 1)) @ (x / np.where(size > 0, size, 1)).T
    return np.sum((cosines * (1 - np.eye(len(x)))) ** 2) / (len(x) * max(len(x) - 1, 1))


def relu(x):
    return np.mean(np.maximum(x, 0))


def both(p):
    return {"a": p.a, "b": p.b}


def loss(p):
    return {"images": p.a, "reconstruction": p.b}


def loss_of(levels):
    return lambda p: {**loss(p), "levels": levels}


def ImageLoss(**arguments):
    weights = {"l1_weight": 0.5, "mr_dct_weight": 0.5, "mr_grad_weight": 0.5}
    return losses.ImageLoss(**weights, mr_dct_levels=1, mr_grad_levels=1)(**arguments)[0]


def same(p):
    return f64(p.a) - f64(p.b)


def some(p):
    return p.a.size > 0


def pixels(p):
    return p.a[0, ..., :1].size > 0 if len(p.a) else min(p.a.shape[1:]) > 0


def in_unit(p):
    return np.max(f64(p.a), initial=0) <= 1


def side(least):
    return lambda p: some(p) and min(p.a.shape[1:3]) >= least


def always(p):
    return True


# The function's arguments, where they have an answer, and this answer.
ROWS = {
    metrics.psnr: (
        both,
        lambda p: pixels(p) and in_unit(p),
        lambda p: decibels(np.mean(same(p) ** 2, (1, 2, 3))),
    ),
    metrics.squared_error_to_psnr: (lambda p: {"mse": p.a}, always, lambda p: decibels(p.a)),
    metrics.ssim: (
        both,
        lambda p: pixels(p) and in_unit(p) and min(p.a.shape[1:3]) >= 11,
        similarity,
    ),
    metrics.active_atoms: (
        lambda p: {"code": SparseCode(np.zeros(p.a.shape, int), p.a)},
        always,
        lambda p: np.sum(f64(p.a) != 0, -1),
    ),
    metrics.vq_bits: (
        lambda p: {"num_atoms": 12, "stages": p.number % 14 - 1},
        lambda p: p.number % 14 - 1 in (1, 2, 3, 4, 6, 12),
        lambda p: (p.number % 14 - 1) * np.log2(12 / (p.number % 14 - 1)),
    ),
    metrics.sparse_bits: (
        lambda p: {"num_atoms": 5, "sparsity": p.number % 8 - 1, "coefficient_bits": 3},
        lambda p: 1 <= p.number % 8 - 1 <= 5,
        lambda p: np.log2(math.comb(5, p.number % 8 - 1)) + 3 * (p.number % 8 - 1),
    ),
    metrics.frechet_distance: (
        lambda p: dict(
            zip(
                ("mean_a", "covariance_a", "mean_b", "covariance_b"),
                (np.zeros(3), covariances(p)[0][0], 2 * np.ones(3), covariances(p)[0][1]),
                strict=True,
            )
        ),
        always,
        frechet,
    ),
    losses.mse: (loss, some, lambda p: np.mean(same(p) ** 2)),
    losses.l1: (loss, some, lambda p: np.mean(np.abs(same(p)))),
    losses.mr_dct_loss: (loss_of(1), side(2), lambda p: dct(same(p))),
    losses.mr_gradient_loss: (loss_of(1), side(2), lambda p: gradient(same(p))),
    ImageLoss: (
        loss,
        side(2),
        lambda p: (
            np.mean(same(p) ** 2)
            + (np.mean(np.abs(same(p))) + dct(same(p)) + gradient(same(p))) / 2
        ),
    ),
    losses.coefficient_l1: (
        lambda p: {"coefficients": p.a},
        some,
        lambda p: np.mean(np.sum(np.abs(f64(p.a)), -1)),
    ),
    losses.coefficient_rate: (
        lambda p: {"coefficients": p.a, "step": 0.5},
        some,
        lambda p: np.mean(np.sum(np.log2(1 + 2 * np.abs(f64(p.a))), -1)),
    ),
    losses.coherence_penalty: (
        lambda p: {"dictionary": p.rows},
        some,
        lambda p: penalty(f64(p.rows)),
    ),
    losses.discriminator_hinge_loss: (
        lambda p: {"real_logits": p.a, "fake_logits": p.b[:1]},
        some,
        lambda p: (relu(1 - f64(p.a)) + relu(1 + f64(p.b[:1]))) / 2,
    ),
    losses.generator_hinge_loss: (
        lambda p: {"fake_logits": p.a}, some, lambda p: -np.mean(f64(p.a))
    ),
    images.to_network: (lambda p: {"images": p.a}, always, lambda p: 2 * f64(p.a) - 1),
    images.to_unit: (
        lambda p: {"images": p.a}, always, lambda p: np.clip((f64(p.a) + 1) / 2, 0, 1)
    ),
}  # fmt: skip
NEED_WEIGHTS = {"fid", "lpips", "GaussianStatistics"}
named = pytest.mark.parametrize("function", ROWS, ids=lambda f: f.__name__)


def test_every_public_function_has_a_row():
    names = {*metrics.__all__, *losses.__all__, "to_network", "to_unit"} - NEED_WEIGHTS
    assert names == {function.__name__ for function in ROWS}


@named
@given(data=st.data())
def test_result_is_right_and_finite(function, data, refuses):
    # SSIM has fourth powers.
    p = data.draw(pairs((1, 1e-30, 0)) if function is metrics.ssim else pairs())
    arguments, has_answer, expected = ROWS[function]
    if not has_answer(p):
        return refuses(function, **arguments(p))
    answer, expected = function(**arguments(p)), expected(p)
    assert np.shape(answer) == np.shape(expected) and np.all(np.isfinite(f64(answer)))
    keeps_dtype = function is images.to_unit and p.a.dtype.itemsize == 2
    np.testing.assert_allclose(f64(answer), expected, rtol=1e-2 if keeps_dtype else 1e-4, atol=1e-5)


def flaws(name, value, whole):
    if name == "levels":
        return [0, -1, 9]
    if name in ("num_atoms", "coefficient_bits"):
        return [-1]
    if name == "code":
        indices, coefficients = map(np.asarray, value)
        bad = (f64(indices), coefficients), (indices[None], coefficients), (indices, indices * 1j)
        return [SparseCode(*pair) for pair in bad]
    if name in ("sparsity", "stages"):
        return []  # drawn above
    if name == "step":
        return [np.ones(2), 1j]
    bad = [np.ones(np.shape(value), dtype) for dtype in ("int32", "bool", "complex64")]
    if whole is metrics.frechet_distance:
        return [bad[-1], value[None], value[:2], np.float32(1)]
    if whole is metrics.squared_error_to_psnr:
        return bad[1:]
    takes_bytes = whole in (images.to_network, metrics.psnr, metrics.ssim)
    bad.append(np.ones(np.shape(value), "int8" if takes_bytes else "uint8"))
    if whole in (metrics.psnr, metrics.ssim) and len(value):
        bad.extend([value + 2, value - 2, value * np.nan])
    if name == "dictionary":
        bad.extend([value[0], value[None], value[:0], value[:, :0]])
    elif name == "coefficients":
        bad.append(np.float32(1))
    elif whole not in (images.to_network, images.to_unit) and "logits" not in name:
        bad.extend([value[:, :, :1], value[..., :1], value[:1], value.reshape(-1)])
        bad = [x for x in bad if x.shape != value.shape or x.dtype != value.dtype]
    return bad


@named
@settings(max_examples=settings().max_examples // 2)
@given(p=pairs())
def test_invalid_arguments_raise(function, p, refuses):
    make, has_answer, _ = ROWS[function]
    if has_answer(p):
        for name, value in make(p).items():
            for bad in flaws(name, value, function):
                refuses(function, **{**make(p), name: bad})


def test_integer_arguments_work_where_they_are_valid():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(images.to_network(every), every / 127.5 - 1, atol=1e-6)
    assert metrics.squared_error_to_psnr(1) == 0
    with pytest.raises(ValueError, match="l1_weight must be finite, got inf"):
        losses.ImageLoss(l1_weight=math.inf)


def source_of(count, sides):
    pixels = np.random.default_rng(count).integers(0, 256, (count, *sides, 3))
    return pixels.astype(np.uint8)


SOURCES = st.builds(source_of, st.sampled_from([5, 1, 0]), st.sampled_from([(1, 1), (4, 3)]))
SIZES = st.sampled_from([(1, 1, 0), (2, 1, 0), (2, 2, 1), (4, 2, 0), (6, 3, 2)]).map(
    lambda x: dict(zip(("batch_size", "process_count", "process_index"), x, strict=True))
)
TRAINING = {
    "seed": st.sampled_from([0, 3, 2**32 - 1]),
    "start_step": st.sampled_from([0, 3]),
    "num_threads": st.sampled_from([0, 1]),
    "crop_padding": st.sampled_from([0, 1, 5]),
    "flip": st.booleans(),
}
FLAWS = [{"batch_size": x} for x in (-2, 0, 3)]
FLAWS += [{"process_count": x} for x in (-1, 0, 3)] + [{"process_index": x} for x in (-1, 2)]
FLAWS_OF_TRAINING = [{"seed": -1}, {"seed": 2**32}, {"start_step": -1}, {"num_threads": -1}]
FLAWS_OF_TRAINING += [{"crop_padding": -1}, {"batch_size": 8}]


@given(source=SOURCES, sizes=SIZES)
def test_evaluation_batches_give_each_process_its_images(source, sizes):
    local, first = sizes["batch_size"] // sizes["process_count"], sizes["process_index"]
    places = np.arange(-(-len(source) // sizes["batch_size"]) * sizes["batch_size"])
    mine = places.reshape(-1, sizes["process_count"], local)[:, first]
    batches = list(eval_batches(source, **sizes))
    assert len(batches) == len(mine)
    for (batch, mask), rows in zip(batches, mine, strict=True):
        assert batch.shape == (local, *source.shape[1:]) and batch.dtype == np.uint8
        np.testing.assert_array_equal(mask, rows < len(source))
        np.testing.assert_array_equal(batch[mask], source[rows[mask]])
        assert not batch[~mask].any()


@given(source=SOURCES, sizes=SIZES, rest=st.fixed_dictionaries(TRAINING))
def test_training_batches_hold_images_of_the_source(source, sizes, rest, refuses):
    if sizes["batch_size"] > len(source):
        return refuses(train_batches, source, **sizes, **rest)
    batch = next(train_batches(source, **sizes, **rest))
    local = sizes["batch_size"] // sizes["process_count"]
    assert batch.shape == (local, *source.shape[1:]) and batch.dtype == np.uint8
    if not rest["crop_padding"]:
        mirrored = source[:, :, ::-1] if rest["flip"] else source
        known = {x.tobytes() for x in itertools.chain(source, mirrored)}
        assert {x.tobytes() for x in batch} <= known


def test_numbers_out_of_range_raise(refuses):
    source, fits = source_of(5, (4, 4)), {"batch_size": 2, "process_count": 2, "process_index": 1}
    for flaw in FLAWS:
        refuses(eval_batches, source, **{**fits, **flaw})
    for flaw in FLAWS + FLAWS_OF_TRAINING:
        refuses(train_batches, source, **{"seed": 0, **fits, **flaw})


@pytest.mark.parametrize("make", [train_batches, eval_batches], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype, shape", [("float32", (4, 4, 3)), ("int32", (4, 4, 3)),
    ("bool", (4, 4, 3)), ("uint8", (4, 4)), ("uint8", (1, 1, 3))])  # fmt: skip
def test_image_of_another_shape_or_dtype_is_named(make, dtype, shape, refuses):
    images = [*np.zeros((3, 4, 4, 3), np.uint8), np.ones(shape, dtype)]
    seed = {"seed": 0} if make is train_batches else {}
    refuses(lambda: next(make(images, batch_size=4, **seed)))
