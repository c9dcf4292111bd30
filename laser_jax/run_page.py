"""One HTML page of a run: tables, curves, reconstructions, and the use and images of the atoms."""

import base64
import html
import io

import numpy as np

from laser_jax.figures import atom_sheet
from laser_jax.figures.comparisons import usage_bars
from laser_jax.figures.curves import curve_figure, read_scalars
from laser_jax.files import read_json, whole_file
from laser_jax.models.inference import decode_atoms
from laser_jax.paths import printable, resolve_path, resolve_workdir
from laser_jax.trained import TrainedAutoencoder, load
from laser_jax.training.settings import flat_config
from laser_jax.training.workdir import read_config

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;text-align:left;"
    "border-bottom:1px solid #ccc}img{max-width:100%}.scroll{overflow-x:auto}"
)


def write_page(workdir, path, *, checkpoint="newest"):
    """Writes the page of a run: one file that needs no other files and no network.

    Args:
      workdir: directory of the run.
      path: where the HTML file goes.
      checkpoint: `newest` or `best`, for the atoms.

    Raises:
      FileNotFoundError: if the workdir holds no run or no such checkpoint.
      OSError: if the page cannot be written.
    """
    workdir, path = resolve_workdir(workdir), resolve_path(path, "--out")
    config, trained = read_config(workdir), load(workdir, checkpoint=checkpoint)
    parts = [_metrics(workdir), *_curves(workdir), *_pictures(workdir)]
    if isinstance(trained, TrainedAutoencoder):
        parts += _atoms(trained)
    settings = {key: str(value) for key, value in flat_config(config).items()}
    parts += ["<h2>Config</h2>", _table(("key", "value"), settings.items())]
    title = html.escape(printable(workdir.name))
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>\n"
        f"<p>{html.escape(printable(str(workdir)))}</p>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _metrics(workdir):
    """The table of all metrics: a column for the end of training and each evaluation."""
    files = [workdir / "metrics.json", *sorted(workdir.glob("evaluation*.json"))]
    columns = {file.stem: read_json(file) for file in files if file.exists()}
    if not columns:
        return "<p>There are no metrics yet: the run has not ended and was not evaluated.</p>"
    if "metrics" in columns:
        columns = {
            "validation": {k.removeprefix("val/"): v for k, v in columns.pop("metrics").items()}
        } | columns
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    rows = [(name, *(_shown(values.get(name)) for values in columns.values())) for name in names]
    return "<h2>Metrics</h2>" + _table(("metric", *columns), rows)


def _curves(workdir):
    scalars = read_scalars(workdir)
    if not scalars:
        return []
    figure = curve_figure({workdir.name: scalars}, sorted(scalars))
    return ["<h2>Curves</h2>", _of_figure(figure)]


def _pictures(workdir):
    """The figures that training and evaluation wrote."""
    files = sorted([*workdir.glob("*reconstructions*.png"), *workdir.glob("samples*.png")])
    if not files:
        return []
    pictures = (f"<h3>{html.escape(file.stem)}</h3>{_image(file.read_bytes())}" for file in files)
    return ["<h2>Pictures</h2>", *pictures]


def _atoms(trained):
    from PIL import Image

    bottleneck, step = trained.model.bottleneck, int(trained.state.step)
    sheet = atom_sheet(decode_atoms(trained.model, trained.variables))
    pixels = np.round(255 * sheet).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    parts = [f"<h2>Atoms at step {step}, decoded</h2>", _image(file.getvalue())]
    if not bottleneck.is_learned:  # its use is not followed in training
        return parts
    uses = {trained.config.model.bottleneck: np.asarray(trained.state.dictionary["usage"])}
    figure = usage_bars(uses, least=bottleneck.min_usage)
    text = (
        f"<p>Decayed averages. Used is what has at least {bottleneck.min_usage:g} (min_usage) of "
        "the mean use.</p>"
    )
    return [f"<h2>Recent use of the atoms at step {step}</h2>", text, _of_figure(figure), *parts]


def _table(head, rows):
    cells = ("".join(f"<th>{html.escape(name)}</th>" for name in head),)
    cells += tuple(
        "".join(f"<td>{html.escape(printable(str(cell)))}</td>" for cell in row) for row in rows
    )
    body = "\n".join(f"<tr>{row}</tr>" for row in cells)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def _shown(value):
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else value


def _of_figure(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return _image(file.getvalue())


def _image(png):
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
