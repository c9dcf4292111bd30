"""Runs the tutorials and writes their pages: python -m docs.render [NAME] [CONSTANT=VALUE ...].

    make tutorials                               all pages of docs/tutorials
    python -m docs.render restoration SEEDS=3    one page, with another value of a constant

A tutorial is a Python script of cells that start with `# %%`, as in Jupyter or VS Code; cells
`# %% [markdown]` are text. Its page has the text, the code, what the code prints and its figures.
The pages are committed, so `make docs` does not run them.
"""

import ast
import contextlib
import io
import pathlib
import re
import sys
import warnings

FOLDER = pathlib.Path(__file__).parent / "tutorials"


def cells(script):
    """Returns (is_code, text) of each cell of a script's text."""
    _, *parts = re.split(r"^# %%(.*)\n", script, flags=re.MULTILINE)
    found = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        is_code = kind.strip() != "[markdown]"
        text = text.strip("\n")
        found.append((is_code, text if is_code else re.sub(r"^# ?", "", text, flags=re.MULTILINE)))
    return found


def run(script, **constants):
    """Runs a script's cells; returns for each what it printed and its figures.

    Args:
      script: its text.
      constants: variables that keep these values whatever the script assigns to them at top level.

    Raises:
      ValueError: if the script has no assignment `NAME = value` of a constant.
    """
    for name in constants:
        if not re.search(rf"^{name} = ", script, re.MULTILINE):
            raise ValueError(f"the tutorial has no line {name} = ...")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    namespace, outputs = {"__name__": "__main__"}, []
    for is_code, text in cells(script):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
            if is_code:
                exec(compile(_with(text, constants), "tutorial", "exec"), namespace)
        outputs.append((printed.getvalue(), [plt.figure(n) for n in plt.get_fignums()]))
        plt.close("all")
    return outputs


def _with(text, constants):
    """The syntax tree of code, the values of constants replaced."""
    tree = ast.parse(text)
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in constants:
            node.value = ast.parse(repr(constants[node.targets[0].id]), mode="eval").body
    return ast.fix_missing_locations(tree)


def page(script, outputs, name):
    """Returns the Markdown of a page, and file name -> figure."""
    parts, figures = [], {}
    for (is_code, text), (printed, drawn) in zip(cells(script), outputs, strict=True):
        parts.append(f"```python\n{text}\n```" if is_code else text)
        if printed:
            parts.append(f"```text\n{printed.rstrip()}\n```")
        for figure in drawn:
            file = f"{name}_{len(figures) + 1}.webp"
            figures[file] = figure
            parts.append(f"![Figure drawn by the code above](img/{file})")
    parts.append(f"*This page is the output of `docs/tutorials/{name}.py` (`make tutorials`).*")
    return "\n\n".join(parts) + "\n", figures


def write(name, **constants):
    """Runs a tutorial and writes its page and figures."""
    script = (FOLDER / f"{name}.py").read_text()
    text, figures = page(script, run(script, **constants), name)
    (FOLDER / "img").mkdir(exist_ok=True)
    for old in (FOLDER / "img").glob(f"{name}_*"):
        old.unlink()
    for file, figure in figures.items():
        figure.savefig(FOLDER / "img" / file, dpi=100, pil_kwargs={"quality": 80})
    (FOLDER / f"{name}.md").write_text(text)


def main(arguments):
    """Writes the pages that the arguments name, or all."""
    constants = dict(word.split("=", 1) for word in arguments if "=" in word)
    constants = {name: ast.literal_eval(value) for name, value in constants.items()}
    names = [word for word in arguments if "=" not in word]
    for name in names or sorted(path.stem for path in FOLDER.glob("*.py")):
        print(name, flush=True)
        write(name, **constants)


if __name__ == "__main__":
    main(sys.argv[1:])
