import re

import numpy as np
import pytest

from experiments import report
from experiments.results import Results
from laser_jax.figures import style


@pytest.fixture
def workdir(tmp_path):
    """Two reports."""
    for name in ("reference", "dictionary_learning"):
        out = Results(tmp_path / name, f"About {name}")
        out.heading("What was found")
        out.text("- **one** is `fast`\n- two & three\n\n&#60;i&#62; stays text")
        out.table("t", ["a", "b"], [["x", 1.5]], caption="A table.")
        figure = style.new_figure(2, 1)
        style.picture(figure.subplots(), np.zeros((2, 2)))
        out.figure("f", figure, caption="A figure.")
        out.write("Made by a test.")
    return tmp_path


def test_the_page_holds_every_report_and_needs_no_other_file(workdir):
    page, readme = report.write(workdir, "Nine minutes.")
    html, text = page.read_text(), readme.read_text()
    assert html.count("<section") == html.count("</section>") == 2
    assert '<section id="reference">' in html and '<a href="#reference">About reference</a>' in html
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', html)
    assert html.count('src="data:image/png;base64,iVBOR') == 2
    assert '<div class="table"><table>' in html and "<td>1.50</td>" in html
    assert "<li><strong>one</strong> is <code>fast</code></li>" in html
    assert "<i>" not in html and "&#60;i&#62; stays text" in html
    assert '<meta name="viewport"' in html
    # Markdown points into the directories, and what it points to is there.
    images = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert images == ["reference/f.png", "dictionary_learning/f.png"]
    assert all((workdir / name).exists() for name in images)
    assert "## About reference" in text and "### What was found" in text


def test_every_experiment_of_the_directory_is_run_at_the_size_asked_for(tmp_path):
    commands = report.commands("small", tmp_path, "photographs")
    modules = {command[1].removeprefix("experiments.") for command in commands}
    scripts = {
        path.stem
        for path in (report.ROOT / "experiments").glob("*.py")
        if "app.run(results.program(" in path.read_text() and path.stem != "results"
    }
    assert scripts == {name for name in modules if not name.startswith("--config")}
    assert all("--size=small" in command for command in commands if command[0] == "-m")
    full = report.commands("full", tmp_path, "photographs")
    assert not any("num_train_steps" in word for command in full for word in command)


def test_a_report_on_other_images_leaves_out_what_is_of_photographs_and_says_so(workdir):
    (workdir / "reference").rename(workdir / "denoising")  # of an earlier study
    commands = report.commands("small", workdir, "folder:here")
    assert not {"experiments.denoising", "experiments.activations", "experiments.figures"} & {
        command[1] for command in commands
    }
    assert all("--images=folder:here" in command for command in commands)
    page, readme = report.write(workdir, "Nine minutes.", "folder:here")
    assert '<section id="denoising">' not in page.read_text()
    for text in (page.read_text(), readme.read_text()):
        assert "Left out, as of photographs: " in text and "folder:here" in text
    assert "Left out" not in report.write(workdir, "Nine minutes.")[1].read_text()


def test_failed_study_names_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "commands", lambda *_: [["-c", "raise SystemExit(3)"]])
    monkeypatch.setattr(report.results, "WORKDIR", type("Flag", (), {"value": str(tmp_path)}))
    for name in ("SIZE", "IMAGES"):
        monkeypatch.setattr(report.results, name, type("Flag", (), {"value": "small"}))
    with pytest.raises(SystemExit, match=r"SystemExit\(3\) ended with 3; a study started again"):
        report.main([])
