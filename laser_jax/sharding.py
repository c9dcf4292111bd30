"""Data parallelism: the batch is split over the devices of a mesh, the state is replicated.

The step is one `jax.jit` with shardings, so that sums over the batch are global.
"""

import logging
import os
import threading

import jax
import numpy as np
from jax.experimental.multihost_utils import sync_global_devices
from jax.sharding import AxisType, NamedSharding, PartitionSpec

log = logging.getLogger("laser_jax")

_TIMEOUT = 300  # seconds that the processes of a job wait for each other
_LOG_AFTER = 5  # seconds after which waiting is logged
_HINT = "To run a single process, set JAX_NUM_PROCESSES=1."


def initialize_distributed():
    """Connects the processes of a job, if JAX detects one.

    JAX detects Cloud TPU pods (by the environment or the metadata server), SLURM, Open MPI and
    Kubernetes. Otherwise set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    JAX_NUM_PROCESSES=1 runs a single process.

    Raises:
      ValueError: if some of these variables are missing or invalid.
      OSError: if the other processes cannot be reached.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    try:
        count, process = (int(given[n]) if n in given else None for n in names[1:])
    except ValueError as error:
        raise ValueError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID: {error}.") from error
    if count == 1:
        return
    timer = threading.Timer(_LOG_AFTER, _log_wait, [count])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            num_processes=count, process_id=process, initialization_timeout=_TIMEOUT
        )
    except ValueError as error:  # no job, or an incomplete one, was detected
        if given:
            text = ", ".join(f"{name}={value}" for name, value in given.items())
            raise ValueError(f"{text}: {error} Set {', '.join(names)} together. {_HINT}") from error
    except Exception as error:  # of gRPC or the network
        raise OSError(f"the processes of this job did not connect: {error}\n{_HINT}") from error
    finally:
        timer.cancel()


def _log_wait(count):
    """Logs which processes this one waits for, and for how long."""
    sizes = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    found = [f"{count} processes"] if count else [f"{n}={os.environ[n]}" for n in sizes
                                                  if n in os.environ]  # fmt: skip
    log.info(
        "waiting for the other processes of this job (%s), at most %d seconds. %s",
        ", ".join(found) or "detected by JAX", _TIMEOUT, _HINT,
    )  # fmt: skip


def data_mesh(devices=None):
    """Returns the mesh of all devices (or the given ones) along one axis, `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh):
    """Returns the sharding of arrays that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh):
    """Returns the sharding of arrays split along their first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(name, batch_size, mesh, parts=1):
    """Raises ValueError unless each part of a batch divides evenly over the devices."""
    if batch_size < 1 or batch_size % (parts * mesh.size):
        times = f", times optimizer.accumulate_steps {parts}" if parts > 1 else ""
        raise ValueError(
            f"{name} must be a positive multiple of the number of devices, {mesh.size}{times}, "
            f"got {batch_size}."
        )


def put_batch(batch, mesh):
    """Returns global arrays over the mesh from this process's rows `(local_b, ...)`."""
    sharding = split_batch(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def wait_for_first_process(what):
    """Blocks until every process reaches this point; `what` must be equal on all of them."""
    if jax.process_count() > 1:
        sync_global_devices(what)
