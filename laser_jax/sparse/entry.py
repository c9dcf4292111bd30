"""The decorator of public functions: static arguments, compilation and sharding."""

import functools
import inspect
import operator
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from laser_jax.checks import check_range

# Axes at the end of an argument that do not count its rows.
INNER_AXES = {"signals": 1, "code": 1, "patches": 2, "images": 3}
# Static arguments that may be strings.
_STRINGS = "method", "selection", "atoms_axis", "nonnegative"

Function = TypeVar("Function", bound=Callable)


def entry(*, static=(), compiled=True, like=None) -> Callable[[Function], Function]:
    """Decorates a public function.

    It then takes any integer type for static numbers, refuses sparse matrices and numbers out of
    their range by name, is compiled by `jax.jit`, and computes arrays on a mesh of Explicit axes as
    on one of Auto axes: explicit sharding rules for every gather and scatter would give the same
    result.

    Args:
      static: names of the arguments that are static: integers, strings or None.
      compiled: whether to compile it; False for a function that does so in parts.
      like: names of the arguments that the results are sharded like, as a pytree prefix of the
        results. "signals" and "code" stand for their leading axes, as "patches" and "images" do,
        None for no sharding.
    """

    def decorate(function):
        signature = inspect.signature(function)
        call = jax.jit(function, static_argnames=static) if compiled else function

        @functools.wraps(function)
        def checked(*args, **kwargs):
            arguments = signature.bind(*args, **kwargs).arguments
            fixed = {name: static_value(name, x) for name, x in arguments.items() if name in static}
            arrays = {name: x for name, x in arguments.items() if name not in static}
            for name, x in arrays.items():
                _check_dense(name, x)
                check_range(name, x)
            mesh = _explicit_mesh(arrays)
            if mesh is None:
                return call(**arrays, **fixed)
            automatic = jax.sharding.auto_axes(
                lambda arrays: call(**arrays, **fixed),
                out_sharding=_shardings(like, arrays, mesh),
            )
            return automatic(arrays)

        return checked

    return decorate


def static_value(name, value):
    """Returns a static argument, integers of any type as Python integers."""
    if value is None or (isinstance(value, str) and name in _STRINGS):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    try:
        if name == "image_shape":
            return tuple(operator.index(x) for x in value)
        return operator.index(value)
    except TypeError:
        kind = "a tuple of static integers" if name == "image_shape" else "a static integer"
        raise ValueError(f"{name} must be {kind}, got {value!r}.") from None


def _check_dense(name, value):
    if hasattr(value, "toarray"):
        raise ValueError(
            f"{name} must be a dense array, got {type(value).__name__}; pass {name}.toarray()."
        )


def _explicit_mesh(arrays):
    """The mesh of Explicit axes on which an array lies or which is set, or None."""
    leaves = [x for x in jax.tree.leaves(arrays) if isinstance(x, jax.Array)]
    meshes = [jax.typeof(x).sharding.mesh for x in leaves] + [jax.sharding.get_abstract_mesh()]
    return next((mesh for mesh in meshes if mesh.explicit_axes), None)


def _shardings(like, arrays, mesh):
    def sharding(x, axes=None):
        spec = jax.typeof(x).sharding.spec if isinstance(x, jax.Array) else PartitionSpec()
        return NamedSharding(mesh, PartitionSpec(*spec[:axes]))

    def shardings_of(name):
        if name is None or arrays.get(name) is None:
            return NamedSharding(mesh, PartitionSpec())
        if name in INNER_AXES:
            return sharding(jax.tree.leaves(arrays[name])[0], axes=-INNER_AXES[name])
        return jax.tree.map(sharding, arrays[name])

    return jax.tree.map(shardings_of, like, is_leaf=lambda x: x is None)
