"""Files that are either what they were or whole."""

import contextlib
import json
import logging
import os
import pathlib

log = logging.getLogger("laser_jax")


def write_json(path, values):
    """Writes values to a file, to its side first: what was there stays until all is written.

    Raises:
      OSError: if it cannot be written.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(values, indent=2) + "\n")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"{path} cannot be written: {error}") from error


@contextlib.contextmanager
def optional_file(path):
    """Logs an error instead of raising it, around the writing of a file that is not a result."""
    try:
        yield
    except Exception as error:  # matplotlib's, Pillow's or the system's
        log.warning("%s is not written: %s: %s", path, type(error).__name__, error)
