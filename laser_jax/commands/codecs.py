"""The codecs of compress and decompress: a trained run, or `laser_jax.pixels`."""

from laser_jax.commands.pictures import read_picture
from laser_jax.commands.runs import add_checkpoint, load_run

COMPRESSED = ".laser"


def add_codec(command, *, required):
    """Adds the options that select the model: a run, or the codec that ships with the package."""
    which = command.add_mutually_exclusive_group(required=required)
    which.add_argument("--workdir", help="the trained run")
    which.add_argument("--codec", choices=("pixels",), help="a codec that needs no run")
    add_checkpoint(command)


def load_codec(arguments):
    """Returns the codec that the arguments name; files of `decompress` need none to be named."""
    quality = getattr(arguments, "quality", None)
    if arguments.workdir is None:
        if arguments.checkpoint is not None:
            raise ValueError(
                "--checkpoint is an option of --workdir; --codec=pixels has one model."
            )
        return PixelCodec() if quality is None else PixelCodec(quality)
    if quality is not None:
        raise ValueError("--quality is an option of --codec=pixels; a run has one quality.")
    return RunCodec(arguments)


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
        from laser_jax.tokens.container import AnotherModel

        try:
            return self._pixels.decompress(files)
        except AnotherModel as error:
            raise ValueError(f"{error} Give --workdir of the run that wrote it.") from error


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
