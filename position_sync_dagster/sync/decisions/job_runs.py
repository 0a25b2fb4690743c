"""Runs of a Dagster job as plain values to decide over."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RunState(StrEnum):
    """Where a run stands, as far as a decision cares."""

    WAITING = "WAITING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    ENDED = "ENDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


IN_PROGRESS = frozenset({RunState.WAITING, RunState.STARTING, RunState.RUNNING, RunState.CANCELING})
"""The states in which Dagster believes that a run lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of a job as Dagster tells it.

    Attributes:
        since: When it was created or, once it began, when it began.
        ended_at: None while it lives.
        own_fault: It failed by its own error, not by being interrupted, killed or given up.
        released: Requests that it claimed and gave back without a single row written.
        registry_version: Delta version of `active_strategies` that it recorded.
    """

    run_id: str
    state: RunState
    since: datetime
    ended_at: datetime | None = None
    own_fault: bool = False
    released: int = 0
    registry_version: int | None = None


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
