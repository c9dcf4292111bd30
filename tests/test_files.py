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
    (path.parent / ".weights.999999999").mkdir()  # of a killed process
    with whole_directory(path) as partial:
        (partial / "whole").write_text("")
    assert sorted(path.parent.rglob("*")) == [path, path / "whole"]
    with pytest.raises(OSError, match="weights cannot be written"), whole_directory(path):
        pass
    assert (path / "whole").exists()
