import functools

import numpy as np
import pytest

from laser_jax import pixels
from laser_jax.data.photo_patches import read_photograph
from laser_jax.pixels import learning, model, patches, prediction, search, thumbnail
from laser_jax.pixels.codec import is_pixel_file
from laser_jax.sparse import RateModel
from laser_jax.tokens import RangeDecoder, RangeEncoder, Run, read_container, write_container
from laser_jax.tokens.context_model import waves
from tests.tokens.test_files import mutations

PLAN = learning.Plan(
    atoms=32,
    sparsity=4,
    iterations=2,
    passes=1,
    knots=((20, 60), (60, 95)),
    windows=((48, 32), (32, 32)),
    context_steps=0,
)


def smooth(seed, height, width, channels=3):
    """A random picture with little detail."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width, :1][:2]
    phase, speed = rng.uniform(0, 6, size=(2, channels)), rng.uniform(0.05, 0.3, size=(2, channels))
    waves = np.sin(speed[0] * y + phase[0]) + np.cos(speed[1] * x + phase[1])
    return np.uint8(np.clip(127 + 50 * waves + rng.normal(scale=3, size=waves.shape), 0, 255))


@functools.lru_cache(maxsize=1)
def small_arrays():
    return learning.learn([smooth(i, 60, 70) for i in range(2)], PLAN)


@functools.lru_cache(maxsize=1)
def small_model():
    return model.PixelModel(small_arrays())


def psnr(a, b):
    return -10 * np.log10(np.mean((np.float64(a) - b) ** 2) / 255**2)


@pytest.mark.parametrize(
    "shape",
    [
        (37, 50, 3),
        (8, 8, 3),
        (1, 3, 3),
        (21, 33, 1),
        (9, 8, 3),
        (16, 5, 1),
        (200, 1, 3),
        (5, 70, 1),
    ],
)
def test_picture_of_any_size_comes_back(shape):
    image = smooth(5, *shape)
    (data,) = pixels.compress([image], 95, model=small_model())
    (back,) = pixels.decompress([data], model=small_model())
    assert back.dtype == np.uint8 and back.shape == shape and psnr(image, back) > 24
    (again,) = pixels.compress([np.float64(image) / 255], 95, model=small_model())
    assert again == data


def test_decoder_shows_what_the_encoder_predicts_from():
    image, setting = smooth(6, 40, 48), small_model().setting(60)
    step = setting.thumbnail_step
    means = thumbnail.means_of(thumbnail.shrink(image, step), step)
    seen = []
    put = prediction.Canvas.put

    class Recorded(prediction.Canvas):
        def put(self, rows, columns, found):
            put(self, rows, columns, found)
            seen.append(self.pixels.copy())

    original, patches.Canvas = patches.Canvas, Recorded
    try:
        tokens = patches.encode_patches(image, means, setting)
    finally:
        patches.Canvas = original
    decoded = patches.decode_patches(tokens, means, setting)
    np.testing.assert_array_equal(seen[-1], decoded)


def test_shipped_model_spends_more_bits_at_higher_quality():
    image = read_photograph("chelsea")[100:148, 100:164]
    files = [pixels.compress([image], quality)[0] for quality in (1, 30, 75, 100)]
    sizes = [len(data) for data in files]
    quality = [psnr(image, back) for back in pixels.decompress(files)]
    assert sizes == sorted(sizes) and sizes[3] > 5 * sizes[0]
    assert quality == sorted(quality) and quality[3] > 36
    assert all(map(is_pixel_file, files)) and not is_pixel_file(b"\x89PNG")


def test_shipped_model_is_small():
    assert model.PATH.stat().st_size <= 3_000_000


def test_same_photographs_give_the_same_model():
    again = learning.learn([smooth(i, 60, 70) for i in range(2)], PLAN)
    for name, array in small_arrays().items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)


def test_model_comes_back_from_its_file(tmp_path):
    for name in ("a", "b"):
        model.write_model(tmp_path / name, small_arrays())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert model.read_model(tmp_path / "a").fingerprint == small_model().fingerprint


def test_prediction_reads_only_decoded_pixels():
    h, w = 4, 5
    canvas = prediction.Canvas(np.zeros((h, w, 3), np.int64))
    y, x = prediction._ROWS, prediction._COLUMNS
    seen = []
    for rows, columns in waves(h, w):
        for row, column in zip(rows, columns, strict=True):
            at = 8 * row + y, 8 * column + x
            inside = (at[0] >= 0) & (at[1] >= 0) & (at[1] < 8 * w)
            assert (canvas.pixels[at[0][inside], at[1][inside]] >= 0).all()
        canvas.put(rows, columns, np.full((len(rows), prediction.WIDTH), 16 * 9))
        seen += zip(rows, columns, strict=True)
    assert len(seen) == len(set(seen)) == h * w and (canvas.pixels == 9).all()


def test_prediction_is_the_integer_product():
    rng = np.random.default_rng(0)
    canvas = prediction.Canvas(
        rng.integers(4000, size=(3, 3, 3)), rng.integers(256, size=(24, 24, 3))
    )
    at = np.array([0, 1, 2]), np.array([2, 1, 0])
    matrix = rng.integers(-300, 300, size=(prediction.INPUTS, prediction.WIDTH))
    found, middle = canvas.inputs(*at)
    expected = np.clip((found @ matrix >> 12) + np.tile(middle, 64), 0, 4080)
    np.testing.assert_array_equal(canvas.predict(*at, matrix.astype(np.float64)), expected)


def test_thumbnail_comes_back_with_escapes():
    rng = np.random.default_rng(0)
    values = rng.integers(-20, 20, size=(5, 7, 3))
    values[2, 3] = 900, -900, 3
    counts = np.ones((3, thumbnail.CONTEXTS, thumbnail.ESCAPE + 1), np.int64)
    encoder = RangeEncoder()
    thumbnail.encode_thumbnail(encoder, values, counts)
    back = thumbnail.decode_thumbnail(RangeDecoder(encoder.finish()), (5, 7), counts)
    np.testing.assert_array_equal(back, values)


def test_mean_colour_takes_a_sixteenth_of_a_bit_at_least():
    counts = np.ones((3, thumbnail.CONTEXTS, thumbnail.ESCAPE + 1), np.int64)
    counts[..., thumbnail.LARGEST] = 4096 - thumbnail.ESCAPE  # of no difference: the most likely
    encoder = RangeEncoder()
    thumbnail.encode_thumbnail(encoder, np.zeros((64, 64, 3), np.int64), counts)
    assert 64 * 64 / 128 <= len(encoder.finish()) < 64 * 64 / 64


def test_thumbnail_stands_for_the_mean_colours():
    image = smooth(1, 32, 40)
    means = image.reshape(4, 8, 5, 8, 3).mean((1, 3))
    found = thumbnail.means_of(thumbnail.shrink(image, 32), 32) / 16
    assert np.abs(found - means).max() < 2  # half a step of 2 pixels in each of three directions


def test_search_finds_the_least_cost_with_orthonormal_atoms():
    rng = np.random.default_rng(0)
    atoms = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    signals, step = rng.normal(scale=6, size=(20, 12)), 2.0
    bits = RateModel(rng.uniform(3, 6, 12), 2 + 2 * np.log2(np.arange(1, 40)), np.zeros(13))
    problem = search.Problem.of(atoms, step, bits)
    found, levels = search.search(signals, problem, sparsity=12, size=20)
    dense = np.zeros((20, 12))
    for row, (index, level) in enumerate(zip(found, levels, strict=True)):
        dense[row, index[level != 0]] = level[level != 0]
    # Each coefficient has its own best level.
    choices = np.arange(-39, 40)
    paid = np.where(choices, bits.level_bits[np.abs(choices) - 1], 0)
    costs = ((signals @ atoms.T)[..., None] - step * choices) ** 2 + paid
    costs += bits.index_bits[:, None] * (choices != 0)
    np.testing.assert_array_equal(dense, choices[costs.argmin(-1)])


def test_exchanges_lower_the_cost():
    rng = np.random.default_rng(1)
    atoms, signals = rng.normal(size=(40, 12)), rng.normal(scale=4, size=(32, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    bits = RateModel(np.full(40, 5.0), 2 + 2 * np.log2(np.arange(1, 40)), np.zeros(9))
    problem, costs = search.Problem.of(atoms, 2.0, bits), []
    for sweeps in (0, 1):
        found, levels = search.search(signals, problem, sparsity=8, sweeps=sweeps, size=32)
        error = signals - np.einsum("nk,nkd->nd", 2.0 * levels, atoms[found])
        paid = np.where(levels, 5 + bits.level_bits[np.abs(levels) - 1], 0)
        costs.append(np.sum(error**2, 1) + paid.sum(1))
    assert (costs[1] <= costs[0] + 1e-3).all() and costs[1].mean() < 0.995 * costs[0].mean()


def test_wrong_files_raise_with_the_reason():
    tables = small_model()
    (data,) = pixels.compress([smooth(5, 16, 24)], 40, model=tables)
    for wrong, reason in (
        (b"\x89PNG" + data, "not a compressed picture of laser_jax"),
        (data[:19], "truncated"),
        (data[:-1], "damaged or truncated"),
        (data[:4] + b"\2" + data[5:], "version 2, this code reads 1; update laser_jax"),
        (write_container([Run(1, 8, 8)], b"abc", bytes(8)), "written by another model"),
        (write_container([Run(1, 2**16, 2**10)], b"abc", tables.fingerprint), "least 8192 bytes"),
        (write_container([Run(2, 8, 8)], b"abc", tables.fingerprint), "one picture a file"),
        (write_container([Run(1, 8, 8)], bytes(99), tables.fingerprint), "more than its picture"),
    ):
        with pytest.raises(ValueError, match=reason):
            pixels.decompress([wrong], model=tables)


def test_damaged_files_raise_and_damaged_payloads_give_a_picture_or_raise():
    rng, tables = np.random.default_rng(1), small_model()
    (data,) = pixels.compress([smooth(5, 16, 24)], 70, model=tables)
    for damaged in mutations(data, rng, 100):
        with pytest.raises(ValueError):
            pixels.decompress([damaged], model=tables)
    runs, payload = read_container(data, tables.fingerprint)
    for damaged in mutations(payload, rng, 60):
        file = write_container(runs, damaged, tables.fingerprint)
        try:
            (image,) = pixels.decompress([file], model=tables)
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            assert image.shape[:2] == (16, 24)


def test_wrong_images_and_qualities_raise():
    for quality in (0, 101, 75.5, "75", float("nan"), None):
        with pytest.raises(ValueError, match="quality must be"):
            pixels.compress([smooth(0, 8, 8)], quality, model=small_model())
    for image in (np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8, 2))):
        with pytest.raises(ValueError, match="an image must have shape"):
            pixels.compress([image], model=small_model())
    with pytest.raises(ValueError, match=r"float in \[0, 1\]"):
        pixels.compress([np.full((8, 8, 3), 2.0)], model=small_model())
    with pytest.raises(ValueError, match="sides up to 65536 pixels.*got 70000"):
        pixels.compress([np.zeros((70_000, 1, 3), np.uint8)], model=small_model())
