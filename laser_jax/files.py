"""Atomic writes of files, and writes that may fail."""

import contextlib
import errno
import itertools
import json
import logging
import os
import pathlib
import platform
import re
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

    Nothing but an empty directory may be at `path` then; it gets the files, the last written last.
    What killed processes of this machine left is removed.

    Raises:
      OSError: if the files cannot be written, or `path` holds something.
    """
    path = pathlib.Path(path).resolve()
    prefix = f".{path.name}.partial-{platform.node()}-"
    number = next(_NUMBERS)
    partial = path.with_name(f"{prefix}{os.getpid()}-{number}")
    _UNFINISHED.add(number)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for other in path.parent.iterdir():
                if other.name.startswith(prefix) and _is_left(other.name.removeprefix(prefix)):
                    shutil.rmtree(other, ignore_errors=True)
            partial.mkdir()
            yield partial
            _move(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        _UNFINISHED.discard(number)


_NUMBERS = itertools.count()  # of the directories that this process fills
_UNFINISHED: set[int] = set()


def _is_left(text):
    """Returns whether a directory "PID-NUMBER" is of a process that ended, or of none here."""
    found = re.fullmatch(r"([0-9]+)-([0-9]+)", text)
    if found is None:
        return False
    process, number = map(int, found.groups())
    if process == os.getpid():  # in a container a process often has the number of an earlier one
        return number not in _UNFINISHED
    try:
        os.kill(process, 0)  # sends nothing
    except PermissionError:
        return False  # it runs, of another user
    except (OSError, OverflowError):
        return True
    return False


def _move(partial, path):
    if not path.is_dir():
        partial.replace(path)
        return
    # An empty directory stays the same one: it may be a mount, or where someone is.
    if any(path.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))
    for file in sorted(partial.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        shutil.move(file, path / file.name)
    partial.rmdir()


def write_json(path, values):
    """Writes values to a JSON file atomically: a failed write keeps the previous file.

    Raises:
      OSError: if the file cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(values, indent=2) + "\n")


def read_json(path, remedy="Make it again, or move it away."):
    """Returns the values of a JSON file.

    Args:
      path: the file.
      remedy: last sentence of the error.

    Raises:
      OSError: if the file cannot be read.
      ValueError: if it is not JSON; the text names the file.
    """
    try:
        return json.loads(pathlib.Path(path).read_text())
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{path} is not JSON, so it may be cut: {error}. {remedy}") from error


@contextlib.contextmanager
def optional_file(path):
    """Context manager that logs any error of writing an optional file instead of raising it."""
    try:
        yield
    except Exception as error:  # of matplotlib, Pillow or the system
        log.warning("%s was not written: %s: %s", path, type(error).__name__, error)
