"""python -m laser_jax report, on a stored run."""

import html.parser
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from clu import metric_writers
from PIL import Image

from laser_jax import run_page
from laser_jax.__main__ import main
from laser_jax.models import FiniteScalarQuantizer, VectorQuantizer
from tests.test_reconstruct import workdir  # noqa: F401


class Page(html.parser.HTMLParser):
    """The titles, the cells of tables and the sources of images of a page."""

    def __init__(self, text):
        super().__init__()
        self.titles, self.cells, self.sources, self._tag = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._tag = tag
        if tag == "img":
            self.sources.append(dict(attributes)["src"])

    def handle_data(self, data):
        if self._tag in ("h1", "h2", "h3"):
            self.titles.append(data.strip())
        elif self._tag in ("td", "th"):
            self.cells.append(data.strip())


@pytest.fixture
def run(workdir, tmp_path):  # noqa: F811
    """The stored run with curves and a figure, as a run of today has them."""
    shutil.copytree(workdir, tmp_path / "vq")
    writer = metric_writers.SummaryWriter(str(tmp_path / "vq"))
    for step in (10, 20):
        writer.write_scalars(step, {"train/loss": 1 / step, "val/loss": 2 / step})
    writer.close()
    Image.new("RGB", (20, 10)).save(tmp_path / "vq" / "reconstructions.png")
    return tmp_path / "vq"


def test_page_has_tables_curves_reconstructions_and_atoms(run, tmp_path, capsys):
    out = tmp_path / "new" / "run.html"
    assert main(["report", f"--workdir={run}", f"--out={out}"]) == 0
    page = Page(out.read_text())
    assert {"vq", "Metrics", "Curves", "Pictures", "Config"} <= set(page.titles)
    assert {"Recent use of the atoms at step 20", "Atoms at step 20, decoded"} <= set(page.titles)
    value = json.loads((run / "evaluation.json").read_text())["psnr_pooled"]
    assert page.cells[page.cells.index("psnr_pooled") :].index(f"{value:.5g}") <= 2
    assert page.cells[page.cells.index("model.bottleneck") + 1] == "vq"
    assert len(page.sources) == 4  # curves, reconstructions, use, atoms
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert main(["report", f"--workdir={run}", f"--out={out}"]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("bottleneck, titles", [
    (VectorQuantizer(4, 4, min_usage=0.05), ["vq: 2 of 4 used"]),
    (FiniteScalarQuantizer((2, 2)), []),
])  # fmt: skip
def test_used_atoms_are_those_of_min_usage_and_fsq_has_no_use(bottleneck, titles, monkeypatch):
    found, real = [], run_page.usage_bars

    def kept(*arguments, **options):
        figure = real(*arguments, **options)
        found.append(figure.axes[0].get_title())
        return figure

    monkeypatch.setattr(run_page, "usage_bars", kept)
    monkeypatch.setattr(run_page, "decode_atoms", lambda *_: np.zeros((4, 8, 8, 3)))
    state = SimpleNamespace(dictionary={"usage": np.array([3, 1e-9, 0.04, 0.05])}, step=20)
    config = SimpleNamespace(model=SimpleNamespace(bottleneck="vq"))
    model = SimpleNamespace(bottleneck=bottleneck)
    trained = SimpleNamespace(state=state, config=config, model=model, variables=None)
    assert any("step 20" in part for part in run_page._atoms(trained))
    assert found == titles


def test_truncated_metrics_are_an_error_with_the_name_of_the_file(run, tmp_path, capsys):
    text = (run / "evaluation.json").read_text()
    (run / "evaluation.json").write_text(text[: len(text) // 2])
    assert main(["report", f"--workdir={run}", f"--out={tmp_path / 'run.html'}"]) == 1
    assert "evaluation.json is not JSON, so it may be cut" in capsys.readouterr().err


def test_workdir_without_a_run_is_an_error(tmp_path, capsys):
    out = tmp_path / "run.html"
    assert main(["report", f"--workdir={tmp_path / 'missing'}", f"--out={out}"]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert not out.exists()
