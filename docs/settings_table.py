"""Writes the guide's table of settings: python -m docs.settings_table.

Meanings come from the comments of `configs/default.py`, defaults from its values, types and ranges
from `laser_jax/training/settings.py`.
"""

import ast
import pathlib
import re
import tokenize

from configs import default
from laser_jax.training.settings import SETTINGS
from laser_jax.training.workdir import flat_config

GUIDE = pathlib.Path(__file__).with_name("guide.md")
_HEAD = "| key | meaning | default | type | range |\n|---|---|---|---|---|\n"
_TABLE = re.compile(re.escape(_HEAD) + r"(\|.*\n)*")


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


def table():
    """Returns the table, a row for each key."""
    defaults = flat_config(default.get_config())
    meaning = {key: text.replace("|", r"\|") for key, text in meanings().items()}
    rows = [
        f"| `{key}` | {meaning[key]} | {_shown(defaults[key])} | {setting.type} | {setting} |\n"
        for key, setting in SETTINGS.items()
    ]
    return _HEAD + "".join(rows)


def updated(guide):
    """Returns the guide's text with the present table."""
    return _TABLE.sub(lambda _: table(), guide)


def _shown(value):
    return f"`{value}`" if isinstance(value, str) else f"{value}"


if __name__ == "__main__":
    GUIDE.write_text(updated(GUIDE.read_text()))
