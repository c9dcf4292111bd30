"""Files that are either what they were or whole."""

import json
import os
import pathlib


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
