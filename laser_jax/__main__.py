"""The command line: python -m laser_jax reconstruct --workdir=RUN --out=DIR IMAGE_OR_DIR..."""

import argparse
import os
import pathlib
import sys

from laser_jax import allocator


def main(argv=None):
    """Runs a command and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m laser_jax", description="Uses a trained run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "reconstruct",
        help="encode and decode pictures",
        description="Writes DIR/NAME.png for each picture, in its own size, after encoding and "
        "decoding it. Pictures in a directory keep their path below it.",
    )
    command.add_argument("--workdir", required=True, help="the trained run")
    command.add_argument("--out", required=True, metavar="DIR", help="where the results go")
    command.add_argument("--checkpoint", default="newest", choices=("newest", "best"))
    command.add_argument("--overwrite", action="store_true", help="replace existing results")
    command.add_argument("pictures", nargs="+", metavar="IMAGE_OR_DIR", help="JPEG, PNG or WebP")
    command.set_defaults(run=reconstruct)
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def reconstruct(arguments):
    """Writes the reconstructions; returns 1 if a picture could not be read."""
    from laser_jax.paths import resolve_path

    # Files are named and checked before the slow imports.
    out = resolve_path(arguments.out, "--out")
    results = name_results(arguments.pictures, out)
    if not arguments.overwrite and (existing := [path for path in results if path.exists()]):
        raise ValueError(f"{existing[0]} exists; choose another --out, or give --overwrite.")

    from PIL import Image

    from laser_jax.data.images import load_image
    from laser_jax.metrics import psnr
    from laser_jax.trained import load

    model = load(arguments.workdir, checkpoint=arguments.checkpoint)
    failures = 0
    for number, (result, picture) in enumerate(results.items(), 1):
        try:
            image = load_image(picture, model.config.data.channels)
        except Exception as error:  # Pillow's decoders raise many kinds for broken files
            print(f"{picture} cannot be read: {error}", file=sys.stderr)
            failures += 1
            continue
        found = reconstruct_any_size(model, image)
        result.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(found.squeeze(-1) if found.shape[-1] == 1 else found).save(result)
        quality = float(psnr(image[None], found[None])[0])
        print(f"{number}/{len(results)}  {result}  {quality:.2f} dB", flush=True)
    if failures:
        print(f"{failures} of {len(results)} pictures could not be read.", file=sys.stderr)
    return 1 if failures else 0


def name_results(pictures, out):
    """Returns result -> picture, both paths, for files and for the pictures in directories.

    Raises:
      ValueError: if there is no such file, a directory has no picture, a result would replace a
        picture, or two pictures have the same result.
    """
    from laser_jax.data.scan import scan

    found = []
    for name in map(pathlib.Path, pictures):
        if name.is_dir():
            files = scan(os.fspath(name)).files
            if not files:
                raise ValueError(f"{name} has no JPEG, PNG or WebP picture.")
            found += [(name / file, (out / file).with_suffix(".png")) for file in files]
        elif name.is_file():
            found.append((name, out / f"{name.stem}.png"))
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
                "reconstruct them into different directories."
            )
        results[result] = picture
    return results


def reconstruct_any_size(model, image):
    """Returns the reconstruction of one image, uint8 `(H, W, C)` as the image.

    The image is extended by reflection to a size that the model takes, and cropped back.
    """
    import numpy as np

    (height, width, _), (rows, columns) = image.shape, model.model.signal_shape
    padding = (0, -height % rows), (0, -width % columns), (0, 0)
    extended = np.pad(image, padding, mode="symmetric")
    found = model.reconstruct(extended[None])[0, :height, :width]
    return np.round(255 * found).astype(np.uint8)


if __name__ == "__main__":
    allocator.keep_freed_memory()
    sys.exit(main())
