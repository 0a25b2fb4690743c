"""One line of the preflight."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a finding is to be taken."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: The name of the check.
        remedy: What to do; empty for a good finding.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""


def good(check: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Level.GOOD, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Return a finding with which the program runs, perhaps not as its user expects."""
    return Finding(check, Level.WARNING, text, remedy)


def bad(check: str, text: str, remedy: str) -> Finding:
    """Return a finding that has to be put right."""
    return Finding(check, Level.BAD, text, remedy)


def bounded(check: str, look: Callable[[], list[Finding]], *, within_s: float) -> list[Finding]:
    """Return what a check finds, or that it did not end in time.

    It runs in a thread that dies with the process: a disk or a store that hangs must not make the
    preflight hang.
    """
    found: list[Finding] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            found.extend(look())
        except Exception as error:  # noqa: BLE001 - it is raised in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, name=f"preflight {check}", daemon=True)
    thread.start()
    thread.join(within_s)
    if errors:
        raise errors[0]
    if thread.is_alive():
        return [
            bad(
                check,
                f"no answer within {within_s:g} s",
                "Look whether a disk hangs, and try again.",
            )
        ]
    return found
