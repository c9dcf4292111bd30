import platform

import pytest

from laser_jax.files import whole_directory, whole_file, writing


def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    with whole_file(path) as partial:
        partial.write_text("old")
    for error, expected in ((OSError("no space"), OSError), (KeyError("other"), KeyError)):
        with pytest.raises(expected) as caught, whole_file(path) as partial:
            partial.write_text("half")
            raise error
        assert expected is KeyError or str(caught.value) == f"{path} cannot be written: no space"
        assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_write_errors_name_what_cannot_be_written(tmp_path):
    message = "^the workdir x cannot be written: .*No such file"
    with pytest.raises(OSError, match=message), writing("the workdir x"):
        (tmp_path / "missing" / "file").write_text("")


def test_directory_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "weights"
    for error in (OSError("no space"), KeyboardInterrupt()):
        with pytest.raises(type(error)), whole_directory(path) as partial:
            (partial / "half").write_text("")
            raise error
        assert list(path.parent.iterdir()) == []
    path.mkdir()
    same = path.stat().st_ino
    start = f".weights.partial-{platform.node()}-"
    (path.parent / f"{start}999999999-0").mkdir()  # of a killed process
    with whole_directory(path) as partial:
        (partial / "whole").write_text("")
    assert sorted(path.parent.rglob("*")) == [path, path / "whole"] and path.stat().st_ino == same
    with pytest.raises(OSError, match="weights cannot be written"), whole_directory(path):
        pass
    assert (path / "whole").exists()


def test_only_directories_of_killed_processes_of_this_machine_are_removed(tmp_path):
    path, start = tmp_path / "out", f".out.partial-{platform.node()}-"
    names = (".out.2024", ".out.\N{SUPERSCRIPT TWO}", ".out.partial-other-999999999-0", start + "x")
    for name in names:
        (tmp_path / name).mkdir()
    with whole_directory(path) as first:
        with whole_directory(tmp_path / "link"), whole_directory(path) as second:
            (second / "file").write_text("second")
        (first / "file").write_text("first")
        (path / "file").unlink()
    assert (path / "file").read_text() == "first"
    assert {x.name for x in tmp_path.iterdir()} == {"out", "link", *names}


def test_link_to_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with whole_directory(tmp_path / "link") as partial:
        (partial / "file").write_text("whole")
    assert (tmp_path / "target" / "file").read_text() == "whole"
