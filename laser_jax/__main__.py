"""The command line: python -m laser_jax COMMAND --workdir=RUN --out=DIR FILE_OR_DIR...

`compress` and `decompress` also take --codec=pixels, which needs no run.
"""

import argparse
import os
import pathlib
import sys

from laser_jax import allocator

COMPRESSED = ".laser"
QUALITIES = "qualities.csv"


def main(argv=None):
    """Runs a command and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m laser_jax", description="Uses a trained run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    in_directories = "Those in a directory keep their path below it."
    command = _add_command(
        commands, reconstruct, "IMAGE_OR_DIR", "JPEG, PNG or WebP",
        summary="encode and decode pictures",
        details="Writes DIR/NAME.png for each picture, in its own size, after encoding and "
        f"decoding it, and {QUALITIES} with the PSNR and SSIM of each. {in_directories} Pictures "
        "of more than a million pixels are taken in tiles that pass into each other.",
    )  # fmt: skip
    command.add_argument(
        "--side-by-side", action="store_true", help="write the original left of each result"
    )
    _add_command(
        commands, compress, "IMAGE_OR_DIR", "JPEG, PNG or WebP",
        summary="write pictures as small files",
        details=f"Writes DIR/NAME{COMPRESSED} for each picture. {in_directories} Needs the tables "
        "that training and evaluation store in the run, or --codec=pixels, which ships with the "
        "package.",
    )  # fmt: skip
    _add_command(
        commands, decompress, "FILE_OR_DIR", f"files of compress, *{COMPRESSED} in directories",
        summary="read the files of compress",
        details=f"Writes DIR/NAME.png for each file. {in_directories} Files of --codec=pixels are "
        "recognised; others need the run that wrote them.",
    )  # fmt: skip
    _add_sample(commands)
    _add_export(commands)
    _add_report(commands)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _add_command(commands, run, kind, kinds, *, summary, details):
    command = commands.add_parser(run.__name__, help=summary, description=details)
    _add_codec(command, run)
    command.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    command.add_argument("--checkpoint", default="newest", choices=("newest", "best"))
    command.add_argument("--overwrite", action="store_true", help="replace existing results")
    command.add_argument("pictures", nargs="+", metavar=kind, help=kinds)
    command.set_defaults(run=run)
    return command


def _add_codec(command, run):
    """Adds the options that select the model: a run, or the codec that ships with the package."""
    if run is reconstruct:
        command.add_argument("--workdir", required=True, help="the trained run")
        return
    which = command.add_mutually_exclusive_group(required=run is compress)
    which.add_argument("--workdir", help="the trained run")
    which.add_argument("--codec", choices=("pixels",), help="a codec that needs no run")
    if run is compress:
        command.add_argument(
            "--quality", type=int, default=None, help="of --codec=pixels: 1 to 100; 75 by default"
        )


def _add_sample(commands):
    command = commands.add_parser(
        "sample", help="draw new pictures from a prior", description="Writes FILE.png, a grid."
    )
    command.add_argument("--workdir", required=True, help="the trained prior")
    command.add_argument("--out", required=True, metavar="FILE.png", help="where the grid goes")
    command.add_argument("--num", type=int, default=64, help="pictures; 64 by default")
    command.add_argument("--temperature", type=float, default=1.0, help="below 1: likelier ones")
    command.add_argument("--top_k", type=int, help="classes of a symbol that can be drawn")
    command.add_argument("--top_p", type=float, help="probability of those classes")
    command.add_argument("--label", type=int, help="the class of all pictures; by default each")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--checkpoint", default="best", choices=("newest", "best"))
    command.add_argument("--autoencoder", help="the autoencoder's run, if it has moved")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command.set_defaults(run=sample)


def _add_export(commands):
    command = commands.add_parser(
        "export", help="write the tokens of a data set",
        description="Writes DIR/tokens/SPLIT.array_record, a record a picture: its class and its "
        "symbols, int32; and DIR/tokens/about.json, which says what they are.",
    )  # fmt: skip
    command.add_argument("--workdir", required=True, help="the trained run")
    command.add_argument("--out", required=True, metavar="DIR", help="where the tokens go")
    command.add_argument("--data", metavar="NAME", help="as data.name; by default the run's set")
    command.add_argument("--data_dir", help="as data.data_dir")
    command.add_argument("--splits", nargs="+", default=("train", "validation", "test"))
    command.add_argument("--checkpoint", default="newest", choices=("newest", "best"))
    command.add_argument("--overwrite", action="store_true", help="replace existing tokens")
    command.set_defaults(run=export)


def _add_report(commands):
    command = commands.add_parser(
        "report", help="write one HTML page of a run",
        description="Writes FILE.html: metrics and evaluations, curves, reconstructions, use and "
        "look of the atoms, config. It needs no other file.",
    )  # fmt: skip
    command.add_argument("--workdir", required=True, help="the trained run")
    command.add_argument("--out", required=True, metavar="FILE.html", help="where the page goes")
    command.add_argument("--checkpoint", default="newest", choices=("newest", "best"))
    command.add_argument("--overwrite", action="store_true", help="replace an existing page")
    command.set_defaults(run=report)


def report(arguments):
    """Writes the page of a run; returns 0."""
    from laser_jax.paths import resolve_path

    out = resolve_path(arguments.out, "--out")
    if out.exists() and not arguments.overwrite:
        raise ValueError(f"{out} exists; choose another --out, or give --overwrite.")

    from laser_jax.run_page import write_page

    write_page(arguments.workdir, out, checkpoint=arguments.checkpoint)
    print(out)
    return 0


def export(arguments):
    """Writes the tokens of a data set's splits; returns 0."""
    from laser_jax.paths import resolve_path

    out = resolve_path(arguments.out, "--out")
    if (out / "tokens").exists() and not arguments.overwrite:
        raise ValueError(f"{out / 'tokens'} exists; choose another --out, or give --overwrite.")

    from laser_jax.data import DataUnavailable, open_split
    from laser_jax.data.folder import SPLIT_RULE
    from laser_jax.trained import TrainedAutoencoder
    from laser_jax.training.token_set import export_tokens

    model = load_run(arguments)
    if not isinstance(model, TrainedAutoencoder):
        raise ValueError(f"{arguments.workdir} holds a prior; export needs an autoencoder's run.")
    data = model.config.data.copy_and_resolve_references()
    if arguments.data is not None:
        data.name, data.split_rule = arguments.data, SPLIT_RULE  # not the run's rule
    with data.ignore_type():
        data.data_dir = arguments.data_dir or data.data_dir
    try:
        sources = {split: open_split(data, split) for split in arguments.splits}
    except DataUnavailable as error:
        raise OSError(error) from error
    out.mkdir(parents=True, exist_ok=True)
    export_tokens(out, model.codec, sources, batch_size=model.config.eval.batch_size)
    for split, source in sources.items():
        print(f"{out / 'tokens' / split}.array_record  {len(source)} pictures")
    return 0


def sample(arguments):
    """Writes a grid of new pictures; returns 0."""
    from laser_jax.paths import resolve_path

    out = resolve_path(arguments.out, "--out")
    if out.exists() and not arguments.overwrite:
        raise ValueError(f"{out} exists; choose another --out, or give --overwrite.")

    import time

    import jax
    import numpy as np

    from laser_jax.figures import atom_sheet
    from laser_jax.trained import TrainedPrior, load

    prior = load(
        arguments.workdir, checkpoint=arguments.checkpoint, autoencoder=arguments.autoencoder
    )
    if not isinstance(prior, TrainedPrior):
        raise ValueError(f"{arguments.workdir} holds an autoencoder; sample needs a prior's run.")
    labels, classes = arguments.label, prior.tokens.model.num_classes
    if labels is None and classes:
        labels = np.arange(arguments.num) % classes
    begin = time.perf_counter()
    images = prior.sample(
        jax.random.key(arguments.seed), arguments.num, labels=labels,
        temperature=arguments.temperature, top_k=arguments.top_k, top_p=arguments.top_p,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    out.parent.mkdir(parents=True, exist_ok=True)
    write_picture(out, np.round(255 * atom_sheet(images)).astype(np.uint8))
    print(f"{out}  {len(images)} pictures, {len(images) / seconds:.1f} a second with compilation")
    return 0


def reconstruct(arguments):
    """Writes the reconstructions and their qualities; returns 1 if a picture cannot be read."""
    results = new_results(arguments, pictures_below, ".png")

    from laser_jax.paths import printable, resolve_path

    qualities = resolve_path(arguments.out, "--out") / QUALITIES
    if qualities.exists() and not arguments.overwrite:
        raise ValueError(f"{qualities} exists; choose another --out, or give --overwrite.")

    import csv

    import numpy as np

    from laser_jax.evaluation.any_size import reconstruct_any_size
    from laser_jax.files import whole_file
    from laser_jax.metrics import ssim

    model, rows = load_run(arguments), []

    def write(result, image):
        found = reconstruct_any_size(model.model, model.variables, image)
        found = np.round(255 * found).astype(np.uint8)
        sides = (image, found) if arguments.side_by_side else (found,)
        write_picture(result, np.concatenate(sides, axis=1))
        height, width, _ = image.shape
        decibels = float(picture_psnr(image, found))
        # SSIM's window has 11 pixels.
        likeness = float(ssim(image[None], found[None])[0]) if min(height, width) > 10 else None
        names = (printable(os.fspath(path)) for path in (results[result], result))
        rows.append((*names, width, height, round(decibels, 4), likeness and round(likeness, 5)))
        return f"{decibels:.2f} dB"

    failed = convert_all(results, lambda path: read_picture(path, model), write, "pictures")
    if rows:
        with whole_file(qualities) as partial, open(partial, "w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(("picture", "result", "width", "height", "psnr", "ssim"))
            lines.writerows(rows)
        mean = sum(row[4] for row in rows) / len(rows)
        print(f"{qualities}  {len(rows)} pictures, mean PSNR {mean:.2f} dB")
    return failed


def compress(arguments):
    """Writes the compressed files and their totals; returns 1 if a picture could not be read."""
    results = new_results(arguments, pictures_below, COMPRESSED)

    from laser_jax.files import whole_file

    codec = load_codec(arguments)
    total = {"bytes": 0, "pixels": 0}

    def write(result, image):
        (data,) = codec.compress([image])
        (found,) = codec.decompress([data])
        with whole_file(result) as partial:
            partial.write_bytes(data)
        pixels = image[..., 0].size
        total["bytes"] += len(data)
        total["pixels"] += pixels
        return (
            f"{image.shape[1]}x{image.shape[0]}  {len(data)} bytes  {8 * len(data) / pixels:.3f} "
            f"bits a pixel  {picture_psnr(image, found):.2f} dB"
        )

    failed = convert_all(results, codec.read, write, "pictures")
    if total["pixels"]:
        rate = 8 * total["bytes"] / total["pixels"]
        print(f"{total['bytes']} bytes in all, {rate:.3f} bits a pixel")
    return failed


def decompress(arguments):
    """Writes the pictures of compressed files; returns 1 if a file could not be read."""
    results = new_results(arguments, compressed_below, ".png")
    codec = load_codec(arguments)

    def read(path):
        images = codec.decompress([path.read_bytes()])
        if len(images) != 1:
            raise ValueError(f"it holds {len(images)} pictures; read it with decompress in Python.")
        return images[0]

    def write(result, image):
        write_picture(result, image)
        return f"{image.shape[1]}x{image.shape[0]}"

    return convert_all(results, read, write, "files")


def new_results(arguments, files_below, suffix):
    """Returns result -> picture, both paths, before the slow imports; see `name_results`."""
    from laser_jax.paths import resolve_path

    out = resolve_path(arguments.out, "--out")
    results = name_results(arguments.pictures, out, files_below, suffix)
    if not arguments.overwrite and (existing := [path for path in results if path.exists()]):
        raise ValueError(f"{existing[0]} exists; choose another --out, or give --overwrite.")
    return results


class PixelCodec:
    """`laser_jax.pixels` at one quality."""

    def __init__(self, quality=75):
        from laser_jax import pixels

        pixels.check_quality(quality)
        self._pixels, self._quality = pixels, quality

    def read(self, path):
        """Returns a picture: one channel if it is gray."""
        from laser_jax.data.images import load_image

        image = load_image(path, 3)
        return image[..., :1] if (image == image[..., :1]).all() else image

    def compress(self, images):
        return self._pixels.compress(images, self._quality)

    def decompress(self, files):
        return self._pixels.decompress(files)


class RunCodec:
    """A trained run; it also reads the files of `PixelCodec`, which need no run."""

    def __init__(self, arguments):
        self._model = load_run(arguments)
        _ = self._model.codec  # raises if the run has no tables, before anything is written

    def read(self, path):
        return read_picture(path, self._model)

    def compress(self, images):
        return self._model.compress(images)

    def decompress(self, files):
        from laser_jax.pixels import is_pixel_file

        return [
            image
            for data in files
            for image in (PixelCodec() if is_pixel_file(data) else self._model).decompress([data])
        ]


def load_codec(arguments):
    """Returns the codec that the arguments name; files of `decompress` need none to be named."""
    quality = getattr(arguments, "quality", None)
    if arguments.workdir is None:
        return PixelCodec() if quality is None else PixelCodec(quality)
    if quality is not None:
        raise ValueError("--quality is an option of --codec=pixels; a run has one quality.")
    return RunCodec(arguments)


def picture_psnr(image, found):
    """Returns the PSNR in dB of two uint8 images."""
    import numpy as np

    error = np.mean((image.astype(np.float64) - found) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


def load_run(arguments):
    from laser_jax.trained import TrainedAutoencoder, load

    model = load(arguments.workdir, checkpoint=arguments.checkpoint)
    if not isinstance(model, TrainedAutoencoder):
        raise ValueError(f"{arguments.workdir} holds a prior; give the run of an autoencoder.")
    return model


def read_picture(path, model):
    from laser_jax.data.images import load_image

    return load_image(path, model.config.data.channels)


def write_picture(path, image):
    from PIL import Image

    from laser_jax.files import whole_file

    with whole_file(path) as partial:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(partial, "PNG")


def convert_all(results, read, write, kind):
    """Reads each picture and writes its result, a line each; returns 1 if one was not readable.

    Args:
      results: result -> picture.
      read: a function of the picture's path.
      write: a function of the result's path and what was read; it returns what to print.
      kind: what is read, in the plural.
    """
    failures = 0
    for number, (result, picture) in enumerate(results.items(), 1):
        try:
            image = read(picture)
        except Exception as error:  # Pillow's decoders raise many kinds for broken files
            print(f"{picture} cannot be read: {error}", file=sys.stderr)
            failures += 1
            continue
        result.parent.mkdir(parents=True, exist_ok=True)
        print(f"{number}/{len(results)}  {result}  {write(result, image)}", flush=True)
    if failures:
        print(f"{failures} of {len(results)} {kind} could not be read.", file=sys.stderr)
    return 1 if failures else 0


def pictures_below(directory):
    """Returns the pictures in a directory, paths below it."""
    from laser_jax.data.scan import scan

    files = scan(os.fspath(directory)).files
    if not files:
        raise ValueError(f"{directory} has no JPEG, PNG or WebP picture.")
    return files


def compressed_below(directory):
    """Returns the compressed files in a directory, paths below it."""
    files = sorted(path.relative_to(directory) for path in directory.rglob(f"*{COMPRESSED}"))
    if not files:
        raise ValueError(f"{directory} has no *{COMPRESSED} file.")
    return files


def name_results(pictures, out, files_below, suffix):
    """Returns result -> picture, both paths, for files and for those in directories.

    Args:
      pictures: files and directories.
      out: directory of the results.
      files_below: a function from a directory to the paths below it that are taken.
      suffix: of the results.

    Raises:
      ValueError: if there is no such file, a directory has no picture, a result would replace a
        picture, or two pictures have the same result.
    """

    found = []
    for name in map(pathlib.Path, pictures):
        if name.is_dir():
            files = files_below(name)
            found += [(name / file, (out / file).with_suffix(suffix)) for file in files]
        elif name.is_file():
            found.append((name, out / f"{name.stem}{suffix}"))
        else:
            raise ValueError(f"{name} is no file and no directory.")
    sources = {picture.resolve() for picture, _ in found}
    results = {}
    for picture, result in found:
        if result.resolve() in sources:
            raise ValueError(f"{result} is one of the pictures; choose another --out.")
        if result in results:
            raise ValueError(
                f"{results[result]} and {picture} would both be written to {result}; "
                "give them different directories."
            )
        results[result] = picture
    return results


if __name__ == "__main__":
    allocator.keep_freed_memory()
    sys.exit(main())
