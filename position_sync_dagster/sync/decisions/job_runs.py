"""The runs of a Dagster job as plain values, which the deciders work on."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunState(StrEnum):
    """The state of a run, as far as the decisions need it."""

    WAITING = "WAITING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    ENDED = "ENDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


IN_PROGRESS = frozenset({RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.CANCELING})
"""The states of a run that has not ended, as far as Dagster knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of a job, as Dagster stores it.

    Attributes:
        since: When it began; before that, when it was created or launched.
        ended_at: None while it is in progress.
        own_fault: It failed by an error of its own; it was not interrupted, killed or given up.
        released: Requests that a drain claimed and released without a value.
        registry_version: Delta version of `active_strategies` that the run recorded.
        refreshed: The logins that a run refreshes that does nothing else.
    """

    run_id: str
    state: RunState
    since: datetime
    ended_at: datetime | None = None
    own_fault: bool = False
    released: int = 0
    registry_version: int | None = None
    refreshed: str | None = None


def consecutive(outcomes: Iterable[bool]) -> int:
    """Count the failures at the front of outcomes, newest first; True is a failure.

    >>> consecutive([True, True, False, True])
    2
    """
    count = 0
    for failed in outcomes:
        if not failed:
            break
        count += 1
    return count
