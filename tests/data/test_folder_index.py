"""Damaged images of a folder are found once and stored outside of the folder."""

import errno
import gzip
import json
import multiprocessing
import os
import stat

import numpy as np
import pytest
from PIL import Image

from laser_jax.data import folder, index, open_source

FILES = tuple(f"{number}.jpg" for number in range(14))  # all in train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path / "laser_jax" / "folders"


@pytest.fixture
def root(tmp_path):
    """Fourteen images in train, the second of them damaged."""
    root = tmp_path / "set"
    root.mkdir()
    for number, name in enumerate(FILES):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)
    (root / FILES[1]).write_bytes(b"damaged")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The names of the images that were decoded to be checked."""
    names, real = [], folder._check

    def check(root, name):
        names.append(name)
        real(root, name)

    monkeypatch.setattr(folder, "_check", check)
    return names


def names_of(root):
    source = open_source(f"folder:{root}", split="train", image_size=4)
    return {path.name for path in source.records}


def test_each_image_is_checked_once(root, decoded):
    good = set(FILES) - {FILES[1]}
    assert names_of(root) == good and sorted(decoded) == sorted(FILES)
    decoded.clear()
    assert names_of(root) == good and decoded == []


def test_an_image_of_another_size_or_time_is_checked_again(root, decoded):
    names_of(root)
    decoded.clear()
    Image.new("RGB", (4, 4)).save(root / FILES[1])  # repaired
    status = (root / FILES[2]).stat()
    (root / FILES[2]).write_bytes(b"x" * status.st_size)  # spoiled, of the same size
    os.utime(root / FILES[3], ns=(0, 0))
    Image.new("RGB", (4, 4)).save(root / "14 new.jpg")
    assert names_of(root) >= set(FILES) - {FILES[2]}
    assert set(decoded) <= {FILES[1], FILES[2], FILES[3], "14 new.jpg"}
    assert set(decoded) >= {FILES[1], FILES[2], FILES[3]}


def test_the_index_forgets_images_that_are_gone(root, cache):
    names_of(root)
    (root / FILES[0]).unlink()
    (root / FILES[3]).touch()
    names_of(root)
    (path,) = cache.glob("*.json.gz")

    stored = json.loads(gzip.decompress(path.read_bytes()))
    assert stored["folder"] == str(root) and set(stored["files"]) == set(FILES[1:])


def test_nothing_is_written_into_the_folder(root):
    before = {path: path.stat().st_mtime_ns for path in (root, *root.iterdir())}
    names_of(root)
    assert {path: path.stat().st_mtime_ns for path in (root, *root.iterdir())} == before


@pytest.mark.parametrize("content", [b"", b"garbage", b'{"files": {"0.jpg": 3}}'])
def test_a_damaged_index_is_made_again(root, cache, decoded, content):
    names_of(root)
    (path,) = cache.glob("*.json.gz")

    path.write_bytes(gzip.compress(content) if content.startswith(b"{") else content)
    decoded.clear()
    assert names_of(root) == set(FILES) - {FILES[1]} and sorted(decoded) == sorted(FILES)


@pytest.mark.parametrize("fault", ["no directory", "no room", "no home"])
def test_folder_is_read_without_an_index_if_none_can_be_written(
    root, cache, fault, monkeypatch, decoded
):
    warnings = []
    monkeypatch.setattr(index.log, "warning", lambda text, *values: warnings.append(text % values))
    if fault == "no directory":
        cache.parent.parent.write_text("a file in its place")
    elif fault == "no room":

        def refuse(*_, **__):
            raise OSError(errno.EROFS, "Read-only file system")

        monkeypatch.setattr(index, "whole_file", refuse)
    else:

        def homeless():
            raise ValueError("Could not determine home directory.")

        monkeypatch.setattr(index, "cache_directory", homeless)
    for _ in range(2):
        assert names_of(root) == set(FILES) - {FILES[1]}
    kept = [line for line in warnings if "XDG_CACHE_HOME" in line]
    assert len(kept) == 2 and str(root) in kept[0]
    assert len(decoded) == 2 * len(FILES)


def test_results_of_an_interrupted_check_are_kept(root, decoded, monkeypatch):
    monkeypatch.setattr(index, "_BLOCK", 5)
    real = index._Index.add

    class Killed(BaseException):
        pass

    def check(_, name):
        decoded.append(name)
        if len(decoded) > 5:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(folder, "_check", check)
        names_of(root)
    first = set(decoded[:5])
    decoded.clear()
    names_of(root)
    assert not first & set(decoded) and set(decoded) == set(FILES) - first
    assert index._Index.add is real


def test_system_errors_are_reported_and_not_stored(root, monkeypatch, decoded):
    real = folder.load_square

    def load_square(file, *arguments, **options):
        if file.name == FILES[5]:
            raise OSError(errno.EIO, "Input/output error", str(file))
        return real(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folder, "load_square", load_square)
        assert names_of(root) == set(FILES) - {FILES[1], FILES[5]}
    decoded.clear()
    assert names_of(root) == set(FILES) - {FILES[1]} and decoded == [FILES[5]]


def _open(root, queue):
    queue.put(names_of(root))


def test_processes_that_open_a_folder_at_once_agree(root, cache):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_open, args=(root, queue), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    assert found == [set(FILES) - {FILES[1]}] * 4
    assert [path.suffix for path in sorted(cache.iterdir())] == [".gz", ".lock"]


def test_a_second_process_waits_and_checks_nothing(root, decoded):
    """It enters with the index unread, as if the first had written it in the meantime."""
    names_of(root)
    decoded.clear()
    reads, real = [], index._Index.read

    def read(self):
        reads.append(self)
        if len(reads) == 1:
            self.known = {}
        else:
            real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index._Index, "read", read)
        assert names_of(root) == set(FILES) - {FILES[1]}
    assert len(reads) == 2 and decoded == []


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_the_check_finds_what_reading_finds(tmp_path, kind, share):
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).integers(0, 256, (100, 80, 3), dtype=np.uint8)
    for options in ({}, {"progressive": True}) if kind == "jpeg" else ({},):
        Image.fromarray(noise).save(path, **options)
        folder._check(tmp_path, path.name)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        for read in (lambda: folder._check(tmp_path, path.name), lambda: folder._load(path, 8, 3)):
            with pytest.raises((OSError, ValueError)):
                read()


def test_only_its_owner_can_read_the_index(root, cache):
    names_of(root)
    (path,) = cache.glob("*.json.gz")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
