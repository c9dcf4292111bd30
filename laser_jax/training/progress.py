"""Progress of a run: a progress bar on a terminal, log lines otherwise."""

import logging
import sys
import time

import tqdm

log = logging.getLogger("laser_jax")


class Progress:
    """Shows the step, the remaining time, the loss and the quality."""

    def __init__(self, first_step, num_steps):
        self._num_steps = num_steps
        self._begin = (first_step, time.monotonic())
        self._bar = None
        if sys.stderr is not None and sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=num_steps, initial=first_step, unit="step", dynamic_ncols=True, smoothing=0.05
            )

    def advance(self):
        """Counts one more step."""
        if self._bar:
            self._bar.update()

    def report(self, step, scalars):
        """Shows the scalars of a logged step."""
        loss = scalars["train/loss"]
        if "train/psnr" in scalars:
            quality = f"PSNR {scalars['train/psnr']:.2f} dB"
        else:
            names = ("train/bits_per_token", "train/masked_bits_per_token")
            quality = next(f"{scalars[name]:.3f} bits/token" for name in names if name in scalars)
        if self._bar:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {quality}")
            return
        # The first step compiles and is not timed, so a report of it alone has no speed.
        speed = scalars.get("train/images_per_second")
        first, begin = self._begin
        remaining = (time.monotonic() - begin) / max(step - first, 1) * (self._num_steps - step)
        log.info(
            "step %d/%d  loss %.4f  %s  %s%s left",
            step,
            self._num_steps,
            loss,
            quality,
            "" if speed is None else f"{speed:.0f} images/s  ",
            tqdm.tqdm.format_interval(remaining),
        )

    def close(self):
        """Closes the progress bar."""
        if self._bar:
            self._bar.close()


def table(rows):
    """Returns a two-column text table of a dict of numbers and strings."""
    width = max(map(len, rows))
    lines = [
        f"  {name:<{width}}  {value:.4g}"
        if isinstance(value, float)
        else f"  {name:<{width}}  {value}"
        for name, value in rows.items()
    ]
    return "\n".join(lines)
