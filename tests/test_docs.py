"""The examples of README and docs run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def examples(name):
    """The Python examples of a page, but those that need a trained run."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    return [block for block in blocks if "laser_jax.load(" not in block]


@pytest.mark.parametrize("name", ["README.md", "docs/sparse.md"])
def test_every_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(examples(name)) >= 2
    for block in examples(name):
        exec(compile(block, name, "exec"), {})
    if name == "docs/sparse.md":
        atoms, psnr = re.findall(r"[\d.]+", capsys.readouterr().out)
        assert float(atoms) < 2 and float(psnr) > 34  # what the page says of it
        assert {p.name for p in tmp_path.iterdir()} == {"atoms.png", "decoded.png"}
