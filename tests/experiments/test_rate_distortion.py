import csv

import numpy as np
import pytest
from PIL import Image

from experiments import picture_codecs, rate_curves
from experiments import rate_distortion as study
from experiments.results import Results

TINY = {"patch": 8, "n": 400, "crop": 64, "iterations": 2, "seed": 0}
SPARSE = {**TINY, "kind": "learn_sparse", "num_atoms": 64, "sparsity": 6}
STAGES = {**TINY, "kind": "learn_stages", "num_atoms": 64, "stages": 4}
SIZE = study.SIZES["small"]._replace(crop=64)


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


@pytest.mark.slow
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

    monkeypatch.setattr(
        study, "pixel_point", lambda out, size, s: made_up(out, size, {"seed": 0} | s)
    )
    out = Results(tmp_path, "title")
    study.run(out, SIZE)
    out.write("")
    report = (tmp_path / "README.md").read_text()
    assert "a quarter of the atoms" in report
    for name in ("pixels", "pixels_lpips", "pictures"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    with open(tmp_path / "pixels_points.csv") as file:
        found = {row["curve"] for row in csv.DictReader(file)}
    assert found == set(rate_curves.LOOKS)


def test_other_images_are_coded_where_the_flag_names_them(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images" / "test").mkdir(parents=True)
    for i in range(24):  # as many as are coded
        pixels = rng.integers(0, 256, (2, 2, 3), np.uint8).repeat(32, 0).repeat(32, 1)
        Image.fromarray(pixels).save(tmp_path / "images" / "test" / f"{i}.png")
    out = Results(tmp_path / "out", "title", f"folder:{tmp_path / 'images'}")
    (point,) = study.file_curves(out, SIZE)["JPEG"][0][-1:]
    assert point["psnr"] > 35 and point["window"].shape == (64, 64, 3)
