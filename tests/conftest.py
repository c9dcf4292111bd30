"""Two virtual CPU devices and strict ranks, set before JAX starts; what many tests share."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import pathlib
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs` and `main`


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """Where this process and those it starts put theirs: TFDS leaves empty directories behind."""
    path = str(tmp_path_factory.mktemp("tmp"))
    tempfile.tempdir = os.environ["TMPDIR"] = path


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One cache for this process and those it starts: the same steps compile once."""
    import jax

    path = str(tmp_path_factory.mktemp("xla"))
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = path
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"


@pytest.fixture(scope="session")
def photo_patches_dir(tmp_path_factory):
    """A data_dir in which the embedded photographs' windows are prepared."""
    from laser_jax.data import prepare

    data_dir = tmp_path_factory.mktemp("tfds")
    prepare("photo_patches", image_size=32, data_dir=data_dir)
    return data_dir


@pytest.fixture
def tiny_config(photo_patches_dir):
    """The configuration `configs/tiny.py` on prepared photographs."""
    from configs import tiny

    config = tiny.get_config()
    config.data.data_dir = str(photo_patches_dir)
    return config
