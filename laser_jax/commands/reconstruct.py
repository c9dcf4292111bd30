"""reconstruct: encodes and decodes pictures."""

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
from laser_jax.commands.runs import add_run, load_run, new_path
from laser_jax.paths import printable

QUALITIES = "qualities.csv"


def add(commands):
    """Adds the command to a parser."""
    command = add_command(
        commands, "reconstruct", "IMAGE_OR_DIR", "JPEG, PNG or WebP",
        add_model=add_run,
        summary="encode and decode pictures",
        details="Writes DIR/NAME.png for each picture, in its own size, after encoding and "
        f"decoding it, and {QUALITIES} with the PSNR and SSIM of each. {IN_DIRECTORIES} Pictures "
        "of more than a million pixels are taken in tiles that pass into each other.",
    )  # fmt: skip
    command.add_argument(
        "--side-by-side", action="store_true", help="write the original left of each result"
    )
    return command


def run(arguments):
    """Writes the reconstructions and their qualities; returns 1 if a picture failed."""
    results = new_results(arguments, pictures_below, ".png")

    qualities = new_path(arguments, QUALITIES)

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
        names = (printable(path) for path in (results[result], result))
        rows.append((*names, width, height, round(decibels, 4), likeness and round(likeness, 5)))
        return f"{decibels:.2f} dB"

    failed = convert_all(results, lambda path: read_picture(path, model), write, "pictures")
    if rows:
        with whole_file(qualities) as partial, open(partial, "w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(("picture", "result", "width", "height", "psnr", "ssim"))
            lines.writerows(rows)
        mean = sum(row[4] for row in rows) / len(rows)
        print(f"{printable(qualities)}  {len(rows)} pictures, mean PSNR {mean:.2f} dB")
    return failed
