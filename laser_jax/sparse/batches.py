"""Batches of one size from any iterator of arrays, and the progress of a fit."""

import logging
import sys
import time

import jax
import numpy as np

from laser_jax.checks import check_floating

log = logging.getLogger("laser_jax")


def in_batches(arrays, size):
    """Yields signals `(size, d)`, cut from arrays `(..., d)` and joined in their order.

    The last batch is padded with rows of NaN, which learning ignores, so that all have one
    compiled shape. A `jax.Array` that is a batch already stays where it is, another one is copied
    to the host; of others, such as a `numpy.memmap`, one batch at a time is in memory.

    Args:
      arrays: iterable of arrays, or one array.
      size: signals a batch.

    Raises:
      ValueError: if an array has no axis, is not floating point, differs in width, or is no batch
        and partly on devices of other processes.
    """
    parts, missing, width = [], size, None
    for array in [arrays] if hasattr(arrays, "shape") else arrays:
        array = array if hasattr(array, "shape") else np.asarray(array)
        width = _check_width(array, width)
        if isinstance(array, jax.Array) and array.shape == (size, width) and not parts:
            yield array
            continue
        if isinstance(array, jax.Array):
            # Each slice of it would compile a program and copy the rest.
            array = _on_host(array, size, width)
        rows = array.reshape(-1, width)
        while len(rows):
            parts.append(np.asarray(rows[:missing]))
            missing -= len(parts[-1])
            rows = rows[len(parts[-1]) :]
            if not missing:
                yield _join(parts)
                parts, missing = [], size
    if parts:
        yield _join([*parts, np.full((missing, width), np.nan, parts[0].dtype)])


def _on_host(array, size, width):
    if not array.is_fully_addressable:
        raise ValueError(
            "an array over several processes must be a whole batch, of shape "
            f"{(size, width)} after whole batches, got {array.shape}; choose batch_size to fit."
        )
    return np.asarray(array)


def _check_width(array, width):
    check_floating(signals=array)
    if array.ndim == 0 or array.shape[-1] == 0 or width not in (None, array.shape[-1]):
        expected = "(..., d)" if width is None else f"(..., {width}), as those before"
        raise ValueError(f"batches must have shape {expected}, got {array.shape}.")
    return array.shape[-1]


def _join(parts):
    """Returns a copy: JAX may read a NumPy array after the call that was given it."""
    return np.concatenate(parts)


class Progress:
    """A line on a terminal that is kept up to date; elsewhere a log line every half minute."""

    def __init__(self):
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._show, self._seconds = (_rewrite, 0.2) if terminal else (log.info, 30)
        self._begin = self._shown = time.monotonic()
        self._signals, self._text = 0, None

    def report(self, num_signals, numbers):
        """Shows the numbers of a step, if it is time, and the speed."""
        self._signals += num_signals
        now = time.monotonic()
        speed = self._signals / max(now - self._begin, 1e-9)
        known = (f"{name} {value:.5g}" for name, value in numbers.items())
        self._text = f"{'  '.join(known)}  {speed:,.0f} signals/s"
        if now - self._shown >= self._seconds:
            self._shown = now
            self._show(self._text)

    def close(self):
        """Shows the last step."""
        if self._text is not None:
            self._show(self._text)
            if self._show is _rewrite:
                sys.stderr.write("\n")


def _rewrite(text):
    sys.stderr.write(f"\r{text}\x1b[K")
    sys.stderr.flush()
