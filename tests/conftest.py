"""Shared fixtures, and JAX settings: two virtual CPU devices, no implicit rank promotion."""

import importlib.metadata
import os

# Compilation is most of the suite's time, and a program runs only a few times. Without optimisation
# by LLVM, with XLA's older emitters of fusions and as one module, it takes a sixth of the time. A
# flag that XLA does not know ends the process. The caller's own flags come last and win.
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        if importlib.metadata.version("jaxlib").startswith("0.10.")
        else "",
        os.environ.get("XLA_FLAGS", ""),
    ]
)
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Matplotlib's font list stays in the user's cache; other caches are temporary.
os.environ.setdefault("MPLCONFIGDIR", os.path.expanduser("~/.cache/matplotlib"))
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.devnull)

import gc
import pathlib
import pickle
import sys
import tempfile
import zlib

import hypothesis
import pytest

# `HYPOTHESIS_PROFILE=thorough` runs more examples. They are the same in every run.
_HYPOTHESIS = {
    "deadline": None,  # an example may compile
    "derandomize": True,
    "database": None,
    "phases": [hypothesis.Phase.generate, hypothesis.Phase.shrink],
    "suppress_health_check": list(hypothesis.HealthCheck),
}
hypothesis.settings.register_profile("quick", max_examples=4, **_HYPOTHESIS)
hypothesis.settings.register_profile("thorough", max_examples=60, **_HYPOTHESIS)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # for `configs` and `main`


def pytest_collection_finish():
    """Keeps the garbage collector from searching half a million objects of imported modules."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory):
    """Temporary and cache directories of this process and its children; TFDS leaves files there."""
    path = str(tmp_path_factory.mktemp("tmp"))
    tempfile.tempdir = os.environ["TMPDIR"] = path
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """One compilation cache for this process and its children."""
    import jax

    path = str(tmp_path_factory.mktemp("xla"))
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = path
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"


@pytest.fixture(scope="module", autouse=True)
def compiled_programs():
    """Drops the compiled programs between files before a process has too many memory maps.

    XLA maps several regions for each CPU program. Linux allows 65,530 maps by default, and the
    process crashes or hangs beyond them.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 15_000:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def photo_patches_dir(tmp_path_factory):
    """A `data_dir` with the prepared data set of the embedded photographs."""
    from laser_jax.data import prepare

    data_dir = tmp_path_factory.mktemp("tfds")
    prepare("photo_patches", image_size=32, data_dir=data_dir)
    return data_dir


@pytest.fixture
def tiny_config(photo_patches_dir):
    """The config `configs/tiny.py` with prepared photographs."""
    from configs import tiny

    config = tiny.get_config()
    config.data.data_dir = str(photo_patches_dir)
    config.eval.table_images = 0  # the true rate has tests of its own, and takes seconds
    return config


@pytest.fixture(scope="session")
def few_images(tmp_path_factory):
    """A folder of smooth 32x32 images: 40 to train on, 8 for validation and 20 to test."""
    import numpy as np
    from PIL import Image

    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    waves = np.cos(np.outer(np.arange(32), np.arange(4)) * 0.1)
    for split, number in (("train", 40), ("validation", 8), ("test", 20)):
        (path / split).mkdir()
        for i in range(number):
            image = np.einsum("yi,xj,ijc->yxc", waves, waves, rng.normal(size=(4, 4, 3)))
            pixels = np.uint8(np.clip(128 + 30 * image, 0, 255))
            Image.fromarray(pixels).save(path / split / f"{i}.png")
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home directory; the current directory, `here`, is empty too."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB to fill; the test is skipped where none can be mounted."""
    from tests.faults.small_disk import SmallDisk

    disk = SmallDisk(tmp_path / "disk")
    try:
        disk.__enter__()
    except PermissionError as error:
        pytest.skip(str(error))
    yield disk
    disk.__exit__()


@pytest.fixture(scope="session")
def products():
    """A function that returns the matrix products and convolutions in the jaxpr of a call."""
    import jax

    def equations(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for parameter in jax.tree.leaves(
                equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
            ):
                inner = getattr(parameter, "jaxpr", parameter)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)

    def find(call, *arguments):
        found = equations(jax.make_jaxpr(call)(*arguments).jaxpr)
        return [e for e in found if e.primitive.name in ("dot_general", "conv_general_dilated")]

    return find


@pytest.fixture(scope="session")
def refuses():
    """A function that asserts that a call raises a ValueError of laser_jax, ending in a period."""

    def check(function, *args, **kwargs):
        with pytest.raises(ValueError) as caught:
            function(*args, **kwargs)
        assert caught.traceback[-1].path.is_relative_to(ROOT / "laser_jax"), str(caught.value)
        assert str(caught.value).endswith("."), str(caught.value)

    return check


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """A weight file of FID's Inception in its real format, with random values seeded by name.

    They are scaled so that activations neither explode nor vanish. The file has the unused
    classifier too.
    """
    import jax
    import numpy as np

    from laser_jax.pretrained.inception import InceptionV3

    def values_of(keys, like):
        name = "/".join(key.key for key in keys)
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(like.shape)
        value = {
            "kernel": noise * np.sqrt(2 / np.prod(like.shape[:-1])),
            "scale": 1 + 0.1 * noise,
            "var": np.exp(0.2 * noise),
        }.get(keys[-1].key, 0.1 * noise)
        return value.astype(np.float32)

    images = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), images)["params"]
    tree = {**jax.tree.map_with_path(values_of, shapes), "fc": {"bias": np.zeros(1008)}}
    path = tmp_path_factory.mktemp("inception") / "inception_v3_weights_fid.pickle"
    path.write_bytes(pickle.dumps(tree))
    return path
