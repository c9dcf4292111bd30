"""The image files under a folder, each once even if several links lead to it."""

import collections
import dataclasses
import functools
import os
import unicodedata

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp")
# Left by archives, trash cans and file servers. Names that begin with a dot are hidden too.
_SYSTEM_FOLDERS = ("__MACOSX", "$RECYCLE.BIN", "@eaDir")
_SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclasses.dataclass
class Scan:
    """The content of a folder.

    Attributes:
      files: name relative to the folder -> (size in bytes, time of change in ns), in the
        order of the data set.
      problems: one line for each folder and link that cannot be read or is not followed.
      ignored: why -> number of entries left out.
    """

    files: dict[str, tuple[int, int]]
    problems: list[str] = dataclasses.field(default_factory=list)
    ignored: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def left_out(self):
        """Returns the counts of what was left out, for a report; "" if there is nothing."""
        counts = {"folders or links skipped": len(self.problems), **self.ignored}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        return f"; ignored: {', '.join(parts)}" if parts else ""


@dataclasses.dataclass(frozen=True)
class _File:
    name: str
    stat: os.stat_result
    linked: bool  # a symbolic link, or below one

    @property
    def identity(self):
        return self.stat.st_dev, self.stat.st_ino


def normal_name(name):
    """Returns the form of a name that is the same on every file system (Unicode's NFC)."""
    return unicodedata.normalize("NFC", name)


def folder_split(name):
    """Returns the split that a folder on a file's path names, the topmost one; None without."""
    return _path_split(name.rpartition("/")[0])


def is_split_folder(name):
    """Returns whether a folder of this name is a split."""
    return name.casefold() in _SPLIT_FOLDERS


@functools.lru_cache(10_000)
def _path_split(path):
    folders = path.casefold().split("/")
    return next((_SPLIT_FOLDERS[folder] for folder in folders if folder in _SPLIT_FOLDERS), None)


def scan(root):
    """Returns the `Scan` of a folder.

    Hidden entries are left out. Symbolic links are followed, each target at most once;
    a file that several paths lead to has the path in a split's folder, else its own.
    """
    found, files, entered = Scan({}), [], set()
    folders = [("", False)]
    while folders:
        links = []
        for prefix, linked in folders:
            _read_tree(root, prefix, linked, files, links, found)
        folders = []
        # Sorted: the first link to a folder is the one followed, in any order of the directory.
        for prefix, identity in sorted(links):
            if identity in entered:
                found.ignored["links to folders already found"] += 1
            else:
                entered.add(identity)
                folders.append((prefix, True))
    # "/" before all other characters: the order of the names' parts.
    files.sort(key=lambda file: (normal_name(file.name).replace("/", "\0"), file.name))
    if any(file.linked for file in files):
        files = _without_copies(files, found)
    found.files = {file.name: (file.stat.st_size, file.stat.st_mtime_ns) for file in files}
    return found


def _read_tree(root, prefix, linked, files, links, found):
    """Adds what is below `root/prefix`; links to folders are collected, not followed."""
    folders = [prefix]
    while folders:
        prefix = folders.pop()
        path = os.path.join(root, prefix[:-1])
        try:
            with os.scandir(path) as entries:
                entries = list(entries)
        except OSError as error:
            found.problems.append(f"folder {path}: {error.strerror}")
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith(".") or entry.name in _SYSTEM_FOLDERS:
                found.ignored["hidden entries"] += 1
                continue
            try:
                link = entry.is_symlink()
                if entry.is_dir() and not link:
                    folders.append(f"{name}/")
                elif entry.is_dir():
                    _add_link(root, name, entry, links, found)
                elif link and not entry.is_file():
                    found.problems.append(f"link {entry.path}: leads to no file or folder")
                elif entry.is_file() and name.lower().endswith(EXTENSIONS):
                    files.append(_File(name, entry.stat(), linked or link))
                else:
                    found.ignored["files of other types"] += 1
            except OSError as error:
                found.problems.append(f"{entry.path}: {error.strerror}")


def _add_link(root, name, entry, links, found):
    target = os.path.join(os.path.realpath(entry.path), "")
    if os.path.join(os.path.realpath(root), "").startswith(target):
        found.problems.append(f"link {entry.path}: leads to a folder that contains it")
    else:
        status = entry.stat()
        links.append((f"{name}/", (status.st_dev, status.st_ino)))


def _without_copies(files, found):
    """Returns files without the further paths that links give them."""
    kept = {}  # identity -> whether the kept path is one of a link
    copies = set()
    for file in sorted(files, key=lambda file: (folder_split(file.name) is None, file.linked)):
        if file.identity in kept and (file.linked or kept[file.identity]):
            copies.add(file.name)
        else:
            kept[file.identity] = file.linked
    found.ignored["links to images already found"] += len(copies)
    return [file for file in files if file.name not in copies]
