import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import jax, jax.numpy, jaxtyping, numpy

def added(packages):
    before = set(sys.modules)
    for package in packages:
        __import__(package)
    return sorted({".".join(name.split(".")[:2]) for name in set(sys.modules) - before})

sparse = added(["laser_jax.sparse"])
added(["flax.linen"])
print(json.dumps({"sparse": sparse, "models": added(["laser_jax.models"])}))
"""


@pytest.fixture(scope="module")
def added():
    """The packages that an import loads: of `laser_jax.sparse`, then of a bottleneck."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_importing_sparse_loads_jax_numpy_and_jaxtyping_alone(added):
    packages = {name.split(".")[0] for name in added["sparse"]} - sys.stdlib_module_names
    assert packages - {"jax", "jaxlib", "numpy"} == {"laser_jax"}
    assert "laser_jax.sparse" in added["sparse"]


def test_importing_a_bottleneck_loads_flax_and_what_sparse_loads(added):
    packages = {"convolution", "models", "ranges", "tokens"}
    assert set(added["models"]) == {f"laser_jax.{name}" for name in packages}
