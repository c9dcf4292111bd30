"""One `data` mesh: the batch is split over devices, the state is the same on all of them.

`jax.jit` with shardings is what `pjit` became; sums over the batch are global by themselves.
"""

import logging
import os
import threading

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

log = logging.getLogger("laser_jax")

_TIMEOUT = 300  # seconds that the processes of a job wait for each other
_TELL_AFTER = 5
_ALONE = "To run one process alone, set JAX_NUM_PROCESSES=1."


def initialize_distributed():
    """Joins the processes of one job, where JAX detects one.

    JAX detects Cloud TPU pods (by the environment or the metadata server), SLURM, Open MPI and
    Kubernetes. By hand, set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID;
    JAX_NUM_PROCESSES=1 runs one process alone.

    Raises:
      ValueError: if those variables do not go together.
      OSError: if the other processes cannot be reached.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    by_hand = {name: os.environ[name] for name in names if os.environ.get(name)}
    try:
        count, process = (int(by_hand[n]) if n in by_hand else None for n in names[1:])
    except ValueError as error:
        raise ValueError(f"JAX_NUM_PROCESSES and JAX_PROCESS_ID: {error}.") from error
    if count == 1:
        return
    teller = threading.Timer(_TELL_AFTER, _tell, [count])
    teller.daemon = True
    teller.start()
    try:
        jax.distributed.initialize(
            num_processes=count, process_id=process, initialization_timeout=_TIMEOUT
        )
    except ValueError as error:  # no job was detected, or not all of it
        if by_hand:
            given = ", ".join(f"{name}={value}" for name, value in by_hand.items())
            raise ValueError(
                f"{given}: {error} {', '.join(names)} go together. {_ALONE}"
            ) from error
    except Exception as error:  # of gRPC, of the network
        raise OSError(f"the processes of this job did not meet: {error}\n{_ALONE}") from error
    finally:
        teller.cancel()


def _tell(count):
    """Says what is waited for."""
    sizes = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    found = [f"{count} processes"] if count else [f"{n}={os.environ[n]}" for n in sizes
                                                  if n in os.environ]  # fmt: skip
    log.info(
        "waiting for the other processes of this job (%s), %d seconds at most. %s",
        ", ".join(found) or "as JAX detects it", _TIMEOUT, _ALONE,
    )  # fmt: skip


def data_mesh(devices=None):
    """Returns the mesh of all devices (or those given) along one axis, `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh):
    """Returns the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh):
    """Returns the sharding of arrays split along their first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(name, batch_size, mesh):
    """Raises ValueError unless the devices share a batch evenly."""
    if batch_size < 1 or batch_size % mesh.size:
        raise ValueError(
            f"{name} must be a positive multiple of the number of devices, {mesh.size}, "
            f"got {batch_size}."
        )


def put_batch(batch, mesh):
    """Returns this process's rows `(local_b, ...)` as global arrays over the mesh."""
    sharding = split_batch(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )
