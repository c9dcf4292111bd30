import numpy as np
import pytest
from PIL import Image

from experiments import large_pictures as study
from experiments.results import Results
from laser_jax.data.photo_patches import PHOTOGRAPHS
from laser_jax.training.settings import check_config
from laser_jax.training.setup import Setup


def made_up(out, size, kind, name):
    place = list(size.kinds).index(kind)
    quality = dict.fromkeys(study.COLUMNS, 1.0 + place)
    files = dict.fromkeys(("run_at_rate", "jpeg_at_rate", "webp_at_rate"), np.array([0.5, 27.0]))
    picture = np.full((3, 8, 8, 3), 60 * place, np.uint8)
    return quality | files | {"originals": picture, "reconstructions": picture}


def test_report_has_every_kind_beside_jpeg_and_webp(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_measured", made_up)
    monkeypatch.setattr(study, "write_windows", lambda *_: "nowhere")
    out = Results(tmp_path, "title")
    study.run(out, study.SIZES["full"])
    out.write("")
    report = (tmp_path / "README.md").read_text()
    assert "| code | this code | JPEG | WebP |" in report
    assert "| FSQ | 0.500: 27.00 | 0.500: 27.00 | 0.500: 27.00 |" in report
    assert "| sparse by rate, 2x2 | 4.000 | 4.000 | 4.000 | 4.000 | 4.000 | 4.000 |"
    assert "| LPIPS, AlexNet | LPIPS, VGG16 |" in report in report
    assert (tmp_path / "large_pictures.png").stat().st_size > 5000


@pytest.mark.parametrize("size", study.SIZES)
def test_settings_of_every_kind_are_a_run_of_the_vqgan_network(size, tmp_path):
    size = study.SIZES[size]
    for settings in size.kinds.values():
        config = study.config_of(size, settings, f"folder:{tmp_path}")
        check_config(config)
        Setup.from_config(config).check()
        assert config.model.network == "vqgan" and config.model.num_downsamples == 3
        assert config.adversarial.weight == 0 and config.loss.perceptual_weight == 1


def test_windows_of_a_split_are_of_its_photographs_and_missing_ones_are_written_again(tmp_path):
    folder = study.write_windows(tmp_path, 192)
    found = {split: sorted((folder / split).iterdir()) for split in PHOTOGRAPHS}
    for split, paths in found.items():
        assert {path.name.split("-")[0] for path in paths} == set(PHOTOGRAPHS[split])
        with Image.open(paths[0]) as image:
            assert image.size == (study.SIDE, study.SIDE)
    lost = found["test"][0]
    before = lost.read_bytes()
    lost.unlink()
    study.write_windows(tmp_path, 192)
    assert lost.read_bytes() == before
