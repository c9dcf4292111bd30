"""Settings of the C library's memory allocator, for programs that make many large arrays."""

import contextlib
import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, from malloc.h
_KEPT = 2**30  # bytes


def keep_freed_memory():
    """Lets the C library reuse the memory of large arrays, and JAX compute in the calling thread.

    By default, glibc maps each large block anew and the system clears its pages, 13,000 in a
    training step on a CPU. Here blocks below 1 GiB are kept until the process ends, by each thread
    its own. Threads cannot keep blocks above 64 MiB, except for the main thread; JAX's
    computations on one CPU device therefore begin in the thread that calls them. Programs call this
    at their start, before JAX has devices; the library never does. On other C libraries it does
    nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Versions of glibc that have an upper limit accept half of 64 MiB.
    if mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, 2**25):
        mallopt(_TRIM_THRESHOLD, _KEPT)
        import jax  # slow

        with contextlib.suppress(AttributeError):  # a JAX without this setting
            jax.config.update("jax_cpu_enable_async_dispatch", False)
