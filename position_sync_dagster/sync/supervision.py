"""Decide whether the stream needs a new run, by its lease and its runs; pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from itertools import takewhile
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from position_sync_dagster.domain.clock import SKEW, Backoff
from position_sync_dagster.domain.gateway_session import ALIVE, GatewaySession, Owner


class SensorCursor:
    """The base of the dataclasses in which a decision keeps its state for the next one."""

    __slots__ = ()

    def to_text(self) -> str:
        """Return the cursor as the text that Dagster stores."""
        return self._format().dump_json(self).decode()

    @classmethod
    def from_text(cls, text: str | None) -> Self:
        """Parse a cursor; return an empty one for None or for text of another format."""
        try:
            found: Self = cls._format().validate_json(text) if text else cls()
        except ValidationError:
            return cls()
        return found

    @classmethod
    @cache
    def _format(cls) -> TypeAdapter[Any]:
        return TypeAdapter(cls)


class RunState(StrEnum):
    """The states of a run, with the names that Dagster gives them.

    A run is NOT_STARTED until it is put into Dagster's queue, which follows its creation at once.
    """

    NOT_STARTED = "NOT_STARTED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    STARTED = "STARTED"
    CANCELING = "CANCELING"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    CANCELED = "CANCELED"


# The beginning of the reason if the stream was terminated; the session keeps it as its detail.
PAUSED = "paused by a person"

# The states of a run that has ended.
ENDED = frozenset({RunState.SUCCESS, RunState.FAILURE, RunState.CANCELED})


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A run of a job, as Dagster stores it.

    Attributes:
        since: When it began; before that, when it was created or launched.
        ended_at: None while it is in progress.
        own_fault: It failed by an error of its own; it was not interrupted, killed or given up.
    """

    run_id: str
    state: RunState
    since: datetime
    ended_at: datetime | None = None
    own_fault: bool = False


def consecutive(outcomes: Iterable[bool]) -> int:
    """Count the failures since the last success. Outcomes are newest first; True is a failure.

    >>> consecutive([True, True, False, True])
    2
    """
    return sum(takewhile(bool, outcomes))


# Maximum time from the start of a run to its lease. It takes 3 to 10 s, and over 30 s where other
# processes use the processors: to give such a run up would add another one to them.
START_GRACE = timedelta(seconds=60)

# Maximum time from the end of a run's lease to its own end.
END_GRACE = timedelta(seconds=30)

# Seconds before a session's end at which its successor starts: the gap is then only the hand-over
# of the lease, without the start of a run.
ROTATION_LEAD_S = 30.0

# The largest difference between the clocks of Dagster's database and of this process.
CLOCK_SLACK_S = 5.0

# Delays between runs in a crash loop.
RESTART = Backoff(first_s=10.0, longest_s=120.0)

# A run that fails within this time after its start counts towards a crash loop.
SHORT_LIFE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """The decision of the supervisor.

    Attributes:
        start: Request a new run.
        tag: Why it starts, in words that are always the same.
        lost: Runs to report as failed: Dagster shows them as running, but their lease has ended; or
            they were created and never submitted.
        paused: The stream was terminated by a user and not resumed since.
    """

    start: bool
    reason: str
    lost: tuple[str, ...] = ()
    tag: str = ""
    paused: bool = False


def supervise(
    runs: Sequence[JobRun],
    session: GatewaySession | None,
    *,
    now: datetime,
    supervised_since: datetime | None,
    rotate_after_s: float,
) -> Supervision:
    """Decide whether the stream needs a new run, by its lease and never by the status of a run.

    Args:
        runs: The recent stream runs, newest first.
        session: The newest session of the gateway, alive or not.
        supervised_since: When the supervisor's sensor was last switched on.
        rotate_after_s: Length of a session; its successor starts a little before the end and
            waits for the lease.
    """
    owner = session if session is not None and session.is_alive(now) else None
    lost = tuple(r.run_id for r in runs if _is_lost(r, session, owner, now))
    in_progress = [r for r in runs if r.state not in ENDED and r.run_id not in lost]
    if owner is not None and [r.run_id for r in in_progress] == [owner.run_id]:
        due_s = (owner.started_at - now).total_seconds() + rotate_after_s
        if due_s <= min(ROTATION_LEAD_S, rotate_after_s / 2):
            reason = f"run {in_progress[0].run_id[:8]} ends in {due_s:.0f} s: its successor starts"
            return Supervision(start=True, lost=lost, reason=reason, tag="rotation")
    if in_progress:
        return Supervision(start=False, lost=lost, reason=_describe(in_progress[0], owner, now))
    ended = {*lost, *(r.run_id for r in runs if r.state in ENDED)}
    if owner is not None and owner.owner is Owner.STREAM and owner.run_id not in ended:
        reason = f"process {owner.pid} on {owner.host} streams outside Dagster"
        return Supervision(start=False, lost=lost, reason=reason)
    if lost:
        reason = "the lease of the last stream expired, or it was never submitted"
        return Supervision(start=True, lost=lost, reason=reason, tag="lease_expired")
    if not runs:
        reason = "no stream has run yet"
        return Supervision(start=True, reason=reason, tag="first_stream")
    return _after(runs, now, supervised_since)


def _after(runs: Sequence[JobRun], now: datetime, supervised_since: datetime | None) -> Supervision:
    newest = runs[0]
    ended_at = newest.ended_at or now
    if newest.state is RunState.CANCELED and (
        supervised_since is None or ended_at > supervised_since
    ):
        return Supervision(
            start=False,
            reason=f"{PAUSED} at {ended_at:%Y-%m-%d %H:%M:%S} UTC: switch this sensor "
            "off and on, or launch the job, to resume",
            paused=True,
        )
    crashes = consecutive(_crashed(r) for r in runs)
    past_s = (now - ended_at).total_seconds()
    wait_s = RESTART.delay_s(crashes - 1) - past_s
    # An end in the future means that the clock was set back: its age is unknown.
    if crashes > 1 and wait_s > 0 and past_s > -CLOCK_SLACK_S:
        reason = f"{crashes} runs failed in a row soon after their start; next in {wait_s:.0f} s"
        return Supervision(start=False, reason=reason)
    reason = f"the last run ended as {newest.state.value.lower()}"
    return Supervision(start=True, reason=reason, tag="last_run_ended")


def _is_lost(
    run: JobRun, session: GatewaySession | None, owner: GatewaySession | None, now: datetime
) -> bool:
    if run.state is RunState.NOT_STARTED:
        return _is_over(run.since, now, START_GRACE)
    if run.state not in (RunState.STARTING, RunState.STARTED) or owner is not None:
        return False
    if session is None or session.run_id != run.run_id:
        return _is_over(run.since, now, START_GRACE)
    if session.state in ALIVE:
        return True
    return _is_over(session.heartbeat_at, now, END_GRACE)


def _is_over(since: datetime, now: datetime, span: timedelta) -> bool:
    """Return whether a span is over; a time ahead by less than SKEW is of another host's clock."""
    return not now - span <= since <= now + SKEW


def _crashed(run: JobRun) -> bool:
    if run.state is not RunState.FAILURE or not run.own_fault or run.ended_at is None:
        return False
    return run.ended_at - run.since < SHORT_LIFE


def _describe(run: JobRun, owner: GatewaySession | None, now: datetime) -> str:
    if owner is None or owner.run_id != run.run_id:
        return f"run {run.run_id[:8]} is {run.state.value.lower().replace('_', ' ')}"
    left_s = (owner.expires_at - now).total_seconds()
    return f"run {run.run_id[:8]} is {owner.state.value.lower()}, its lease holds {left_s:.0f} s"
