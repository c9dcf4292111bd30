import subprocess
import sys

PROGRAM = """
import sys
import laser_jax.sparse, jaxtyping, flax.linen
before = set(sys.modules)
from laser_jax.models import VectorQuantizer
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def test_importing_a_bottleneck_loads_flax_and_what_sparse_loads():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    added = run.stdout.split()
    assert "laser_jax.models.autoencoder" in added
    packages = {".".join(name.split(".")[:2]) for name in added}
    assert packages == {"laser_jax.models", "laser_jax.ranges"}
