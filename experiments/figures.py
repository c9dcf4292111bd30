"""Figures of trained runs, side by side.

    python -m experiments.figures --runs=runs/ksvd_photos,runs/vq_photos --workdir=runs/figures

Reconstructions with error maps, maps of the codes, a slice through an image, how often each atom
is used, the atoms decoded, where they lie and how far from each other, training curves. The
first run is drawn as the reference draws VQ, the second as dictionaries.
"""

import numpy as np
from absl import app, flags

import laser_jax
from experiments import results
from experiments.photographs import square_images
from laser_jax.data import open_split
from laser_jax.evaluation.split import evenly_spaced_images
from laser_jax.figures import atom_sheet, style
from laser_jax.figures.comparisons import channel_slice, reconstruction_comparison, usage_bars
from laser_jax.figures.curves import curve_figure, read_scalars
from laser_jax.figures.embeddings import distance_figure, embedding_figure
from laser_jax.figures.heatmaps import code_maps, heatmap_figure
from laser_jax.models.inference import code_atoms, decode_atoms
from laser_jax.paths import resolve_path
from laser_jax.sparse import usage

RUNS = flags.DEFINE_list("runs", [], "Workdirs of trained runs, comma separated.")
SIDE = 128  # of the photographs' parts that are shown
TAGS = (
    "train/loss", "train/recon_loss", "train/psnr", "train/ssim", "train/bottleneck_loss",
    "train/dictionary_perplexity", "val/psnr", "val/ssim",
)  # fmt: skip
SIZES = {"small": None, "full": None}  # nothing here takes long


def run(out, _):
    """Draws the runs that `--runs` names."""
    draw(out, RUNS.value)


def draw(out, workdirs):
    """Draws runs and lays out the report.

    Raises:
      ValueError: if there is no workdir, or one that holds no trained run.
    """
    runs = load(workdirs)
    for name, trained in runs.items():
        config = trained.config
        kind = f"{config.model.bottleneck}, {int(trained.state.step)} steps of {config.data.name}"
        out.text(f"- {results.as_markdown(name)}: {kind}")
    uses = {
        name: uses_of(trained)
        for name, trained in runs.items()
        if trained.model.bottleneck.is_learned
    }
    draw_pictures(out, runs)
    draw_codes(out, runs, uses)
    draw_atoms(out, runs, uses)
    scalars = {
        results.as_label(name): read_scalars(path)
        for name, path in zip(runs, workdirs, strict=True)
    }
    if any(scalars.values()):
        out.heading("Training")
        out.figure("curves", curve_figure(scalars, TAGS), caption="Faint: as logged.")


def load(workdirs):
    """Returns name -> trained run; two runs of one name get their parents' names before it."""
    if not workdirs:
        raise ValueError("--runs is empty; name the workdirs of trained runs, comma separated.")
    paths = [resolve_path(workdir, "--runs").resolve() for workdir in workdirs]
    names = [path.name for path in paths]
    names = [
        f"{path.parent.name}/{path.name}" if names.count(path.name) > 1 else path.name
        for path in paths
    ]
    runs = {}
    for name, path in zip(names, paths, strict=True):
        try:
            runs[name] = laser_jax.load(path)
        except FileNotFoundError as error:
            raise ValueError(f"--runs: {error}") from error
    if len(runs) < len(paths):
        raise ValueError(f"--runs names one run twice: {', '.join(map(str, paths))}.")
    return runs


def shown_images(trained, count):
    """Returns test images `(count, H, W, 3)` in [0, 1]: larger parts of whole photographs where a
    run learned from windows of such, as networks are convolutional."""
    if trained.config.data.name == "photo_patches":
        return square_images("photographs", split="test", count=count, side=SIDE)
    return evenly_spaced_images(open_split(trained.config.data, "test"), count) / np.float32(255)


def draw_pictures(out, runs):
    """Adds reconstructions and the slice, of runs with equal images."""
    first = next(iter(runs.values()))
    images = shown_images(first, 4)
    same = {
        results.as_label(name): trained.reconstruct(images)
        for name, trained in runs.items()
        if trained.config.data.name == first.config.data.name
        and trained.config.data.image_size == first.config.data.image_size
    }
    out.heading("Reconstructions")
    out.figure(
        "reconstructions", reconstruction_comparison(images, same),
        caption="Held-out images, reconstructions, and error maps on one scale.",
    )  # fmt: skip
    middle = images.shape[1] // 2
    lines = {name: found[0, middle] for name, found in list(same.items())[:4]}
    out.figure(
        "channels", channel_slice(images[0, middle], lines),
        caption="The middle row of the first image, channel by channel.",
    )  # fmt: skip


def draw_codes(out, runs, uses):
    """Adds a map of every run's codes, and how often atoms are used."""
    out.heading("Codes")
    for i, (name, trained) in enumerate(runs.items()):
        images = shown_images(trained, 2)
        bottleneck = trained.model.bottleneck
        entries = bottleneck.entries(trained.encode(images))
        maps = code_maps(entries, has_coefficients=bottleneck.has_coefficients)
        out.figure(
            f"codes_{i}", heatmap_figure(images, maps, title=results.as_label(name)),
            caption=f"{results.as_markdown(name)}: {' and '.join(maps)} of each place.",
        )  # fmt: skip
    counts = {results.as_label(name): count for name, count in uses.items()}
    if counts:
        out.figure("usage", usage_bars(counts), caption="How often each entry or atom is used.")


def uses_of(trained):
    """Returns how often test images use each atom, `(m,)`."""
    source = open_split(trained.config.data, "test")
    code = trained.encode(evenly_spaced_images(source, 256))
    return np.asarray(usage(code, trained.config.model.num_embeddings))


def draw_atoms(out, runs, uses):
    """Adds every run's atoms: decoded, in the plane, and pair by pair."""
    out.heading("Atoms")
    for i, (name, trained) in enumerate(runs.items()):
        label = results.as_label(name)
        if name not in uses:
            out.text(f"{results.as_markdown(name)} has a grid (fsq) and no atoms.")
            continue
        atoms = np.asarray(code_atoms(trained.model, trained.variables))
        said = results.as_markdown(name)
        sheet = style.new_figure(6, 6)
        decoded = np.asarray(decode_atoms(trained.model, trained.variables))
        style.picture(sheet.subplots(), atom_sheet(decoded), title=label)
        out.figure(f"atoms_{i}", sheet, caption=f"{said}: each atom, decoded alone.")
        out.figure(
            f"embedding_{i}", embedding_figure(atoms, uses[name], title=label),
            caption=f"{said}: atoms in the plane. UMAP is drawn where umap-learn is installed.",
        )  # fmt: skip
        signless = trained.model.bottleneck.has_coefficients
        out.figure(
            f"distances_{i}", distance_figure(atoms, signless=signless, title=label),
            caption=f"{said}: all pairs of atoms.",
        )  # fmt: skip


if __name__ == "__main__":
    app.run(results.program("figures", "Trained runs, drawn", run, SIZES))
