"""Coding and learning over two processes."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_two_processes_of_four_devices_find_what_one_device_does():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.sparse.processes"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(port)], cwd=pathlib.Path(__file__).parents[2], text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        for process in processes:
            out, err = process.communicate(timeout=300)
            # Gloo writes lines of its own.
            assert {"codes", "learners"} <= set(out.splitlines()), err[-3000:]
            assert process.returncode == 0, err[-3000:]
    finally:
        for process in processes:
            process.kill()
