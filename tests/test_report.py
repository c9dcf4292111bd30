"""python -m laser_jax report, on a stored run."""

import html.parser
import json
import shutil

import pytest
from clu import metric_writers
from PIL import Image

from laser_jax.__main__ import main
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
    assert {"vq", "Metrics", "Curves", "Pictures", "Atoms, decoded", "Config"} <= set(page.titles)
    value = json.loads((run / "evaluation.json").read_text())["psnr_pooled"]
    assert page.cells[page.cells.index("psnr_pooled") :].index(f"{value:.5g}") <= 2
    assert page.cells[page.cells.index("model.bottleneck") + 1] == "vq"
    assert len(page.sources) == 4  # curves, reconstructions, use, atoms
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in page.sources)
    assert main(["report", f"--workdir={run}", f"--out={out}"]) == 1
    assert "--overwrite" in capsys.readouterr().err


def test_workdir_without_a_run_is_an_error(tmp_path, capsys):
    out = tmp_path / "run.html"
    assert main(["report", f"--workdir={tmp_path / 'missing'}", f"--out={out}"]) == 1
    assert "holds no run" in capsys.readouterr().err
    assert not out.exists()
