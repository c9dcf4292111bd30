"""The tutorials run, and their pages show the code of their scripts."""

import re

import pytest

from docs import render

# What makes a tutorial small enough for a test.
SMALL = {
    "dictionary": {"PATCHES": 400, "ATOMS": 20, "SPARSITY": 3, "ITERATIONS": 2},
    "restoration": {
        "FREQUENCIES": 8, "SIDE": 24, "SMALL_SIDE": 16, "MISSING": (0.5,), "PATCHES": 300,
        "ITERATIONS": 2,
    },
    "training": {"STEPS": 60},
    "generation": {
        "AUTOENCODER_STEPS": 12, "PRIOR_STEPS": 10, "HIDDENS": 8, "WIDTH": 16, "SAMPLES": 64,
    },
    "bottlenecks": {"STEPS": 10, "HIDDENS": 8, "WINDOWS": 64, "TABLE_IMAGES": 16},
}  # fmt: skip


def script(name):
    return (render.FOLDER / f"{name}.py").read_text()


def run(name):
    """What the cells of a small tutorial print, as one text, and the number of its figures."""
    outputs = render.run(script(name), **SMALL[name])
    return "".join(text for text, _ in outputs), sum(len(figures) for _, figures in outputs)


def table(text, header):
    """The rows of numbers below a header."""
    rows = []
    for line in text[re.search(header, text).end() :].splitlines()[1:]:
        numbers = [float(x) for x in re.findall(r"(?<![\w.])\d+\.\d+", line)]
        if not numbers:
            break
        rows.append(numbers)
    return rows


def test_every_tutorial_is_run():
    assert set(SMALL) == {path.stem for path in render.FOLDER.glob("*.py")}


@pytest.mark.parametrize("name", SMALL)
def test_page_shows_the_cells_of_its_script_and_its_figures(name):
    page = (render.FOLDER / f"{name}.md").read_text()
    place = 0
    for is_code, text in render.cells(script(name)):
        block = f"```python\n{text}\n```" if is_code else text
        place = page.find(block, place)
        assert place >= 0, f"run python -m docs.render {name}: its page lacks\n{block}"
    figures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert figures and all((render.FOLDER / file).is_file() for file in figures)


def test_pages_are_small():
    assert sum(path.stat().st_size for path in (render.FOLDER / "img").iterdir()) < 1.5e6


@pytest.mark.slow
def test_a_learned_dictionary_is_better_than_the_patches_it_started_from():
    text, figures = run("dictionary")
    rows = table(text, "atoms a patch .*learned")
    assert len(rows) == 5 and all(learned > patches for patches, learned in rows)
    assert figures == 2


@pytest.mark.slow
def test_denoised_and_inpainted_pictures_are_better_than_damaged_ones():
    text, figures = run("restoration")
    for header, gain in (("sigma .*TV", 3), ("missing .*photographs", 8)):
        rows = table(text, header)
        assert len(rows) == 4  # three pictures, and the mean
        assert all(min(others) > damaged + gain for damaged, *others in rows), rows
    assert figures == 2


@pytest.mark.slow
def test_a_stopped_run_resumes_and_loads(monkeypatch, photo_patches_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(photo_patches_dir))
    monkeypatch.chdir(render.FOLDER.parents[1])
    text, figures = run("training")
    assert "exit code 75" in text and re.search(r"resuming from step [2-5]\d of runs/tiny", text)
    assert "step 60 of 60" in text and "equal to decode(encode(images)): True" in text
    assert figures == 2


@pytest.mark.slow
def test_every_bottleneck_has_a_rate_and_a_quality(monkeypatch, photo_patches_dir):
    monkeypatch.setenv("TFDS_DATA_DIR", str(photo_patches_dir))
    text, figures = run("bottlenecks")
    rows = [row[-2:] for row in table(text, "bottleneck .*PSNR")]  # names have numbers, too
    assert len(rows) == 6 and all(0 < rate < 5 and 10 < psnr < 30 for rate, psnr in rows)
    assert figures == 2


@pytest.mark.slow
def test_a_prior_has_bits_samples_and_completions():
    text, figures = run("generation")
    rows = dict(re.findall(r"^([\w -]+?)\s+(-?[\d.]+) bits", text, re.MULTILINE))
    assert all(0 < float(rows[name]) < 1 for name in ("order-0 tables", "context model", "prior"))
    scores = re.findall(r"([\d.]+)%", text)
    assert len(scores) == 4 and float(scores[0]) > 98
    assert figures == 2
