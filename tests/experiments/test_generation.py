"""The study of priors of several kinds of codes."""

import csv

import numpy as np
import pytest

from experiments import generation as study
from experiments.generation_report import SPARSE, verdict
from experiments.latent_codecs import config_of
from experiments.results import Results
from laser_jax.models import build_model

SMALL, FULL = study.SIZES["small"], study.SIZES["full"]


def point(**changes):
    return {
        "bpp": 0.4, "psnr": 25.0, "lpips": 0.2, "order_0": 0.6, "bits_per_pixel": 0.36,
        "bits_per_pixel_context_model": 0.4, "gap_bits_per_token": 3.2, "signal_pixels": 16,
        "fd_vgg16_samples": 300.0, "fd_vgg16_reconstructions": 200.0, "parameters": 1_200_000,
        "samples": np.zeros((4, 8, 8, 3), np.uint8), "nearest": np.zeros((4, 8, 8, 3), np.uint8),
        **changes,
    }  # fmt: skip


def test_verdict_compares_sparse_codes_with_the_best_other_code():
    found = {
        "VQ": [point(fd_vgg16_samples=250.0), point(fd_vgg16_samples=270.0)],
        "FSQ": [point(psnr=26.0, bpp=0.38), point(psnr=26.2, bpp=0.38)],
        SPARSE: [point(psnr=27.0, fd_vgg16_samples=265.0, bits_per_pixel=0.42), point(psnr=27.1)],
    }
    lines = verdict(found).splitlines()
    assert lines[0] == "- All codes cost 0.380 to 0.400 bits a pixel."
    assert lines[1].endswith("27.05 ± 0.05, the best other code, *FSQ*, 26.10 ± 0.10: sparse codes "
                             "are better.")  # fmt: skip
    assert (
        "282 ± 18, the best other code, *VQ*, 260 ± 10: sparse codes are worse, within the"
        in (lines[4])
    )
    assert "*FSQ* -10.0% ± 0.0%, *sparse by rate* -2.5% ± 7.5%." in lines[5]
    assert lines[5].endswith("Sparse codes neither help nor hurt a prior.")


@pytest.mark.parametrize("bits, effect", [
    (0.34, "help"), (0.37, "neither help nor hurt"), (0.39, "hurt"),
])  # fmt: skip
def test_sparse_codes_help_a_prior_that_saves_more_of_their_bits(bits, effect):
    found = {
        "VQ": [point(bits_per_pixel=0.36)], "FSQ": [point(bits_per_pixel=0.38)],
        SPARSE: [point(bits_per_pixel=bits)],
    }  # fmt: skip
    assert verdict(found).endswith(f"Sparse codes {effect} a prior.")


def test_report_has_a_row_for_each_code_and_the_first_seeds_come_first(tmp_path, monkeypatch):
    order = []

    def made_up(out, size, settings, seed):
        order.append((settings["bottleneck"], seed))
        return point(bpp=0.4 + 0.01 * seed)

    monkeypatch.setattr(study, "code_point", made_up)
    out = Results(tmp_path, "title")
    study.run(out, SMALL._replace(seeds=2))
    assert [seed for _, seed in order] == 5 * [0] + 5 * [1]
    with open(tmp_path / "generation.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["code"] for row in rows] == list(SMALL.codes)
    assert rows[0]["bits a pixel"] == "0.405 ± 0.005" and rows[0]["gap to training"].startswith(
        "0.200"
    )
    assert (tmp_path / "generation_samples.png").stat().st_size > 3_000


@pytest.mark.parametrize("size", [SMALL, FULL], ids=["small", "full"])
def test_settings_of_every_code_build_its_model_and_priors_of_equal_depth(size, tmp_path):
    names = []
    for settings in size.codes.values():
        model = {"steps": size.steps, "num_hiddens": size.num_hiddens, "seed": 0, **settings}
        bottleneck = build_model(config_of(model)).bottleneck
        names.append(settings["bottleneck"])
        prior = study.prior_config(size, model, tmp_path).prior
        inner = len(bottleneck.token_layout(1.0).alphabets or "set") > 1 and names[-1] != "fsq"
        assert prior.num_layers + inner * prior.num_inner_layers == 5
    assert names == ["vq", "rvq", "fsq", "ksvd", "hybrid"]


@pytest.mark.slow
def test_small_study_trains_priors_of_all_codes(tmp_path):
    out = Results(tmp_path, "title")
    study.run(out, SMALL)
    assert len(list((tmp_path / "points").glob("codes-*.npz"))) == 5
    with open(tmp_path / "generation.csv") as file:
        assert all(0 < float(row["prior"]) < 3 for row in csv.DictReader(file))
