"""Writes docs/configuration.md: python -m docs.configuration.

Meanings and order come from `configs/default.py`, defaults from its values, types and ranges from
`laser_jax/training/settings.py`.
"""

import ast
import pathlib
import tokenize

from configs import default
from laser_jax.training.settings import SETTINGS
from laser_jax.training.workdir import flat_config

PAGE = pathlib.Path(__file__).with_suffix(".md")
_HEAD = """# Configuration reference

Every key of a run, with its default, type and range. A config is checked against this table
before anything is made. Set a key on the command line with `--config.KEY=VALUE`, for example
`--config.model.patch_size="(2, 4)"`. [Which coder](sparse.md#which-coder) compares the values of
`sparse_coder`.

This page is generated from `configs/default.py` and `laser_jax/training/settings.py` by
`python -m docs.configuration`.
"""
_GROUPS = {
    "": "The run",
    "data": "Data",
    "model": "Model",
    "loss": "Losses",
    "adversarial": "Discriminator",
    "prior": "Prior",
    "optimizer": "Optimizer",
    "eval": "Evaluation",
    "weights": "Pretrained weights",
}
_TABLE = "| key | meaning | default | type | range |\n|---|---|---|---|---|\n"


def meanings(path=default.__file__):
    """Returns dotted key -> the comment beside its assignment, or else the lines above it."""
    with tokenize.open(path) as file:
        source = file.read()
        file.seek(0)
        tokens = list(tokenize.generate_tokens(file.readline))
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        first = node.lineno
        while first - 1 in comments and source.splitlines()[first - 2].lstrip().startswith("#"):
            first -= 1
        above = " ".join(comments[line] for line in range(first, node.lineno))
        key = ast.unparse(node.targets[0]).removeprefix("config.")
        found[key] = comments.get(node.end_lineno) or above
    return found


def page():
    """Returns the page, one table for each group of keys."""
    defaults = flat_config(default.get_config())
    meaning = {key: text.replace("|", r"\|") for key, text in meanings().items()}
    rows = {group: "" for group in _GROUPS}
    for key, text in meaning.items():
        if key in defaults:  # a group has a comment too
            setting = SETTINGS[key]
            rows[key.rpartition(".")[0]] += (
                f"| `{key}` | {text} | {_shown(defaults[key])} | {setting.type} | {setting} |\n"
            )
    return _HEAD + "".join(f"\n## {_GROUPS[group]}\n\n{_TABLE}{rows[group]}" for group in rows)


def _shown(value):
    return f"`{value}`" if isinstance(value, str) else f"{value}"


if __name__ == "__main__":
    PAGE.write_text(page())
