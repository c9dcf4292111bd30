"""The whole study: every experiment in turn, and one page of all their reports.

    python -m experiments.report --size=small --workdir=report     (make report)
    python -m experiments.report --size=full --workdir=runs/full   (make study)

    workdir/index.html   the page, figures embedded
    workdir/README.md    the same as Markdown
    workdir/NAME/        the results of each experiment

Stored points are not computed again, so a stopped study resumes.
"""

import base64
import json
import logging
import pathlib
import subprocess
import sys
import time

import markdown
from absl import app

from experiments import results
from laser_jax.paths import resolve_path

log = logging.getLogger("laser_jax")
ROOT = pathlib.Path(__file__).parent.parent

EXPERIMENTS = (
    "latent_codecs", "large_pictures", "generation", "rate_distortion", "reference",
    "dictionary_learning", "activations", "denoising",
)  # fmt: skip
# What needs whole or coloured photographs, or a network trained on them, whatever --images says.
OF_PHOTOGRAPHS = ("activations", "denoising", "figures")
# The runs that `figures` draws: configs, and what a small run of them changes.
RUNS = ("vqvae_photos", "ksvd_photos")
SMALL_RUN = (
    "--config.num_train_steps=200", "--config.eval_every_steps=100",
    "--config.optimizer.warmup_steps=20", "--config.log_every_steps=10",
    "--config.model.num_hiddens=32", "--config.model.ksvd_method=approximate",
)  # fmt: skip
STYLE = """
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #222; background: #fff;
       font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; }
section { border-top: 1px solid #ccc; margin-top: 2.5rem; }
img { max-width: 100%; height: auto; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left; }
th { vertical-align: bottom; }
code { background: #f3f3f3; padding: .1rem .25rem; font-size: .9em; }
"""


def main(_):
    """Runs the missing experiments and writes the page."""
    results.log_plainly()
    size = results.SIZE.value
    default = "report" if size == "small" else "runs/full"
    workdir = resolve_path(results.WORKDIR.value or default, "--workdir")
    start = time.perf_counter()
    for command in commands(size, workdir, results.IMAGES.value):
        log.info("%s", " ".join(command))
        if code := subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
            raise SystemExit(
                f"{' '.join(command)} ended with {code}; a study started again goes on from there."
            )
    minutes = (time.perf_counter() - start) / 60
    preface = f"{minutes:.0f} minutes this time. {results.provenance(size)}"
    for path in write(workdir, preface, results.IMAGES.value):
        log.info("%s", path)


def commands(size, workdir, images):
    """Returns the arguments of Python for every experiment, and for the runs that are drawn."""
    wanted = parts(images)
    found = [
        ["-m", f"experiments.{name}", f"--size={size}", f"--images={images}",
         f"--workdir={workdir / name}"]
        for name in EXPERIMENTS if name in wanted
    ]  # fmt: skip
    if "figures" not in wanted:
        return found
    runs = [workdir / "runs" / name for name in RUNS]
    for name, run in zip(RUNS, runs, strict=True):
        changes = SMALL_RUN if size == "small" else ()
        found.append(["main.py", f"--config=configs/{name}.py", f"--workdir={run}", *changes])
    found.append([
        "-m", "experiments.figures", f"--size={size}", f"--runs={','.join(map(str, runs))}",
        f"--workdir={workdir / 'figures'}",
    ])  # fmt: skip
    return found


def parts(images):
    """Returns the names of the reports that are of these images."""
    names = *EXPERIMENTS, "figures"
    return [name for name in names if images == "photographs" or name not in OF_PHOTOGRAPHS]


def write(workdir, preface, images="photographs"):
    """Writes index.html and README.md of the reports in a workdir; returns both paths.

    Args:
      workdir: path whose directories hold reports; those that are not there are left out.
      preface: text below the title.
      images: what the reports are of; the page names the parts of photographs that it leaves out.
    """
    names = [name for name in parts(images) if (workdir / name / "blocks.json").exists()]
    if images != "photographs":
        left_out = ", ".join(f"`{name}`" for name in OF_PHOTOGRAPHS)
        preface += (
            f"\n\nThe images are those of `{images}`. Left out, as of photographs: {left_out}."
        )
    reports = {name: json.loads((workdir / name / "blocks.json").read_text()) for name in names}
    title = "VQ against sparse dictionaries, on pixels and on latents"
    links = "\n".join(f"- [{reports[name]['title']}](#{name})" for name in names)
    lines, sections = [f"# {title}", preface, links], [html(f"# {title}\n\n{preface}\n\n{links}")]
    for name, report in reports.items():
        lines += [f'<a id="{name}"></a>', f"## {report['title']}"]
        sections.append(f'<section id="{name}">' + html(f"## {report['title']}"))
        for block in report["blocks"]:
            text = results.markdown(block | {"level": 3})
            if block["kind"] == "figure":
                image = f"]({block['name']})"
                lines.append(text.replace(image, f"]({name}/{block['name']})"))
                text = text.replace(image, f"]({embedded(workdir / name / block['name'])})")
            else:
                lines.append(text)
            sections.append(html(text))
        sections.append("</section>")
    page, readme = workdir / "index.html", workdir / "README.md"
    page.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )
    readme.write_text("\n\n".join(lines) + "\n")
    return page, readme


def html(text):
    """Returns Markdown as HTML; wide tables scroll by themselves."""
    found = markdown.markdown(text, extensions=["tables", "sane_lists"])
    return found.replace("<table>", '<div class="table"><table>').replace(
        "</table>", "</table></div>"
    )


def embedded(path):
    """Returns a PNG as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


if __name__ == "__main__":
    app.run(main)
