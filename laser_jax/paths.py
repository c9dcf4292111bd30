"""Makes the paths of users absolute, and rejects those that a library cannot use."""

import os
import pathlib
import re

_WEIGHTS = ("lpips", "inception")


def resolve_path(path, name):
    """Returns an absolute `pathlib.Path` without `..`, with `~` and `~user` expanded.

    Args:
      path: text or a path object.
      name: the flag or key to name in errors.

    Raises:
      ValueError: if the path is empty, a URL, or in the home directory of an unknown user.
    """
    text = os.fsdecode(path)
    if not text.strip():
        raise ValueError(f"{name} is empty; give a path, for example ./{name.strip(':')}.")
    if "\0" in text:
        raise ValueError(f"{name} {text!r} contains a null character, which no path can.")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # pathlib would turn // into /
        raise ValueError(
            f"{name} {text!r} is a URL; only local paths are supported. Mount the bucket "
            "(for example with gcsfuse) and give the path of the mount."
        )
    try:
        path = pathlib.Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(
            f"{name} {text!r}: the home directory of {text.split('/')[0]!r} is unknown. Give an "
            f"absolute path, or './{text}' for a directory of that name."
        ) from error
    # Orbax removes `..` from the text, which is wrong after a symbolic link.
    return path.resolve() if ".." in path.parts else path


def resolve_workdir(workdir):
    """Returns a workdir as an absolute path that every library of a run supports.

    Raises:
      ValueError: as `resolve_path`, or if the path has a character that a library cannot handle.
    """
    path = resolve_path(workdir, "workdir")
    _check_libraries(path, "workdir")
    text = str(path)
    # Orbax finds its files by glob patterns, and takes gs:/ anywhere in a path for a bucket.
    found = [part for part in ("*", "?", "[", "\\", "gs:/") if part in f"{text}/"]
    if found:
        raise ValueError(
            f"workdir {text!r} contains {' and '.join(found)}: orbax cannot read checkpoints "
            "there. Choose another --workdir, or rename the directory."
        )
    return path


def resolve_data_dir(data_dir):
    """Returns the directory of prepared data sets; None: `$TFDS_DATA_DIR` or TFDS's default.

    Raises:
      ValueError: as `resolve_path`, or if TFDS cannot use the path.
    """
    name = "data.data_dir"
    if data_dir is None:
        name = "TFDS_DATA_DIR" if "TFDS_DATA_DIR" in os.environ else "data.data_dir's default"
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    path = resolve_path(data_dir, name)
    _check_libraries(path, name)
    return path


def resolve_config(config):
    """Returns a copy of a config with absolute paths; see `resolve_path`."""
    config = config.copy_and_resolve_references()
    if config.data.data_dir is not None:
        config.data.data_dir = str(resolve_data_dir(config.data.data_dir))
    config.data.name = resolve_data_name(config.data.name)
    if config.autoencoder is not None:
        config.autoencoder = str(resolve_workdir(config.autoencoder))
    if config.init_from is not None:
        config.init_from = str(resolve_path(config.init_from, "init_from"))
    for key in _WEIGHTS:
        if config.weights[key] is not None:
            config.weights[key] = str(resolve_path(config.weights[key], f"weights.{key}"))
    return config


def resolve_data_name(name):
    """Returns the name of a data set, that of a folder with its absolute path."""
    kind, colon, folder = name.partition(":")
    return f"folder:{resolve_path(folder, 'folder:')}" if kind == "folder" and colon else name


def cache_directory():
    """Returns the cache directory, `$XDG_CACHE_HOME/laser_jax`.

    Raises:
      ValueError: if XDG_CACHE_HOME is not set and there is no home directory.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return resolve_path(cache, "XDG_CACHE_HOME") / "laser_jax"


def printable(text):
    """Returns text, or a path, with undecodable bytes escaped, so that UTF-8 can encode it."""
    return str(text).encode(errors="backslashreplace").decode()


def _check_libraries(path, name):
    """Raises ValueError if TensorFlow, tensorstore or etils cannot use a path."""
    text = str(path)
    if printable(text) != text:
        raise ValueError(f"{name} {printable(text)!r} is not UTF-8. Choose another directory.")
    if path.parts[1:2] and path.parts[1] in ("gs", "s3", "az", "hf"):
        raise ValueError(
            f"{name} {text!r}: orbax and TFDS take /{path.parts[1]}/ for a bucket. Choose another "
            "directory, or a symbolic link to this one."
        )
