"""One of two processes of four virtual CPU devices each; see test_processes.py.

    python -m tests.sparse.processes RANK PORT

It compares with what it computes on one of its devices, and prints what it compared.
"""

import functools
import os
import sys

os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from laser_jax.sparse import DictionaryLearner, omp

K, M, D, BATCH = 4, 64, 12, 128
RNG = np.random.default_rng(0)
ATOMS = RNG.normal(size=(M, D)).astype(np.float32)
BATCHES = RNG.normal(size=(4, BATCH, D)).astype(np.float32)


def on_mesh(mesh, spec, array):
    """An array of which each process gives the parts of its devices."""
    place = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, place, lambda index: array[index])


def codes():
    """Atoms over all eight devices."""
    mesh = jax.make_mesh((8,), ("atoms",), axis_types=(AxisType.Auto,))
    whole, atoms = PartitionSpec(), PartitionSpec("atoms")
    coder = functools.partial(omp, sparsity=K, atoms_axis="atoms")
    run = jax.shard_map(coder, mesh=mesh, in_specs=(whole, atoms), out_specs=whole)
    found = jax.jit(run)(on_mesh(mesh, whole, BATCHES[0]), on_mesh(mesh, atoms, ATOMS))
    expected = omp(BATCHES[0], ATOMS, sparsity=K)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=1e-4, atol=1e-6)


def learners():
    """Signals over two rows of devices, one a process, and atoms over four."""
    mesh = jax.make_mesh((2, 4), ("data", "atoms"), axis_types=2 * (AxisType.Auto,))
    rows = PartitionSpec("data")
    options = {"batch_size": BATCH, "replace_every": 2, "min_usage": 0.5}
    held_out = {"held_out": BATCHES[-1], "evaluate_every": 2, "tolerance": 1e-3}
    key, learner = jax.random.key(0), DictionaryLearner(M, K, **options)
    expected = learner.fit(BATCHES, key, **held_out)
    across = DictionaryLearner(M, K, atoms_axis="atoms", **options)
    found = across.fit((on_mesh(mesh, rows, x) for x in BATCHES), key, **held_out)
    assert found.step == expected.step and found.held_out == expected.held_out
    np.testing.assert_allclose(found.best_error, expected.best_error, rtol=1e-4)
    for part in found.dictionary.addressable_shards:
        np.testing.assert_allclose(part.data, expected.dictionary[part.index], atol=2e-4)
    try:
        across.fit([on_mesh(mesh, rows, BATCHES[0][:64])], key, state=found)
    except ValueError as error:
        assert "over several processes must be a whole batch" in str(error), error
        assert error.learner_state.step == expected.step
    else:
        raise AssertionError("half a batch was learned")


if __name__ == "__main__":
    rank, port = map(int, sys.argv[1:])
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=rank)
    assert jax.device_count() == 8 and jax.local_device_count() == 4
    for check in (codes, learners):
        check()
        print(check.__name__, flush=True)
