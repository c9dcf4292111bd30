import csv
import types

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import latent_codecs, picture_codecs, rate_curves
from experiments import rate_distortion as study
from experiments.results import Results
from laser_jax.data import open_split
from laser_jax.images import to_network
from laser_jax.models import build_model
from laser_jax.trained import TrainedAutoencoder

TINY = {"patch": 8, "n": 400, "crop": 64, "iterations": 2, "seed": 0}
SPARSE = {**TINY, "kind": "learn_sparse", "num_atoms": 64, "sparsity": 6}
STAGES = {**TINY, "kind": "learn_stages", "num_atoms": 64, "stages": 4}
SIZE = study.SIZES["small"]._replace(crop=64, latents=latent_codecs.SIZES["small"])


def curve(*points):
    return [
        {"bpp": bpp, "psnr": psnr, "lpips": 0.1, "window": np.zeros((64, 64, 3), np.uint8),
         "atoms": 2.0, "atom_map": np.ones((8, 8), np.uint8)}
        for bpp, psnr in points
    ]  # fmt: skip


def test_curves_are_interpolated_in_the_log_rate_and_not_extrapolated():
    points = curve((2.0, 34.0), (0.5, 30.0))
    assert rate_curves.at_rate(points, 1.0) == pytest.approx(32)
    assert np.isnan(rate_curves.at_rate(points, 0.3))
    mean, spread = study.mean_at([points, curve((0.5, 31.0), (2.0, 35.0))], 1.0)
    assert (mean, spread) == pytest.approx((32.5, 0.5))


def test_the_verdict_follows_the_numbers():
    flat = [curve((0.1, 30.0), (4.0, 30.0))]
    rising = [curve((0.1, 31.0), (4.0, 31.0))]
    curves = {
        study.BOTH_ATOMS: flat, study.BOTH_STAGES: rising, study.ATOMS: flat,
        study.STAGES: [curve((0.1, 28.0), (0.5, 28.0))], "JPEG": rising, "WebP": flat,
    }  # fmt: skip
    text = study.verdict(curves)
    assert f"*{study.BOTH_ATOMS}* is above *JPEG* at no rate" in text
    assert f"*{study.ATOMS}* is above *{study.STAGES}* at every rate compared" in text
    assert "which has the thumbnail too: met at none of" in text
    assert "which has no thumbnail: met at 0.3, 0.5 of 0.3, 0.5 bits" in text


@pytest.mark.parametrize("settings", [SPARSE, STAGES], ids=["sparse", "stages"])
def test_rate_aware_codec_uses_fewer_bits_at_a_higher_price(settings):
    cheap, dear = (
        picture_codecs.measure(
            *picture_codecs.learned({**settings, "thumbnail": True, "bit_price": price})
        )
        for price in (0.0005, 0.05)
    )
    assert dear["bpp"] < 0.8 * cheap["bpp"] and dear["psnr"] < cheap["psnr"] - 0.5
    assert cheap["window"].shape == (64, 64, 3) and dear["atoms"] < cheap["atoms"]


def test_rate_of_a_file_includes_all_its_bytes():
    good, bad = (picture_codecs.file_point({"format": "JPEG", "quality": q}, 64) for q in (90, 20))
    assert bad["bpp"] < good["bpp"] and bad["psnr"] < good["psnr"]
    # Two headers of some 600 bytes alone, on 64x64 pixels each.
    assert bad["bpp"] > 8 * 600 / 64**2


def test_the_window_is_the_same_part_of_a_picture_and_of_its_map_of_patches():
    picture = np.arange(400 * 600).reshape(400, 600)
    patches = picture[::8, ::8]
    shown, seen = picture_codecs.window(picture), picture_codecs.window(patches, scale=8)
    assert shown.shape == picture_codecs.WINDOW
    np.testing.assert_array_equal(shown[::8, ::8], seen)


def test_the_report_has_all_its_parts(tmp_path, monkeypatch):
    def made_up(out, size, settings):
        bits = 0.3 if "bit_price" not in settings else 0.002 / settings["bit_price"]
        return curve((bits * (1 + settings["seed"]), 30 + np.log(bits)))[0]

    names = ("VQ", latent_codecs.FIXED, latent_codecs.BY_RATE)
    latents = {name: [curve((0.2, 20.0), (0.8, 24.0))] for name in names}
    latents[latent_codecs.BY_RATE][0][0]["picture"] = np.zeros((8, 8, 3), np.uint8)
    latents[latent_codecs.BY_RATE][0][1]["picture"] = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(
        study, "pixel_point", lambda out, size, s: made_up(out, size, {"seed": 0} | s)
    )
    monkeypatch.setattr(study, "coder_rows", lambda *_: [["sparse", 0.003, 1000, 1010, "1.010"]])
    monkeypatch.setattr(latent_codecs, "latent_points", lambda *_: latents)
    out = Results(tmp_path, "title")
    study.run(out, SIZE)
    out.write("")
    report = (tmp_path / "README.md").read_text()
    assert "a quarter of the atoms" in report and "1.010" in report
    for name in ("pixels", "pixels_lpips", "pictures", "latents", "latents_atoms"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    with open(tmp_path / "pixels_points.csv") as file:
        found = {row["curve"] for row in csv.DictReader(file)}
    assert found == set(rate_curves.LOOKS) - {"FSQ", latent_codecs.PATCHES}


KINDS = {
    "rvq": {"bottleneck": "rvq"},
    "fsq": {"bottleneck": "fsq", "fsq_levels": (4, 3)},
    "fixed": {"bottleneck": "ksvd", "sparsity_level": 2},
    "rate": {"bottleneck": "ksvd", "sparse_coder": "rate_distortion", "bit_price": 1e-5},
}


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_autoencoders_are_integers_that_decode_to_the_reconstruction(kind, tiny_config):
    tiny_config.model.update({"embedding_dim": 4, "num_hiddens": 8, **KINDS[kind]})
    tiny_config.model.coefficient_step = 0.02
    model = build_model(tiny_config)
    images = np.stack([open_split(tiny_config.data, "test")[i] for i in range(4)])
    variables = jax.jit(model.init)(jax.random.key(0), to_network(images))
    trained = TrainedAutoencoder(
        tiny_config, model, types.SimpleNamespace(eval_variables=lambda: variables)
    )
    codec = latent_codecs.codec_of(trained)
    rates = codec.fit(images)
    code = codec.encode(images, rates)
    assert code.coefficients.dtype == code.indices.dtype == np.int32
    if kind == "fsq":
        assert codec.num_symbols == 12 and int(code.indices.max()) < 12
    error = np.abs(codec.decode(code) - trained.reconstruct(images)).max()
    # Coefficients rounded, or atoms not bought: a little is lost.
    assert error < (0.02 if kind in ("fixed", "rate") else 1e-5)


def test_other_images_are_coded_where_the_flag_names_them(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(800):
        pixels = rng.integers(0, 256, (2, 2, 3), np.uint8).repeat(32, 0).repeat(32, 1)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    out = Results(tmp_path / "out", "title", f"folder:{tmp_path / 'images'}")
    (point,) = study.file_curves(out, SIZE)["JPEG"][0][-1:]
    assert point["psnr"] > 35 and point["window"].shape == (64, 64, 3)
