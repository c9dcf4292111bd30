"""The count of one fault: trials, survivals and losses."""

import contextlib
import dataclasses
import traceback


class NotSurvivedError(AssertionError):
    """A run did not do what is promised for this fault."""


class LostError(NotSurvivedError):
    """Something of the user's is gone or changed."""


@dataclasses.dataclass
class Tally:
    """One line of the table.

    Attributes:
      fault: its name.
      tried, survived: trials, and those that went as promised.
      lost: trials after which something was gone or changed.
      measured: what was measured, in a few words.
      failures: a text for each trial that was not survived.
    """

    fault: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    measured: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def trial(self, what):
        """Counts the block inside: survived unless it raises."""
        self.tried += 1
        try:
            yield
        except Exception as error:
            self.lost += isinstance(error, LostError)
            text = str(error) if isinstance(error, NotSurvivedError) else traceback.format_exc()
            self.failures.append(f"{self.fault}, {what}: {text}")
        else:
            self.survived += 1

    @property
    def passed(self):
        """Whether the fault was tried, and survived each time."""
        return 0 < self.tried == self.survived

    def __str__(self):
        return (
            f"{self.fault:<28} tried {self.tried:>3}  survived {self.survived:>3}  "
            f"lost {self.lost}  {self.measured}"
        )


def check(happened, message):
    """Raises NotSurvivedError unless the promise was kept."""
    if not happened:
        raise NotSurvivedError(message)


def check_kept(kept, message):
    """Raises LostError unless the user's data is unchanged."""
    if not kept:
        raise LostError(message)
