"""The images of a folder that cannot be decoded: found once and stored.

The index of a folder is a file in the user's cache directory: name -> size, time of change and
fault of every image that was decoded. An image of another size or time is decoded again.
"""

import concurrent.futures
import contextlib
import fcntl
import gzip
import hashlib
import json
import logging
import os
import time

from laser_jax.files import whole_file
from laser_jax.paths import cache_directory

log = logging.getLogger("laser_jax")

_BLOCK = 1024  # images between looks at the clock
_TELL_SECONDS = 30
_SAVE_SECONDS = 60  # seconds between writes, the most that a killed check loses


def find_faults(root, files, names, check, version):
    """Returns the images that cannot be decoded, name -> fault.

    Several processes may ask at once: one decodes, the others wait for its index.

    Args:
      root: the folder.
      files: name -> (size, time of change) of all its images; the index forgets all others.
      names: the images that are asked for.
      check: decodes the image of a name, and raises an error of any kind if it cannot.
      version: of the check; each has a separate index.
    """
    index, passing = _Index(root, version), {}
    if index.unknown(files, names):
        with index.locked():
            index.read()  # another process may have been first
            passing = index.add(files, index.unknown(files, names), check)
    faults = {name: index.known[name][2] for name in names if name not in passing} | passing
    return {name: fault for name, fault in faults.items() if fault}


class _Index:
    def __init__(self, root, version):
        self._root = os.path.realpath(root)
        digest = hashlib.sha256(os.fsencode(f"{self._root}\0{version}")).hexdigest()[:32]
        try:
            self._path = cache_directory() / "folders" / f"{digest}.json.gz"
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: there is no home directory
            self._give_up(error)
        self.read()

    def read(self):
        """Loads name -> [size, time, fault or None]; what is damaged counts as empty."""
        self.known = {}
        if self._path is not None:
            with contextlib.suppress(Exception), gzip.open(self._path, "rt") as file:
                stored = json.load(file)["files"].items()
                self.known = {name: [size, time, fault] for name, (size, time, fault) in stored}

    def unknown(self, files, names):
        """Returns the names of the images that were not checked as they are now."""
        return [name for name in names if self.known.get(name, ())[:2] != [*files[name]]]

    def add(self, files, names, check):
        """Checks images and stores the result; returns the faults that may pass."""
        self.known = {name: entry for name, entry in self.known.items() if name in files}
        passing, told, saved = {}, time.monotonic(), time.monotonic()

        def error_of(name):
            try:
                check(name)
            except Exception as error:  # Pillow's decoders raise many kinds for broken files
                return error

        try:
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                for start in range(0, len(names), _BLOCK):
                    block = names[start : start + _BLOCK]
                    for name, error in zip(block, pool.map(error_of, block), strict=True):
                        # The system's errors have a number; those of damaged files have none.
                        if isinstance(error, MemoryError) or getattr(error, "errno", None):
                            passing[name] = str(error)
                        else:
                            fault = None if error is None else f"{error}" or repr(error)
                            self.known[name] = [*files[name], fault]
                    if time.monotonic() - told > _TELL_SECONDS:
                        told = time.monotonic()
                        log.info(
                            "checked %d of %d images of %s", start + _BLOCK, len(names), self._root
                        )
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        self._write()
                        saved = time.monotonic()
        finally:
            self._write()
        return passing

    @contextlib.contextmanager
    def locked(self):
        """Waits for other processes that check the same folder."""
        with contextlib.ExitStack() as stack:
            if self._path is not None:
                # Some file systems have no locks: then each process checks for itself.
                with contextlib.suppress(OSError):
                    file = stack.enter_context(open(f"{self._path}.lock", "w"))
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        log.info("waiting for another process to check %s", self._root)
                        fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self):
        if self._path is None:
            return
        values = {"folder": self._root, "files": self.known}
        try:
            with whole_file(self._path) as partial:
                partial.touch(0o600)  # only its owner may read names of files
                partial.write_bytes(gzip.compress(json.dumps(values).encode(), 1))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error):
        self._path = None
        log.warning(
            "the images of %s will be checked again at the next start, because the index of "
            "those that are damaged cannot be kept: %s (XDG_CACHE_HOME chooses the place)",
            self._root,
            error,
        )
