"""Examples, links and commands of README and docs hold."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
PAGES += ["README.md", "CONTRIBUTING.md"]


def examples(name):
    """The Python examples of a page, but those that need a trained run."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    return [block for block in blocks if "laser_jax.load(" not in block]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/activations.md",
        "docs/training.md",
        pytest.param("docs/sparse.md", marks=pytest.mark.slow),
    ],
)
def test_every_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert examples(name)
    for block in examples(name):
        exec(compile(block, name, "exec"), {})
    if name == "docs/sparse.md":
        atoms, psnr = re.findall(r"[\d.]+", capsys.readouterr().out)
        assert float(atoms) < 2 and float(psnr) > 34  # what the page says of it
        assert {p.name for p in tmp_path.iterdir()} == {"atoms.png", "decoded.png"}


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("name", PAGES)
def test_linked_files_and_sections_exist(name):
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        file, _, section = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), target
        if section:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert section in {slug(title) for title in titles}, target


def slug(title):
    """The anchor of a heading, as mkdocs and GitHub make it."""
    return re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("name", PAGES)
def test_named_configs_and_modules_exist(name):
    text = (ROOT / name).read_text()
    for config in re.findall(r"--config=(configs/\w+\.py)", text):
        assert (ROOT / config).exists(), config
    for module in re.findall(r"python -m ((?:laser_jax|experiments|benchmarks|docs)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_named_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for name in PAGES:
        for target in re.findall(r"^\s+make ([\w-]+)", (ROOT / name).read_text(), re.MULTILINE):
            assert f"\n{target}:" in makefile, f"make {target} in {name}"
