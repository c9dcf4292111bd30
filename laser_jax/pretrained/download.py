"""Fetches the weights of FID's Inception: python -m laser_jax.pretrained.download [PATH]."""

import argparse
import http.client
import pathlib
import sys
import tempfile
import urllib.error
import urllib.request

from laser_jax.paths import cache_directory, resolve_path
from laser_jax.pretrained.weights import INCEPTION_FILE, load_inception

# Converted by the author of jax-fid from the weights of pytorch-fid. No checksum is published:
# every array's shape is checked instead.
URL = f"https://www.dropbox.com/s/xt6zvlvt22dcwck/{INCEPTION_FILE}?dl=1"


def download(path, url=URL):
    """Writes the weights to `path` atomically.

    Raises:
      OSError: if they cannot be fetched or written.
      ValueError: if the downloaded file does not contain them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        partial = pathlib.Path(directory) / path.name
        try:
            with urllib.request.urlopen(url, timeout=60) as response, open(partial, "wb") as file:
                while block := response.read(1 << 20):
                    file.write(block)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            raise OSError(
                f"{url} cannot be fetched ({error}). Fetch it elsewhere and copy it to {path}."
            ) from error
        try:
            load_inception(partial)
        except ValueError as error:
            raise ValueError(f"{url} did not give the weights: {error}") from error
        partial.replace(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", help=f"default: ~/.cache/laser_jax/{INCEPTION_FILE}")
    path = parser.parse_args().path
    try:
        path = cache_directory() / INCEPTION_FILE if path is None else resolve_path(path, "path")
        download(path)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(path)


if __name__ == "__main__":
    main()
