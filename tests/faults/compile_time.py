"""Prints the seconds that a run of `configs/tiny.py` spends in compiling.

JAX_COMPILATION_CACHE_DIR=... python -m tests.faults.compile_time WORKDIR
"""

import sys

import jax

from configs import tiny
from laser_jax.training.loop import train


def main(workdir):
    seconds = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    train(tiny.get_config(), workdir)
    print(sum(seconds))


if __name__ == "__main__":
    main(*sys.argv[1:])
