import html
import json

import jax
import pytest
from clu import metric_writers

from experiments import figures, results
from experiments.results import Results
from laser_jax.sharding import data_mesh
from laser_jax.training.checkpoints import Checkpoints
from laser_jax.training.setup import Setup
from laser_jax.training.state import initial_state
from laser_jax.training.workdir import write_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory, photo_patches_dir):
    """Three runs as their start leaves them; one name is not meant for Markdown."""
    from configs import tiny

    found = []
    for name, kind in (("_a|b<i>$x^$", "ksvd"), ("plain", "vq"), ("grid", "fsq")):
        config = tiny.get_config()
        config.data.data_dir, config.model.bottleneck = str(photo_patches_dir), kind
        config.model.num_hiddens = 8
        state = initial_state(Setup.from_config(config, data_mesh(jax.devices()[:1])))
        workdir = tmp_path_factory.mktemp("runs") / name
        write_config(workdir, config)
        with Checkpoints(workdir, keep=1) as checkpoints:
            checkpoints.save(state)
        writer = metric_writers.SummaryWriter(str(workdir))
        writer.write_scalars(1, {"train/loss": 1.0})
        writer.close()
        found.append(str(workdir))
    return found


def test_every_run_has_its_figures_and_names_are_escaped(runs, tmp_path):
    out = Results(tmp_path, "title")
    figures.draw(out, runs)
    out.write("")
    report = (tmp_path / "README.md").read_text()
    assert "<i>" not in report and "&#95;a&#124;b&#60;i&#62;&#36;x&#94;&#36;: ksvd" in report
    assert "grid has a grid (fsq) and no atoms" in report
    blocks = json.loads((tmp_path / "blocks.json").read_text())["blocks"]
    names = [block["name"] for block in blocks if block["kind"] == "figure"]
    assert names == [
        "reconstructions.png", "channels.png", "codes_0.png", "codes_1.png", "codes_2.png",
        "usage.png", "atoms_0.png", "embedding_0.png", "distances_0.png", "atoms_1.png",
        "embedding_1.png", "distances_1.png", "curves.png",
    ]  # fmt: skip
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)


def test_directory_without_a_run_is_named_in_the_error(runs, tmp_path):
    with pytest.raises(ValueError, match="--runs is empty"):
        figures.load([])
    with pytest.raises(ValueError, match=f"--runs: {tmp_path} holds no run"):
        figures.load([str(tmp_path)])
    with pytest.raises(ValueError, match="names one run twice"):
        figures.load([runs[1], runs[1]])


def test_names_are_text_for_markdown_and_for_figures():
    escaped = results.as_markdown("a`b|c\n<script>")
    assert (
        escaped == "a&#96;b&#124;c &#60;script&#62;" and html.unescape(escaped) == "a`b|c <script>"
    )
    assert results.as_label("_cost $5$") == "\u200b_cost $5$"
