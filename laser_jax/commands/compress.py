"""compress: writes pictures as small files."""

import functools

from laser_jax.commands.codecs import COMPRESSED, add_codec, load_codec
from laser_jax.commands.pictures import (
    IN_DIRECTORIES,
    add_command,
    convert_all,
    new_results,
    picture_psnr,
    pictures_below,
)


def add(commands):
    """Adds the command to a parser."""
    command = add_command(
        commands, "compress", "IMAGE_OR_DIR", "JPEG, PNG or WebP",
        add_model=functools.partial(add_codec, required=True),
        summary="write pictures as small files",
        details=f"Writes DIR/NAME{COMPRESSED} for each picture. {IN_DIRECTORIES} Needs the tables "
        "that training and evaluation store in the run, or --codec=pixels, which ships with the "
        "package.",
    )  # fmt: skip
    command.add_argument(
        "--quality", type=int, default=None, help="of --codec=pixels: 1 to 100; 75 by default"
    )
    return command


def run(arguments):
    """Writes the compressed files and their totals; returns 1 if a picture failed."""
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
