"""reconstruct: encodes and decodes pictures."""

import csv

from laser_jax.commands.pictures import (
    IN_DIRECTORIES,
    add_command,
    convert_all,
    new_results,
    picture_psnr,
    pictures_below,
    read_picture,
    write_picture,
)
from laser_jax.commands.runs import add_run, load_run
from laser_jax.files import whole_file
from laser_jax.paths import printable, resolve_path

QUALITIES = "qualities.csv"
_COLUMNS = ("picture", "result", "width", "height", "psnr", "ssim")


def add(commands):
    """Adds the command to a parser."""
    command = add_command(
        commands, "reconstruct", "IMAGE_OR_DIR", "JPEG, PNG or WebP",
        add_model=add_run,
        summary="encode and decode pictures",
        details="Writes DIR/NAME.png for each picture, in its own size, after encoding and "
        f"decoding it, and {QUALITIES} with the PSNR and SSIM of each, added to those of earlier "
        f"commands. {IN_DIRECTORIES} Pictures of more than a million pixels are taken in tiles "
        "that pass into each other.",
    )  # fmt: skip
    command.add_argument(
        "--side-by-side", action="store_true", help="write the original left of each result"
    )
    return command


def run(arguments):
    """Writes the reconstructions and their qualities; returns 1 if a picture failed."""
    results = new_results(arguments, pictures_below, ".png")

    qualities = resolve_path(arguments.out, "--out") / QUALITIES
    _read_qualities(qualities)  # raises before work starts
    rows = {}

    import numpy as np

    from laser_jax.evaluation.any_size import reconstruct_any_size
    from laser_jax.metrics import ssim

    model = load_run(arguments)

    def write(result, image):
        found = reconstruct_any_size(model.model, model.variables, image)
        found = np.round(255 * found).astype(np.uint8)
        sides = (image, found) if arguments.side_by_side else (found,)
        write_picture(result, np.concatenate(sides, axis=1))
        height, width, _ = image.shape
        decibels = float(picture_psnr(image, found))
        # SSIM's window has 11 pixels.
        likeness = float(ssim(image[None], found[None])[0]) if min(height, width) > 10 else None
        picture, result = printable(results[result]), printable(result)
        quality = round(decibels, 4), likeness and round(likeness, 5)
        rows[result] = (picture, result, width, height, *quality)
        return f"{decibels:.2f} dB"

    try:
        return convert_all(results, lambda path: read_picture(path, model), write, "pictures")
    finally:  # what is done is kept if the next picture ends the command
        if rows:
            # Read again: another command may have written since.
            _write_qualities(qualities, {**_read_qualities(qualities), **rows})
            mean = sum(row[4] for row in rows.values()) / len(rows)
            print(f"{printable(qualities)}  {len(rows)} pictures, mean PSNR {mean:.2f} dB")


def _read_qualities(path):
    """Returns result -> row of the file that earlier commands wrote, if there is one."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        try:
            head, *rows = csv.reader(file)
            if tuple(head) == _COLUMNS:
                return {row[1]: row for row in rows}
        except (ValueError, IndexError, csv.Error):  # empty, not UTF-8, or cut
            pass
    raise ValueError(
        f"{path} is no file of this command, which would add its rows there; move it away, or "
        "choose another --out."
    )


def _write_qualities(path, rows):
    with whole_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_COLUMNS, *rows.values()])
