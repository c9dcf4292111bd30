"""One `data` mesh: the batch is split over devices, the state is the same on all of them.

`jax.jit` with shardings is what `pjit` became; sums over the batch are global by themselves.
"""

import os

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

_CLUSTER_VARIABLES = (
    "JAX_COORDINATOR_ADDRESS",
    "SLURM_STEP_NODELIST",
    "OMPI_MCA_orte_hnp_uri",
    "TPU_WORKER_HOSTNAMES",
    "MEGASCALE_COORDINATOR_ADDRESS",
)


def initialize_distributed():
    """Joins the processes of one job, where the environment says that there are several.

    Cloud TPU pods, SLURM and Open MPI are detected by JAX. By hand, set
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    if any(name in os.environ for name in _CLUSTER_VARIABLES):
        by_hand = {
            "num_processes": os.environ.get("JAX_NUM_PROCESSES"),
            "process_id": os.environ.get("JAX_PROCESS_ID"),
        }
        jax.distributed.initialize(**{k: int(v) for k, v in by_hand.items() if v is not None})


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
