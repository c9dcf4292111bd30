"""Settings of the C library's memory allocator, for programs that make many large arrays."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # mallopt's parameters, from malloc.h
_KEPT = 2**30  # bytes


def keep_freed_memory():
    """Lets the C library reuse the memory of large arrays instead of returning it to the system.

    By default, glibc maps each large block anew and the system clears its pages, 13,000 in a
    training step on a CPU. Here blocks below 1 GiB are kept, and all threads share them. The
    process then holds the memory of its peak until it ends. Programs call this at their start,
    before they have threads; the library never does. On other C libraries it does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    # Versions of glibc that have an upper limit accept half of 64 MiB.
    if mallopt(_MMAP_THRESHOLD, _KEPT) or mallopt(_MMAP_THRESHOLD, 2**25):
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_ARENA_MAX, 1)  # or threads would each keep blocks of their own
