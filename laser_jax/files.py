"""Atomic writes of files, and writes that may fail."""

import contextlib
import json
import logging
import os
import pathlib
import shutil

log = logging.getLogger("laser_jax")


@contextlib.contextmanager
def writing(what):
    """Adds the name of what cannot be written to an OSError of the block."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{what} cannot be written: {error}") from error


@contextlib.contextmanager
def whole_file(path):
    """Yields a path to write to, which replaces `path` when the block succeeds.

    Raises:
      OSError: if the file cannot be written; the previous file is kept.
    """
    path = pathlib.Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with writing(path):
            yield partial
            partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def whole_directory(path):
    """Yields a new directory to fill, which becomes `path` when the block succeeds.

    Nothing but an empty directory may be at `path` then. What killed processes left is removed.

    Raises:
      OSError: if the files cannot be written, or `path` holds something.
    """
    path = pathlib.Path(path)
    prefix = f".{path.name}."
    partial = path.with_name(f"{prefix}{os.getpid()}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in path.parent.iterdir():
                number = other.name.removeprefix(prefix)
                if other.name == prefix + number and _is_left(number):
                    shutil.rmtree(other, ignore_errors=True)
            partial.mkdir()
            yield partial
            partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _is_left(number):
    """Returns whether text is the number of this process or of one that has ended."""
    if not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)  # sends nothing
    except PermissionError:
        return False  # it runs, of another user
    except (OSError, OverflowError):
        return True
    return int(number) == os.getpid()


def write_json(path, values):
    """Writes values to a JSON file atomically: a failed write keeps the previous file.

    Raises:
      OSError: if the file cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n")


def read_json(path):
    """Returns the values of a JSON file.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is not JSON; the text names the file.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(
            f"{path} is not JSON, so it may be cut: {error}. Make it again, or move it away."
        ) from error


@contextlib.contextmanager
def optional_file(path):
    """Context manager that logs any error of writing an optional file instead of raising it."""
    try:
        yield
    except Exception as error:  # of matplotlib, Pillow or the system
        log.warning("%s was not written: %s: %s", path, type(error).__name__, error)
