import csv
import types

import jax
import numpy as np
import pytest

from experiments import latent_codecs as study
from experiments.latent_report import verdict
from experiments.results import Results
from laser_jax.data import open_split
from laser_jax.images import to_network
from laser_jax.models import build_model
from laser_jax.trained import TrainedAutoencoder

SIZE = study.SIZES["small"]


def point(bpp, psnr):
    return {
        "bpp": bpp, "psnr": psnr, "fixed": 1.0, "atoms": 2.0, "signals": 10,
        "order 0": [0.0, 80.0, 20.0], "in context": [0.0, 40.0, 10.0],
        "atom_map": np.ones((8, 8), np.uint8), "picture": np.zeros((8, 8, 3), np.uint8),
    }  # fmt: skip


def curve(*points):
    return [[point(*each) for each in points]]


def test_verdict_compares_the_best_of_each_kind_at_each_rate():
    curves = {
        "VQ": curve((0.1, 25.0), (0.35, 25.0)), "FSQ": curve((0.2, 24.0), (0.8, 26.0)),
        "sparse by rate": curve((0.15, 20.0), (0.8, 20.0)),
        study.SPARSE_PATCHES: curve((0.2, 26.5), (0.8, 26.5)),
    }  # fmt: skip
    lines = verdict(curves).splitlines()
    assert lines[0] == (
        f"- 0.2 bits a pixel: *{study.SPARSE_PATCHES}* 26.50 dB, *VQ* 25.00 dB, +1.50 dB."
    )
    assert "*FSQ* 25.32 dB, +1.18 dB" in lines[3]
    assert lines[-1].endswith("met at 0.2, 0.3, 0.4, 0.5 bits a pixel.")
    assert len(lines) == 6  # no curve reaches 1 bit a pixel


def test_report_has_the_curves_the_ideas_and_the_savings(tmp_path, monkeypatch):
    def made_up(out, size, settings, seed):
        rate = 0.01 / settings.get("bit_price", 0.02) + 0.1 * seed
        return point(rate, 30 + np.log(rate) + settings.get("rate_weight", 0))

    monkeypatch.setattr(study, "latent_point", made_up)
    files = {name: curve((0.2, 26.0), (0.9, 30.0)) for name in study.FORMATS}
    monkeypatch.setattr(study, "file_curves", lambda *_: files)
    out = Results(tmp_path, "title")
    ideas = {"rate weight": study._sparse(0.02, patch_size=2, rate_weight=0.5)}
    study.run(out, SIZE._replace(seeds=2, front=(study.SPARSE_PATCHES,), ideas=ideas))
    out.write("")
    report = (tmp_path / "README.md").read_text()
    assert "| rate weight | 0.500 | 29.81 | +0.50 |" in report
    assert (
        "| VQ, 64 entries | 0.500 |  | 8.00 → 4.00 | 2.00 → 1.00 | 10.00 → 5.00 | 50% |" in report
    )
    assert "| VQ, 64 entries | 0.500 | 29.31 | 29.31 | 28.44 | 28.44 | 1.00 |" in report
    assert "| sparse by rate, 2x2, price 0.03 | 0.333 | 28.90 |  | 27.36 | 27.36 | 1.00 |" in report
    assert all(
        (tmp_path / f"{x}.png").stat().st_size > 10_000 for x in ("latents", "latents_atoms")
    )
    with open(tmp_path / "latents_points.csv") as file:
        rows = [(row["curve"], row["seed"]) for row in csv.DictReader(file)]
    assert set(rows) == {
        *((name, "0") for name in (*SIZE.points, *files)), (study.SPARSE_PATCHES, "1")
    }  # fmt: skip


def test_each_point_of_a_curve_has_a_name_of_its_own():
    for points in study.SIZES["full"].points.values():
        assert len(set(map(study.detail, points))) == len(points)
    assert study.detail(study._fsq((8, 5, 5, 5))[0]) == "(8, 5, 5, 5)"
    (stages,) = study._stages_by_rate(0.12, stages=16, atoms=256, patch_size=2)
    assert study.detail(stages) == "at most 16 stages of 256, price 0.12"


@pytest.mark.slow
def test_points_of_a_trained_autoencoder_have_its_true_rate(tiny_config, tmp_path):
    tiny_config.model.update(bottleneck="vq", num_embeddings=16, embedding_dim=4, num_hiddens=8)
    model = build_model(tiny_config)
    images = np.stack([open_split(tiny_config.data, "test")[i] for i in range(64)])
    variables = jax.jit(model.init)(jax.random.key(0), to_network(images))
    state = types.SimpleNamespace(step=3, eval_variables=lambda: variables)
    trained = TrainedAutoencoder(tiny_config, model, state, workdir=tmp_path)
    found = study.measure(trained, SIZE._replace(windows=64))
    assert (tmp_path / "tokens-3.npz").exists()
    assert found["fixed"] == 4 / 16 and found["atoms"] == 1
    bits = sum(found["in context"])
    assert bits / 16 < found["bpp"] * found["signals"] < bits / 16 + 8 * 50
    assert sum(found["order 0"]) <= 4.3 * found["signals"]
    windows = study.test_windows(tiny_config, SIZE)
    error = windows / 255 - trained.reconstruct(windows)
    assert found["psnr"] == pytest.approx(-10 * np.log10(np.mean(error**2)), abs=1e-3)
