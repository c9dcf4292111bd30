"""Dictionaries and signals for the tests of `laser_jax.sparse`."""

import os

# Before jax starts. tests/conftest.py sets the same: this lets tests/sparse run by itself.
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    )

import jax
import numpy as np
import pytest

from laser_jax.sparse import coder
from tests.sparse.forms import FORMS

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def two_devices():
    """Skips a test where there is one device."""
    if jax.device_count() < 2:
        pytest.skip("needs two devices")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    """Runs a test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    """Runs a test in float32, then in float64."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Runs a test in each form that a block of signals can have, whatever its shape."""
    monkeypatch.setattr(coder, "choose_form", lambda *args, **kwargs: request.param)
    coder._run.clear_cache()  # it is compiled for a form
    yield request.param
    coder._run.clear_cache()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="session")
def patches():
    """8x8 grey patches of a photograph, mean removed: `(n, 64)` float64 of n = 5000."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg").mean(-1) / 255
    rng = np.random.default_rng(0)
    top, left = (rng.integers(size - 8, size=5000) for size in image.shape)
    cut = np.stack([image[t : t + 8, x : x + 8].ravel() for t, x in zip(top, left, strict=True)])
    return cut - cut.mean(-1, keepdims=True)


@pytest.fixture(scope="session", params=["random", "coherent", "photo"])
def problem(request, patches):
    """Signals `(1000, 64)` and a unit-norm dictionary `(256, 64)` in float64."""
    rng = np.random.default_rng(1)
    if request.param == "photo":
        busy = patches[np.linalg.norm(patches, axis=-1) > 0.1]
        return busy[:1000], unit(busy[1000:1256])
    shared = 0 if request.param == "random" else 2 * rng.normal(size=(1, 64))
    dictionary = unit(rng.normal(size=(256, 64)) + shared)
    code = rng.normal(size=(1000, 256)) * (rng.random((1000, 256)) < 0.03)
    return code @ dictionary + 0.05 * rng.normal(size=(1000, 64)), dictionary
