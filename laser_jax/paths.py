"""Paths as users write them, made absolute once, and refused where a library cannot use them."""

import os
import pathlib
import re

_WEIGHTS = ("lpips", "inception")


def resolve_path(path, name):
    """Returns an absolute `pathlib.Path`, with `~` and `~user` expanded and without `..`.

    Args:
      path: text or a path object.
      name: what the path is called in errors: a flag or a key.

    Raises:
      ValueError: if it is empty, a URL, or names the home of an unknown user.
    """
    text = os.fsdecode(path)
    if not text.strip():
        raise ValueError(f"{name} is empty; give a path, for example ./{name.strip(':')}.")
    if "\0" in text:
        raise ValueError(f"{name} {text!r} holds a null character, which no path can.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # pathlib makes one slash of two
        raise ValueError(
            f"{name} {text!r} is a URL; only local paths are supported. Mount the bucket "
            "(for example with gcsfuse) and give the path of the mount."
        )
    try:
        path = pathlib.Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"{name} {text!r}: the home directory of {text.split('/')[0]!r} is not known. Give an "
            f"absolute path, or './{text}' for a directory of that name."
        ) from error
    # Orbax removes `..` from the text, which is another directory behind a symbolic link.
    return path.resolve() if ".." in path.parts else path


def resolve_workdir(workdir):
    """Returns a workdir as an absolute path on which every library of a run works.

    Raises:
      ValueError: if there is none, as for `resolve_path`, or because of a character in it.
    """
    path = resolve_path(workdir, "workdir")
    _check_libraries(path, "workdir")
    text = str(path)
    # Orbax searches for its files by pattern, and takes gs:/ for a bucket anywhere in a path.
    found = [part for part in ("*", "?", "[", "\\", "gs:/") if part in f"{text}/"]
    if found:
        raise ValueError(
            f"workdir {text!r} holds {' and '.join(found)}: orbax cannot read checkpoints there. "
            "Choose another --workdir, or rename the directory."
        )
    return path


def resolve_data_dir(data_dir):
    """Returns the directory of prepared data sets; None: `$TFDS_DATA_DIR`, TFDS's default.

    Raises:
      ValueError: as for `resolve_path`, or if TFDS cannot use the path.
    """
    name = "data.data_dir"
    if data_dir is None:
        name = "TFDS_DATA_DIR" if "TFDS_DATA_DIR" in os.environ else "data.data_dir's default"
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    path = resolve_path(data_dir, name)
    _check_libraries(path, name)
    return path


def resolve_config(config):
    """Returns a copy of a config in which every path is absolute; see `resolve_path`."""
    config = config.copy_and_resolve_references()
    if config.data.data_dir is not None:
        config.data.data_dir = str(resolve_data_dir(config.data.data_dir))
    kind, colon, folder = config.data.name.partition(":")
    if kind == "folder" and colon:
        config.data.name = f"folder:{resolve_path(folder, 'folder:')}"
    for key in _WEIGHTS:
        if config.weights[key] is not None:
            config.weights[key] = str(resolve_path(config.weights[key], f"weights.{key}"))
    return config


def cache_directory():
    """Returns the directory of what is kept between runs: `$XDG_CACHE_HOME/laser_jax`.

    Raises:
      ValueError: if there is no home directory to hold it, and no XDG_CACHE_HOME.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return resolve_path(cache, "XDG_CACHE_HOME") / "laser_jax"


def printable(text):
    """Returns text that UTF-8 can write: bytes of a file name that are not are escaped."""
    return text.encode(errors="backslashreplace").decode()


def _check_libraries(path, name):
    """Raises ValueError if libraries in C++ or etils, which opens their files, fail on a path."""
    text = str(path)
    if printable(text) != text:
        raise ValueError(f"{name} {printable(text)!r} is not UTF-8. Choose another directory.")
    if path.parts[1:2] and path.parts[1] in ("gs", "s3", "az", "hf"):
        raise ValueError(
            f"{name} {text!r}: orbax and TFDS take /{path.parts[1]}/ for a bucket. Choose another "
            "directory, or a symbolic link to this one."
        )
