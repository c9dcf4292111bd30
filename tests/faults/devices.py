"""Runs on several devices, and in several processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np

from laser_jax.models.build import BOTTLENECKS
from tests.faults.evidence import read_checksums, read_metrics, read_state
from tests.faults.tally import check, check_kept
from tests.faults.trainer import ROOT, Trainer

DEVICES = (1, 2, 8)


def numbers_of_devices(tally, directory, *, bottlenecks=tuple(BOTTLENECKS)):
    """Losses are equal on 1, 2 and 8 virtual devices, and all devices hold the same state."""
    furthest = {"float32": 0.0, "float64": 0.0}
    for bottleneck in bottlenecks:
        for dtype, steps, tolerance in (("float32", 1, 1e-5), ("float64", 20, 1e-8)):
            reference = None
            for devices in DEVICES:
                with tally.trial(f"{bottleneck}, {dtype}, {devices} devices"):
                    losses = _losses(devices, bottleneck, dtype, steps)
                    reference = losses if reference is None else reference
                    error = np.max(np.abs(losses / reference - 1))
                    check(error <= tolerance, f"losses differ by {error}")
                    furthest[dtype] = max(furthest[dtype], error)
    tally.measured = (
        f"losses differ by {furthest['float32']:.0e} (float32, first step) and "
        f"{furthest['float64']:.0e} (float64, 20 steps)"
    )


def _losses(devices, bottleneck, dtype, steps):
    """Returns the losses of the first steps, from a process with this number of devices."""
    command = [
        sys.executable,
        "-m",
        "tests.faults.first_steps",
        bottleneck,
        dtype,
        str(steps),
    ]
    environment = _environment(devices) | {"JAX_ENABLE_X64": str(int(dtype == "float64"))}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    check(ended.returncode == 0, ended.stderr[-1500:])
    return np.array(json.loads(ended.stdout.splitlines()[-1]))


def other_numbers_of_devices(tally, directory, *, bottlenecks=("vq", "dl", "ksvd")):
    """PSNR is equal on 1, 2 and 8 devices; a checkpoint moves from 8 to 1 and back."""
    widest = 0.0
    for bottleneck in bottlenecks:
        psnr = {}
        for devices in DEVICES:
            with tally.trial(f"{bottleneck}, {devices} devices"):
                workdir = directory / f"{bottleneck}-{devices}"
                with _trainer(workdir, devices, f"model.bottleneck={bottleneck}") as run:
                    run.end()
                psnr[devices] = read_metrics(workdir)["val/psnr"]
                difference = abs(psnr[devices] - psnr[DEVICES[0]])
                check(difference < 0.1, f"PSNR {psnr} dB")
                widest = max(widest, difference)
    with tally.trial("8 devices, then 1, then 8"):
        workdir = directory / "moved"
        for devices, steps in ((8, 20), (1, 40), (8, 60)):
            kept = read_checksums(workdir) if workdir.exists() else {}
            with _trainer(workdir, devices, f"num_train_steps={steps}") as run:
                output = run.end()
            check(not kept or f"resuming from step {steps - 20}" in output, output[-300:])
            found = read_checksums(workdir)
            check_kept(all(found[s] == c for s, c in kept.items() if s in found), "differ")
            check("damaged" not in output, output[-300:])
        check(int(read_state(workdir)[".step"]) == 60, "did not end")
    tally.measured = f"PSNR differs by {widest:.3f} dB"


def _trainer(workdir, devices, *settings):
    return Trainer(workdir, *settings, environment=_environment(devices))


def _environment(devices):
    """Returns variables that give a process this number of devices."""
    count = "--xla_force_host_platform_device_count"
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(count)]
    return {**os.environ, "XLA_FLAGS": " ".join([*flags, f"{count}={devices}"])}


def lost_process(tally, directory, *, lose=(0, 1)):
    """When one of two processes is killed, the other reports it and ends; a rerun continues."""
    whole, waits = directory / "whole", []
    with tally.trial("none is lost, as under SLURM"):
        _together(whole, start=_by_slurm())
    reference = read_checksums(whole)
    for lost in lose:
        with tally.trial(f"process {lost} is lost"):
            workdir = directory / f"lost {lost}"
            job = _job(workdir)
            with job[0], job[1]:
                job[0].until(lambda job=job: job[0].checkpoints()[-1:] > [0], "checkpoint")
                job[lost].process.kill()
                start = time.monotonic()
                # Without the coordinator, process 0, JAX itself may be the first to end it.
                output = job[1 - lost].end((75, -signal.SIGABRT) if lost == 0 else 75, seconds=120)
                waits.append(time.monotonic() - start)
            signalled = (
                "another process of this job died" in output or "another task died" in output
            )
            check(signalled, output[-500:])
            kept = job[0].checkpoints()[-1]
            check(f"resuming from step {kept}" in _together(workdir), "did not go on")
            found = read_checksums(workdir)
            check_kept(found == {s: reference[s] for s in found}, "differs from the one not lost")
    tally.measured = f"the other one ended after {max(waits):.1f} s at most"


def stop_signal_to_one_process(tally, directory):
    """On SIGTERM to one of two processes both finish the same step and write its checkpoint."""
    for signalled in (0, 1):
        with tally.trial(f"SIGTERM to process {signalled}"):
            job = _job(directory / f"signalled {signalled}", "num_train_steps=100000")
            with job[0], job[1]:
                job[0].until(lambda job=job: job[0].checkpoints()[-1:] > [0], "checkpoint")
                job[signalled].process.terminate()
                output = [process.end(75, seconds=60) for process in job]
            steps = {re.search(r"stopped by SIGTERM after step (\d+)", text)[1] for text in output}
            check(steps == {str(job[0].checkpoints()[-1])}, f"stopped after {steps}")


def _together(workdir, start=None):
    """Trains with two processes to the end; returns the first one's output."""
    first, second = _job(workdir, start=start)
    with first, second:
        output = first.end()
        second.end()
    return output


def _job(workdir, *settings, start=None):
    """Returns two processes of one device each that train together."""
    start = start or _by_hand()
    return tuple(
        Trainer(workdir, *settings, environment=_environment(1) | start(i)) for i in (0, 1)
    )


def _by_hand():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return lambda index: {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
    }


def _by_slurm():
    """Returns the variables that srun sets; JAX takes the port from the job's number."""
    return lambda index: {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(index),
    }
