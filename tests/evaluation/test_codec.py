"""Trained runs as codecs: stored runs of most bottlenecks, and gray codes by rate untrained."""

import pathlib
import tarfile

import jax
import numpy as np
import pytest

import laser_jax
from configs import tiny
from laser_jax.data import open_split
from laser_jax.evaluation.codec import TokenCodec, fit_codec, read_tables, write_tables
from laser_jax.models import build_model, inference
from laser_jax.sparse import SparseCode, dequantize_coefficients
from laser_jax.tokens import Run, Tokens, code_of, pack_tokens, tables, write_container
from laser_jax.tokens.container import fingerprint_in
from laser_jax.training.loop import train
from tests.faults.evidence import read_curves
from tests.tokens.test_files import mutations

STORED = pathlib.Path(__file__).parent.parent / "stored"
BATCH = 16


def smooth_images(seed, number, height=32, width=32):
    """Random images of low frequencies, uint8."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(number, 4, 4, 3))
    rows, columns = (np.cos(np.outer(np.arange(n), np.arange(4)) * 0.1) for n in (height, width))
    images = np.einsum("yi,xj,nijc->nyxc", rows, columns, waves)
    return np.uint8(np.clip(128 + 30 * images, 0, 255))


def stored_run(name, path):
    """The workdir of a stored run below a path, and what `load` returns."""
    with tarfile.open(STORED / f"{name}.tar.gz") as archive:
        archive.extractall(path, filter="data")
    return path / name, laser_jax.load(path / name)


@pytest.fixture(scope="module", params=["vq", "ksvd"])
def run(request, tmp_path_factory):
    """The workdir of a stored run, what `load` returns, and its codec on smooth images."""
    workdir, trained = stored_run(request.param, tmp_path_factory.mktemp("stored"))
    images = smooth_images(0, 48)
    codec = fit_codec(trained.model, trained.variables, images, images=48, batch_size=BATCH)
    write_tables(workdir, int(trained.state.step), codec.tables)
    return workdir, trained, codec


def psnr(images, found):
    return -10 * np.log10(np.mean((images / 255 - found) ** 2))


def test_tokens_lose_at_most_a_twentieth_of_a_decibel(run):
    _, trained, _ = run
    images = smooth_images(1, BATCH)
    tokens = trained.encode_to_tokens(images)
    found = trained.decode_from_tokens(tokens)
    assert psnr(images, found) > psnr(images, trained.reconstruct(images)) - 0.05
    with pytest.raises(ValueError, match="unused places must be 0|lie in the alphabet"):
        trained.decode_from_tokens(tokens._replace(atoms=tokens.atoms + 1000))


def test_pictures_of_any_size_come_back_from_files(run):
    _, trained, codec = run
    pictures = [smooth_images(2, 1)[0], smooth_images(3, 1, 21, 45)[0]]
    files = trained.compress(pictures)
    found = trained.decompress(files)
    assert [x.shape for x in found] == [x.shape for x in pictures]
    assert all(x.dtype == np.uint8 for x in found)
    expected = trained.decode_from_tokens(trained.encode_to_tokens(pictures[0][None]))[0]
    np.testing.assert_array_equal(found[0], np.round(255 * expected))
    bits = float(codec.tables.bits(codec.to_tokens(pictures[0][None]))[0])
    assert len(files[0]) <= 1.001 * bits / 8 + 40
    assert trained.compress(pictures[0][None] / np.float32(255)) == files[:1]


def test_bad_files_and_files_of_another_model_raise(run):
    _, trained, codec = run
    (data,) = trained.compress(smooth_images(5, 1))
    with pytest.raises(ValueError, match="damaged or truncated"):
        trained.decompress([data[:-3]])
    changed = {**trained.variables, "extra": np.ones(1)}
    other = TokenCodec(trained.model, changed, codec.tables)
    with pytest.raises(ValueError, match="another model"):
        other.decompress([data])
    with pytest.raises(ValueError, match=r"an image must have shape \(H, W, 3\)"):
        trained.compress([smooth_images(5, 1)[0, :, :, 0]])
    with pytest.raises(ValueError, match="sides up to 65536 pixels"):
        trained.compress([np.zeros((1, 70_000, 3), np.uint8)])


def gray_by_rate():
    """A model of gray images with codes by rate, and its first variables."""
    config = tiny.get_config()
    config.data.channels = 1
    config.model.update(
        bottleneck="ksvd", sparse_coder="rate_distortion", bit_price=1e-4, coefficient_step=0.1
    )
    model = build_model(config)
    images = np.zeros((1, 32, 32, 1), np.float32)
    return model, jax.jit(model.init)(jax.random.key(0), images)


SLOW_RVQ = pytest.param("rvq", marks=pytest.mark.slow)  # its tokens are those of VQ, more of them


@pytest.mark.parametrize("name", ["fsq", SLOW_RVQ, "gray by rate"])
def test_files_hold_the_codes_of_other_bottlenecks(name, tmp_path):
    if name == "gray by rate":
        model, variables = gray_by_rate()
    else:
        trained = stored_run(name, tmp_path)[1]
        model, variables = trained.model, trained.variables
    images = smooth_images(8, 8)[..., : model.in_channels]
    codec = fit_codec(model, variables, images, images=8, batch_size=1)
    tokens, code = codec.to_tokens(images[:1]), inference.encode(model, variables, images[:1])
    assert tokens.counts.mean() >= 1
    layout = codec.tables.layout
    found = dequantize_coefficients(code_of(tokens, layout), np.asarray(layout.steps))
    dense = []
    for indices, coefficients in (code, found):
        dense.append(np.zeros((*tokens.counts.shape, model.bottleneck.num_embeddings)))
        np.put_along_axis(dense[-1], np.asarray(indices), np.asarray(coefficients), -1)
    np.testing.assert_allclose(*dense, atol=1e-6)
    (back,) = codec.decompress(codec.compress(images[:1]))
    np.testing.assert_array_equal(back, np.round(255 * codec.to_images(tokens)[0]))


def test_damaged_files_raise_and_damaged_payloads_give_a_picture_or_raise(run):
    _, trained, _ = run
    rng, (data,) = np.random.default_rng(0), trained.compress(smooth_images(5, 1))
    for damaged in mutations(data, rng, 100):
        with pytest.raises(ValueError):
            trained.decompress([damaged])
    joined, start = fingerprint_in(data), len(write_container([Run(1, 32, 32)], b"", bytes(8))) - 8
    for payload in mutations(data[start:-8], rng, 20):
        try:
            (image,) = trained.decompress([write_container([Run(1, 32, 32)], payload, joined)])
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            assert image.shape == (32, 32, 3) and image.dtype == np.uint8


def test_no_images_and_codes_of_none_raise(run):
    _, trained, _ = run
    images = smooth_images(1, BATCH)
    code, tokens = trained.encode(images), trained.encode_to_tokens(images)
    takes_images = [trained.reconstruct, trained.encode, trained.encode_to_tokens]
    calls = [(each, x) for each in takes_images for x in (images[:0], images[:, :, :0])]
    calls += [(trained.decode, SparseCode(*(x[:0] for x in code)))]
    calls += [(trained.decode_from_tokens, Tokens(*(x[:0] for x in tokens)))]
    for function, argument in calls:
        with pytest.raises(ValueError, match="must not be empty, got shape"):
            function(argument)
    assert trained.compress(images[:0]) == trained.decompress([]) == []


def test_size_of_a_split_is_that_of_its_one_file(run):
    _, trained, codec = run
    images = smooth_images(6, 40)
    size, pixels = codec.split_size(images, batch_size=BATCH)
    groups = [(codec.to_tokens(images), images.shape[1:3])]
    data = pack_tokens(
        groups, codec.tables, unit=trained.model.signal_shape, fingerprint=codec.fingerprint
    )
    assert pixels == images[..., 0].size
    assert len(data) == pytest.approx(size, rel=1e-3, abs=4)
    part, fewer = codec.split_size(images, batch_size=BATCH, most_signals=8 * 64)
    assert fewer == 8 * 32 * 32 * trained.model.signal_pixels // 16 and part < size


def test_tables_are_stored_in_the_workdir_for_their_checkpoint(run, monkeypatch):
    workdir, trained, codec = run
    step = int(trained.state.step)
    assert read_tables(workdir, step).fingerprint == codec.tables.fingerprint
    assert read_tables(workdir, step + 1) is None
    again = laser_jax.load(workdir)
    path = workdir / f"tokens-{step}.npz"
    data = path.read_bytes()
    try:
        path.write_bytes(data[:-9])
        with pytest.raises(ValueError, match="tables of tokens are damaged") as raised:
            again.compress(smooth_images(7, 1))
        assert str(path) in str(raised.value) and "the next evaluation fits" in str(raised.value)
        monkeypatch.setattr(tables, "VERSION", tables.VERSION + 1)
        path.write_bytes(codec.tables.to_bytes())
        monkeypatch.undo()
        with pytest.raises(ValueError, match="this code reads 1. Update laser_jax.$"):
            again.compress(smooth_images(7, 1))
        path.unlink()
        with pytest.raises(FileNotFoundError, match="an evaluation of this checkpoint makes them"):
            again.compress(smooth_images(7, 1))
    finally:
        path.write_bytes(data)


def test_training_and_evaluation_store_tables_and_report_the_true_rate(
    tiny_config, few_images, tmp_path, monkeypatch, caplog
):
    from laser_jax.evaluate import evaluate

    tiny_config.data.name = f"folder:{few_images}"
    tiny_config.model.bottleneck, tiny_config.num_train_steps = "vq", 20
    tiny_config.eval.table_images, tiny_config.eval_every_steps = 32, 10
    train(tiny_config, tmp_path)
    rates = read_curves(tmp_path)["val/bits_per_pixel"]
    assert [step for step, _ in rates] == [10, 20]  # the first is of quick tables
    assert all(0 < bits < 5 / 16 for _, bits in rates)
    tables = tmp_path / "tokens-20.npz"
    stored = tables.read_bytes()
    first = evaluate(tiny_config, tmp_path)
    assert 0 < first["bits_per_pixel"] < first["bits_per_pixel_fixed"] == pytest.approx(5 / 16)
    tables.unlink()  # as in a workdir of an older version
    monkeypatch.setattr("laser_jax.evaluate.MOST_PIXELS", 16 * 32**2)  # files of a part
    caplog.set_level("INFO", "laser_jax")
    second = evaluate(tiny_config, tmp_path)
    assert tables.read_bytes() == stored and second["bits_per_pixel"] == first["bits_per_pixel"]
    assert first["run_at_rate"] == [first["bits_per_pixel"], first["psnr_pooled"]]
    assert (first["compared_images"], second["compared_images"]) == (first["images"], 16)
    trained, source = laser_jax.load(tmp_path), open_split(tiny_config.data, "test")
    part = np.stack([source[int(i)] for i in np.linspace(0, len(source) - 1, 16).astype(int)])
    expected = psnr(part, trained.reconstruct(part))
    assert second["run_at_rate"][1] == pytest.approx(expected, abs=0.01)
    for name in ("jpeg", "webp"):
        assert second[f"{name}_at_rate"][0] >= second["run_at_rate"][0]
    assert "beside files, a mosaic of 16 images" in caplog.text
