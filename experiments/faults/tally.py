"""The count of one fault: how often it was tried, survived, and what it cost."""

import contextlib
import dataclasses
import traceback


class NotSurvivedError(AssertionError):
    """What was promised of this fault did not happen."""


class LostError(NotSurvivedError):
    """Something that a user had is gone, or not what it was."""


@dataclasses.dataclass
class Tally:
    """One line of the table.

    Attributes:
      fault: its name.
      tried, survived: trials, and those that went as promised.
      lost: trials after which something was gone or not what it was.
      seen: what was measured, in a few words.
      failures: what was wrong, a text for each trial that was not survived.
    """

    fault: str
    tried: int = 0
    survived: int = 0
    lost: int = 0
    seen: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def trial(self, what):
        """Counts what happens inside: survived unless it raises."""
        self.tried += 1
        try:
            yield
        except Exception as error:
            self.lost += isinstance(error, LostError)
            told = str(error) if isinstance(error, NotSurvivedError) else traceback.format_exc()
            self.failures.append(f"{self.fault}, {what}: {told}")
        else:
            self.survived += 1

    @property
    def good(self):
        """Whether the fault was tried, and survived each time."""
        return 0 < self.tried == self.survived


def check(happened, message):
    """Raises NotSurvivedError unless what was promised happened."""
    if not happened:
        raise NotSurvivedError(message)


def check_kept(kept, message):
    """Raises LostError unless what a user had is what it was."""
    if not kept:
        raise LostError(message)
