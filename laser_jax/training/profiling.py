"""A profile of a few steps, for TensorBoard."""

import logging

from clu import profiler

log = logging.getLogger("laser_jax")

STEPS = 5  # steps in a profile


class Profile:
    """Profiles `STEPS` steps after step `after` with CLU's profiler; 0: none."""

    def __init__(self, workdir, after):
        self._workdir, self._after, self._end = workdir, after, None

    def step(self, step):
        """Starts or ends the profile; called after each step is dispatched."""
        if self._end is None and self._after and step == self._after:
            profiler.start(str(self._workdir))
            self._end = step + STEPS
        elif self._end is not None and step >= self._end:
            self.close()

    def close(self):
        """Ends the profile, if it runs."""
        if self._end is not None:
            profiler.stop()
            log.info("written: a profile of steps %d to %d in %s", self._after + 1, self._end,
                     self._workdir / "plugins")  # fmt: skip
            self._after, self._end = 0, None
