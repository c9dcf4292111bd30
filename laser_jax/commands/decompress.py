"""decompress: reads the files of compress."""

import functools

from laser_jax.commands.codecs import COMPRESSED, add_codec, load_codec
from laser_jax.commands.pictures import (
    IN_DIRECTORIES,
    add_command,
    convert_all,
    new_results,
    write_picture,
)


def add(commands):
    """Adds the command to a parser."""
    return add_command(
        commands, "decompress", "FILE_OR_DIR", f"files of compress, *{COMPRESSED} in directories",
        add_model=functools.partial(add_codec, required=False),
        summary="read the files of compress",
        details=f"Writes DIR/NAME.png for each file. {IN_DIRECTORIES} Files of --codec=pixels are "
        "recognised; others need the run that wrote them.",
    )  # fmt: skip


def run(arguments):
    """Writes the pictures of compressed files; returns 1 if a file failed."""
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


def compressed_below(directory):
    """Returns the compressed files in a directory, paths below it."""
    files = sorted(path.relative_to(directory) for path in directory.rglob(f"*{COMPRESSED}"))
    if not files:
        raise ValueError(f"{directory} has no *{COMPRESSED} file.")
    return files
