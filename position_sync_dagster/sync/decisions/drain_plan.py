"""When to drain: decide whether a drain run is needed, and what it has to do; pure."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.retry import Backoff

SETTLE_S = 10.0
"""How long a login may have no owner before a refresh takes it: a starting stream comes first."""

RETRY = Backoff(first_s=10.0, longest_s=120.0)
"""Delays after drain runs in a row that failed or released requests."""


class Step(StrEnum):
    """A part of a drain run; its value is the name of the table that it brings up to date."""

    STRATEGIES = "active_strategies"
    REFRESH = "position_queue"
    DRAIN = "position_updates"
    LATEST = "latest_positions"
    EXPOSURE = "strategy_exposure"


DRAIN_AND_DERIVE = (Step.DRAIN, Step.LATEST, Step.EXPOSURE)
"""Deriving costs a tenth of starting a run, and nothing derived is older than its source for long.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCursor:
    """What one decision stores for the next one.

    Attributes:
        registry_version: Delta version of `active_strategies` that was last recorded.
        strategies_mark: Fingerprint of the strategies file that was last applied.
        unowned_since: Since when the decisions have seen no owner of the login.
    """

    registry_version: int | None = None
    strategies_mark: str | None = None
    unowned_since: datetime | None = None

    def to_text(self) -> str:
        """Return the cursor as the text that Dagster stores."""
        values = asdict(self)
        if self.unowned_since is not None:
            values["unowned_since"] = self.unowned_since.isoformat()
        return json.dumps(values)

    @classmethod
    def from_text(cls, text: str | None) -> Self:
        """Parse a cursor; no text, or text of another format, is the empty cursor.

        >>> DrainCursor.from_text(DrainCursor(registry_version=3).to_text()).registry_version
        3
        """
        try:
            values = json.loads(text) if text else {}
            since = values.get("unowned_since")
            return cls(
                registry_version=values.get("registry_version"),
                strategies_mark=values.get("strategies_mark"),
                unowned_since=datetime.fromisoformat(since) if since else None,
            )
        except (ValueError, AttributeError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything that the decision depends on, as read at one moment.

    Attributes:
        pending: Requests that wait, including those that may not be claimed yet.
        claimable: Requests that may be claimed now, and claims whose lease has expired.
        unavailable: Why a drain cannot take values from `broker_positions`; None when it can.
        session: The gateway's newest session, alive or not.
        stream_in_progress: A stream run is queued, starting or running.
        drain_in_progress: Id of a drain run that is queued, starting or running.
        unsuccessful_runs: Drain runs in a row that failed or released requests, newest first.
        last_unsuccessful_at: When the newest of them ended.
        released: Requests that the newest of them released; 0 when it failed.
        recorded_version: Version of `active_strategies` that a run last recorded.
    """

    now: datetime
    pending: int
    claimable: int
    oldest_pending_at: datetime | None = None
    unavailable: str | None = None
    session: GatewaySession | None = None
    stream_in_progress: bool = False
    drain_in_progress: str | None = None
    unsuccessful_runs: int = 0
    last_unsuccessful_at: datetime | None = None
    released: int = 0
    registry_version: int | None = None
    recorded_version: int | None = None
    strategies_mark: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """The steps of the next drain run, none when there is nothing to do, and why."""

    steps: tuple[Step, ...]
    reason: str
    cursor: DrainCursor


def plan_drain(workload: Workload, cursor: DrainCursor, *, refresh_interval_s: float) -> DrainPlan:
    """Decide what the next drain run has to do.

    A run is requested only when it can make progress: requests that cannot be valued now wait,
    and at most one refresh per `refresh_interval_s` connects to the gateway.

    >>> from datetime import UTC
    >>> workload = Workload(now=datetime(2026, 1, 2, tzinfo=UTC), pending=0, claimable=0)
    >>> plan_drain(workload, DrainCursor(), refresh_interval_s=180).steps
    ()
    """
    cursor = _track_owner(workload, cursor)
    if workload.drain_in_progress is not None:
        return _skip(f"drain run {workload.drain_in_progress[:8]} is in progress", workload, cursor)
    wait_s = _delay_s(workload)
    if wait_s > 0:
        what = "released requests that they could not value" if workload.released else "failed"
        reason = f"the last {workload.unsuccessful_runs} drain runs {what}; next in {wait_s:.0f} s"
        return _skip(reason, workload, cursor)

    steps: list[Step] = []
    reasons: list[str] = []
    if _registry_changed(workload, cursor):
        steps.append(Step.STRATEGIES)
        reasons.append("the registry changed")
        cursor = replace(
            cursor,
            registry_version=workload.registry_version,
            strategies_mark=workload.strategies_mark,
        )
    refresh, refresh_reason = _refresh_due(workload, cursor, refresh_interval_s)
    if refresh:
        steps += [Step.REFRESH, *DRAIN_AND_DERIVE]
        reasons.append(refresh_reason)
    elif workload.claimable:
        if workload.unavailable is None:
            steps += DRAIN_AND_DERIVE
        reasons.append(workload.unavailable or "requests wait")
    if not steps:
        return _skip("; ".join(reasons) or refresh_reason, workload, cursor)
    return DrainPlan(
        steps=tuple(steps), reason=_with_counts("; ".join(reasons), workload), cursor=cursor
    )


def _owner(workload: Workload) -> GatewaySession | None:
    session = workload.session
    return session if session is not None and session.is_alive(workload.now) else None


def _track_owner(workload: Workload, cursor: DrainCursor) -> DrainCursor:
    if _owner(workload) is not None or workload.stream_in_progress:
        return replace(cursor, unowned_since=None)
    since = cursor.unowned_since
    return replace(cursor, unowned_since=min(since, workload.now) if since else workload.now)


def _delay_s(workload: Workload) -> float:
    if workload.last_unsuccessful_at is None or 0 < workload.released < workload.claimable:
        return 0.0
    if workload.last_unsuccessful_at > workload.now + SKEW:
        return 0.0
    since_s = (workload.now - workload.last_unsuccessful_at).total_seconds()
    return max(0.0, RETRY.delay_s(workload.unsuccessful_runs) - since_s)


def _registry_changed(workload: Workload, cursor: DrainCursor) -> bool:
    if workload.strategies_mark != cursor.strategies_mark:
        return True
    return workload.registry_version not in (cursor.registry_version, workload.recorded_version)


def _refresh_due(
    workload: Workload, cursor: DrainCursor, refresh_interval_s: float
) -> tuple[bool, str]:
    owner = _owner(workload)
    if owner is not None:
        return False, f"the {owner.owner.name.lower()} is {owner.state.value.lower()}"
    if workload.stream_in_progress or cursor.unowned_since is None:
        return False, "a stream run is starting"
    if workload.session is not None:
        due_at = workload.session.started_at + timedelta(seconds=refresh_interval_s)
        if workload.now < due_at and workload.session.started_at <= workload.now + SKEW:
            return False, f"next refresh in {(due_at - workload.now).total_seconds():.0f} s"
    settled_at = cursor.unowned_since + timedelta(seconds=SETTLE_S)
    if workload.now < settled_at:
        return False, "a stream may be about to start"
    return True, "a refresh is due and no stream is alive"


def _with_counts(reason: str, workload: Workload) -> str:
    numbers = f"pending {workload.pending}, claimable {workload.claimable}"
    if workload.oldest_pending_at is not None:
        numbers += f", oldest {(workload.now - workload.oldest_pending_at).total_seconds():.1f} s"
    return f"{reason} ({numbers})"


def _skip(reason: str, workload: Workload, cursor: DrainCursor) -> DrainPlan:
    return DrainPlan(steps=(), reason=_with_counts(reason, workload), cursor=cursor)
