"""The forms of a block of signals: those that a quick test runs, and the others in slow tests."""

import pytest

FORMS = ("rows", "columns", "gram", "rows at once")


def forms(*quick):
    """Runs a test in each form; in all but these it is slow."""
    slow = [pytest.param(form, marks=pytest.mark.slow) for form in FORMS if form not in quick]
    return pytest.mark.parametrize("form", [*quick, *slow], indirect=True)
