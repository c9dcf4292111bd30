"""What the commands of many files share: options, names of results, and the loop over files."""

import collections
import os
import pathlib
import sys

from laser_jax.commands.runs import check_new
from laser_jax.paths import printable, resolve_path

IN_DIRECTORIES = "Those in a directory keep their path below it."


def add_command(commands, name, kind, kinds, *, add_model, summary, details):
    """Returns the parser of a command that makes a result of each file, with its options.

    `add_model` adds those that select the model.
    """
    command = commands.add_parser(name, help=summary, description=details)
    add_model(command)
    command.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    command.add_argument("--overwrite", action="store_true", help="replace existing results")
    command.add_argument("pictures", nargs="+", metavar=kind, help=kinds)
    return command


def new_results(arguments, files_below, suffix):
    """Returns result -> picture, both paths, before the slow imports; see `name_results`."""
    out = resolve_path(arguments.out, "--out")
    results = name_results(arguments.pictures, out, files_below, suffix)
    check_new(results, arguments)
    return results


def convert_all(results, read, write, kind):
    """Reads each picture and writes its result, a line each; returns 1 if one failed.

    Args:
      results: result -> picture.
      read: a function of the picture's path.
      write: a function of the result's path and what was read; it returns what to print, and
        raises ValueError for what it cannot take.
      kind: what is read, in the plural.
    """
    failures = 0
    for number, (result, picture) in enumerate(results.items(), 1):
        try:
            image = read(picture)
        except Exception as error:  # Pillow's decoders raise many kinds for broken files
            print(printable(f"{picture} cannot be read: {error}"), file=sys.stderr)
            failures += 1
            continue
        result.parent.mkdir(parents=True, exist_ok=True)
        try:
            said = write(result, image)
        except ValueError as error:
            print(printable(f"{picture} cannot be converted: {error}"), file=sys.stderr)
            failures += 1
            continue
        print(printable(f"{number}/{len(results)}  {result}  {said}"), flush=True)
    if failures:
        print(f"{failures} of {len(results)} {kind} could not be converted.", file=sys.stderr)
    return 1 if failures else 0


def pictures_below(directory):
    """Returns the pictures in a directory, paths below it."""
    from laser_jax.data.scan import scan

    files = scan(os.fspath(directory)).files
    if not files:
        raise ValueError(f"{directory} has no JPEG, PNG or WebP picture.")
    return files


def name_results(pictures, out, files_below, suffix):
    """Returns result -> picture, both paths, for files and for those in directories.

    Pictures whose names differ in their suffixes alone keep these in the names of their results:
    `cat.jpg.png` and `cat.webp.png`.

    Args:
      pictures: files and directories.
      out: directory of the results.
      files_below: a function from a directory to the paths below it that are taken.
      suffix: of the results.

    Raises:
      ValueError: if there is no such file, a directory has no picture, a result would replace a
        picture, or two pictures have the same result.
    """
    found = []  # pictures, and their names below `out`
    for name in map(pathlib.Path, pictures):
        if name.is_dir():
            found += [(name / file, pathlib.Path(file)) for file in files_below(name)]
        elif name.is_file():
            found.append((name, pathlib.Path(name.name)))
        else:
            raise ValueError(f"{name} is no file and no directory.")
    sources = {picture.resolve() for picture, _ in found}
    taken = collections.Counter(name.with_suffix("") for _, name in found)
    results = {}
    for picture, name in found:
        stem = name.with_suffix("") if taken[name.with_suffix("")] == 1 else name
        result = out / stem.with_name(f"{stem.name}{suffix}")
        if result.resolve() in sources:
            raise ValueError(f"{result} is one of the pictures; choose another --out.")
        if result in results:
            raise ValueError(
                f"{results[result]} and {picture} would both be written to {result}; "
                "give them different directories."
            )
        results[result] = picture
    return results


def read_picture(path, model):
    """Returns a picture, uint8 `(H, W, C)`, with the channels of a run."""
    from laser_jax.data.images import load_image

    return load_image(path, model.config.data.channels)


def write_picture(path, image):
    """Writes a uint8 picture `(H, W, C)` as a PNG file."""
    from PIL import Image

    from laser_jax.files import whole_file

    with whole_file(path) as partial:
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(partial, "PNG")


def picture_psnr(image, found):
    """Returns the PSNR in dB of two uint8 images."""
    import numpy as np

    error = np.mean((image.astype(np.float64) - found) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf
