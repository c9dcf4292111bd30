"""A file system of a few MB that can be filled, write-protected and repaired."""

import contextlib
import subprocess


class SmallDisk:
    """A tmpfs; a context manager that unmounts it.

    Raises:
      PermissionError: where this process may not mount one (`unshare -rm` gives it the right).
    """

    def __init__(self, path, size="2m"):
        self.path, self._size = path, size

    def __enter__(self):
        self.path.mkdir(parents=True)
        try:
            _run("mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", self.path)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            raise PermissionError(f"no file system can be mounted here: {error}") from error
        return self

    def __exit__(self, *error):
        _run("umount", "--lazy", self.path)

    def break_by(self, fault):
        """Makes it `full`, `read-only`, or `not permitted`: no file or directory may be written."""
        if fault == "read-only":
            _run("mount", "-o", "remount,ro", self.path)
            return
        if fault == "not permitted":
            _run("chmod", "-R", "a-w", self.path)
            return
        with contextlib.suppress(OSError), open(self.path / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def repair(self):
        """Frees the space and allows writing again."""
        _run("mount", "-o", "remount,rw", self.path)
        _run("chmod", "-R", "u+w", self.path)
        (self.path / "filler").unlink(missing_ok=True)


def _run(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=60)
