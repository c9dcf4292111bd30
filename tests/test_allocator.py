import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
from laser_jax import allocator

if sys.argv[1] == "kept":
    allocator.keep_freed_memory()
if sys.argv[2] == "numpy":
    def compute():
        np.ones(2**22)
else:  # a program with a temporary array of 81 MiB
    rows = jnp.ones((4608, 8))
    function = jax.jit(lambda x: (x @ x.T) @ x)
    def compute():
        function(rows).block_until_ready()
for _ in range(4):
    compute()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    compute()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode, kind):
    """Returns the page faults of ten computations with large arrays, one after the other."""
    # NumPy's huge pages would hide most of the faults.
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode, kind], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
@pytest.mark.parametrize("kind", ["numpy", "jax"])
def test_freed_memory_is_reused_after_the_call_only(kind):
    assert page_faults("kept", kind) < 0.1 * page_faults("default", kind)
