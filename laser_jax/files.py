"""Atomic writes of JSON files, and writes that may fail."""

import contextlib
import json
import logging
import os
import pathlib

log = logging.getLogger("laser_jax")


def write_json(path, values):
    """Writes values to a JSON file atomically: a failed write keeps the previous file.

    Raises:
      OSError: if the file cannot be written.
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
    """Context manager that logs any error of writing an optional file instead of raising it."""
    try:
        yield
    except Exception as error:  # of matplotlib, Pillow or the system
        log.warning("%s was not written: %s: %s", path, type(error).__name__, error)
