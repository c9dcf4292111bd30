import csv

import numpy as np
import pytest

from experiments import pixel_files
from experiments.results import Results


def curve(factor):
    """10 dB for each doubling of the rate, 30 dB at `factor` bits a pixel."""
    rates = np.geomspace(0.1, 4, 9)
    return [{"bpp": r, "psnr": 30 + 10 * np.log2(r / factor)} for r in rates]


def test_report_compares_at_equal_rates_and_at_equal_quality(tmp_path):
    others = {name: [curve(2)] for name in pixel_files.FORMATS}
    out = Results(tmp_path, "title")
    pixel_files.report(out, {pixel_files.OURS: [curve(1), curve(2**0.1)], **others})
    with open(tmp_path / "pixel_files.csv", newline="") as file:
        rows = {row["bits a pixel"]: row for row in csv.DictReader(file)}
    assert rows["pixel codec"]["1.0"] == "29.50 ± 0.50" and rows["WebP"]["0.5"] == "10.00"
    assert rows["AVIF: more bits at equal PSNR"]["0.2"] == "+93%"  # the mean of 2 and 2^0.9
    assert "- dB above JPEG, at bits a pixel: +9.50 at 0.2" in out.blocks[0]["text"]
    assert (tmp_path / "pixel_files.png").stat().st_size > 10_000


def test_point_pools_bytes_and_squared_errors_of_pictures_of_several_sizes(tmp_path):
    images = [np.full(shape, 100, np.uint8) for shape in ((4, 6, 3), (8, 2, 3))]
    found = pixel_files.point(images, lambda image: (image.shape[1], image + np.uint8(5)))
    assert found["bpp"] == 8 * (6 + 2) / (24 + 16)
    assert found["psnr"] == pytest.approx(20 * np.log10(255 / 5), abs=1e-4)


def test_formats_are_read_back_and_settings_without_use_left_out(tmp_path):
    rng = np.random.default_rng(0)
    images = [np.uint8(rng.integers(90, 160, size=(24, 16 + 8 * i, 3))) for i in range(2)]
    settings = pixel_files.FORMATS["WebP"]
    points = pixel_files.format_curve(
        Results(tmp_path, "title"), "test", images, [settings[8], settings[2], settings[8]]
    )
    assert len(points) == 2 and points[0]["bpp"] < points[1]["bpp"]
    assert 15 < points[0]["psnr"] < points[1]["psnr"]
