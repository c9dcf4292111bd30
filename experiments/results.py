"""What an experiment leaves in its workdir: computed points, tables, figures and a report.

    workdir/README.md       the report, with its tables and figures
    workdir/NAME.csv        each table
    workdir/NAME.png        each figure
    workdir/blocks.json     the report's parts in order, for other layouts
    workdir/points/         what was computed; a run that was stopped goes on from it

A script is a function `run(results, size)` and a dict of its sizes:

    if __name__ == "__main__":
        app.run(results.program("speed", "VQ and sparse coding: time", run, SIZES))
"""

import csv
import hashlib
import json
import logging
import os
import pathlib
import platform
import re
import subprocess
import time

import jax
import numpy as np
from absl import flags
from absl import logging as absl_logging

from laser_jax.files import whole_file, writing
from laser_jax.paths import resolve_path

log = logging.getLogger("laser_jax")

WORKDIR = flags.DEFINE_string("workdir", "", "Where results go; default runs/SIZE/NAME.")
SIZE = flags.DEFINE_enum("size", "full", ["small", "full"], "small: minutes; full: the study.")
IMAGES = flags.DEFINE_string(
    "images", "photographs", "photographs, or a prepared data set: celeb_a, imagenette, folder:PATH"
)


class Results:
    """A workdir being filled.

    Args:
      workdir: directory, made if it is not there.
      title: the report's heading.
      images: where images come from; see the flag.
    """

    def __init__(self, workdir, title, images="photographs"):
        self.workdir = resolve_path(workdir, "--workdir")
        with writing(f"the workdir {self.workdir}"):
            (self.workdir / "points").mkdir(parents=True, exist_ok=True)
        self.title, self.images, self.blocks = title, images, []

    def point(self, name, settings, compute):
        """Returns `compute()`, a dict of numbers, strings, lists or NumPy arrays, computed once.

        It is read back if `settings` (JSON values: all that the outcome depends on) are the same;
        a file only ever appears whole.
        """
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = self.workdir / "points" / f"{name}-{digest}.npz"
        if not path.exists():
            start = time.perf_counter()
            found = {key: np.asarray(value) for key, value in compute().items()}
            seconds = time.perf_counter() - start
            if seconds > 1:
                log.info("%s %s: %.0f s", name, text, seconds)
            with whole_file(path) as partial, open(partial, "wb") as file:
                np.savez(file, **found)
        with np.load(path, allow_pickle=False) as stored:
            return {key: x.item() if (x := stored[key]).ndim == 0 else x for key in stored.files}

    def text(self, paragraph):
        """Adds a paragraph of Markdown."""
        self.blocks.append({"kind": "text", "text": paragraph})

    def heading(self, text):
        """Adds a heading."""
        self.blocks.append({"kind": "heading", "text": text})

    def csv(self, name, header, rows):
        """Writes NAME.csv."""
        with open(self.workdir / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])

    def table(self, name, header, rows, *, caption=""):
        """Writes NAME.csv, and adds the table; there floats have three digits."""
        self.csv(name, header, rows)
        cells = [[shown(cell) for cell in row] for row in rows]
        self.blocks.append(
            {"kind": "table", "name": name, "header": header, "rows": cells, "caption": caption}
        )

    def figure(self, name, figure, *, caption):
        """Writes a matplotlib figure as NAME.png and adds it."""
        figure.savefig(self.workdir / f"{name}.png")
        self.blocks.append({"kind": "figure", "name": f"{name}.png", "caption": caption})

    def write(self, preface):
        """Writes README.md and blocks.json: the title, `preface`, and all that was added."""
        blocks = [{"kind": "text", "text": preface}, *self.blocks]
        with open(self.workdir / "blocks.json", "w") as file:
            json.dump({"title": self.title, "blocks": blocks}, file, indent=1)
        parts = [f"# {self.title}", *map(markdown, blocks)]
        (self.workdir / "README.md").write_text("\n\n".join(parts) + "\n")


def markdown(block):
    """Returns one part of a report as Markdown."""
    if block["kind"] == "heading":
        return f"{'#' * block.get('level', 2)} {block['text']}"
    if block["kind"] == "figure":
        return f"![{block['caption']}]({block['name']})\n\n*{block['caption']}*"
    if block["kind"] == "table":
        lines = [block["header"], ["---"] * len(block["header"]), *block["rows"]]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{block['caption']}\n\n{table}" if block["caption"] else table
    return block["text"]


def shown(cell):
    """Returns a table's cell as text: floats with three significant digits, no exponent."""
    if isinstance(cell, str) or cell is None:
        return cell or ""
    if isinstance(cell, (int, np.integer)):
        return f"{cell:,}"
    if not np.isfinite(cell):
        return str(float(cell))
    digits = 3 if cell == 0 else max(0, 2 - int(np.floor(np.log10(abs(cell)))))
    return f"{cell:.{min(digits, 6)}f}"


def spread(values, form="{:.2f}", scale=1):
    """Returns mean ± standard deviation over seeds as text, the latter if there are several;
    nothing where a value is not finite."""
    if not np.isfinite(values).all():
        return ""
    mean, unsigned = form.format(scale * np.mean(values)), form.replace("+", "")
    return f"{mean} ± {unsigned.format(scale * np.std(values))}" if len(values) > 1 else mean


def as_markdown(name):
    """Returns any name escaped for Markdown and HTML."""
    return re.sub(r"[^\w .,:/=-]|_", lambda found: f"&#{ord(found[0])};", " ".join(name.split()))


def as_label(name):
    """Returns a name for a figure, in one line; legends hide names that begin with _."""
    text = " ".join(name.split())
    return f"\u200b{text}" if text.startswith("_") else text


def provenance(size):
    """Returns a line with the size, commit, machine and versions that made the numbers."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    device = jax.devices()[0]
    kind = _cpu_name() if device.platform == "cpu" else device.device_kind
    what = "the full-size study" if size == "full" else "a small run, not the study"
    return (
        f"Size `{size}` ({what}); commit `{commit or 'unknown'}`, {os.cpu_count()} cores, "
        f"{device.platform} ({kind}), jax {jax.__version__}, {time.strftime('%Y-%m-%d')}."
    )


def _cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def log_plainly():
    """Logs laser_jax as plain lines, and hides the logs of other packages."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    log.addHandler(logging.StreamHandler())
    log.propagate, log.level = False, logging.INFO


def program(name, title, run, sizes):
    """Returns the `main` of a script: `run(results, sizes[--size])`, then the report is written."""

    def main(arguments):
        if len(arguments) > 1:
            raise SystemExit(f"unknown arguments: {' '.join(arguments[1:])}")
        log_plainly()
        results = Results(WORKDIR.value or f"runs/{SIZE.value}/{name}", title, IMAGES.value)
        start = time.perf_counter()
        run(results, sizes[SIZE.value])
        seconds = time.perf_counter() - start
        command = f"python -m experiments.{name} --size={SIZE.value}"
        results.write(f"`{command}`: {seconds:.0f} s this time. {provenance(SIZE.value)}")
        log.info("%s", results.workdir / "README.md")

    return main
