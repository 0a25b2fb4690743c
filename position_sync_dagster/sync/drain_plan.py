"""Decide when to drain and when to derive, what the run has to do, and whose values count; pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.clock import SKEW, Backoff, elapsed
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.supervision import JobRun, SensorCursor

SETTLE_S = 10.0
"""Seconds that a login has no owner before a refresh may take it: a stream that starts goes
first."""

RETRY = Backoff(first_s=10.0, longest_s=120.0)
"""Delays after drain runs in a row that failed or released requests."""


class Step(StrEnum):
    """A part of a drain run; its value is the name of the table that it brings up to date."""

    STRATEGIES = "active_strategies"
    REFRESH = "position_queue"
    DRAIN = "position_updates"
    LATEST = "latest_positions"
    EXPOSURE = "strategy_exposure"


REQUESTS_WAIT = "requests_wait"
REGISTRY_CHANGED = "registry_changed"
REFRESH_IS_DUE = "refresh_is_due"
"""The words in the tag of a drain run; REGISTRY_CHANGED if that is one of several reasons."""

DRAIN_AND_DERIVE = (Step.DRAIN, Step.LATEST, Step.EXPOSURE)
"""The steps of a drain run. It derives as well: that takes a tenth of the time to start a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCursor(SensorCursor):
    """The state that one decision keeps for the next one.

    Attributes:
        registry_version: Delta version of `active_strategies` that was last recorded.
        strategies_mark: Fingerprint of the strategies file that was last applied.
        unowned_since: Since when a login has had no owner, as seen by the decisions; by its name.
    """

    registry_version: int | None = None
    strategies_mark: str | None = None
    unowned_since: dict[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginState:
    """The state of a login when a decision is made.

    Attributes:
        name: Its `gateway_id`.
        session: Its newest session, alive or not.
        stream_in_progress: A stream run of it is queued, starting or running.
        unavailable: Why a drain cannot take its values from `broker_positions`; None when it can.
    """

    name: str = ""
    session: GatewaySession | None = None
    stream_in_progress: bool = False
    unavailable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Everything that the decision depends on, as read at one moment.

    Attributes:
        pending: Requests that wait, including those that may not be claimed yet; None if the queue
            was not looked at.
        claimable: Requests that may be claimed now, and claims whose lease has expired. With
            several logins, only those of accounts whose login can give values.
        logins: With one login, a refresh is a step of the drain run. With several, each refresh is
            a run of its own, so that a gateway that does not answer does not delay the others.
        drain_in_progress: Id of a drain run that is queued, starting or running.
        refresh_in_progress: A refresh-only run is queued, starting or running.
        unsuccessful_runs: The number of drain runs in a row, up to the newest, that failed or
            released requests.
        last_unsuccessful_at: When the newest of them ended.
        released: Requests that the newest of them released; 0 when it failed.
        registry_version: Delta version of `active_strategies`; None if it was not looked at.
        recorded_version: The version that a run last recorded.
        unapplied: The last run that was to apply the strategies file ended before it did.
    """

    now: datetime
    pending: int | None
    claimable: int
    oldest_pending_at: datetime | None = None
    logins: tuple[LoginState, ...] = (LoginState(),)
    drain_in_progress: str | None = None
    refresh_in_progress: bool = False
    unsuccessful_runs: int = 0
    last_unsuccessful_at: datetime | None = None
    released: int = 0
    registry_version: int | None = None
    recorded_version: int | None = None
    strategies_mark: str | None = None
    unapplied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """The next drain run and refreshes, with the reason.

    Attributes:
        steps: The steps of the next drain run; none when there is nothing to do.
        reason: Why, with numbers, for the log.
        tag: Why, in words that are always the same, for the tag of the run.
        refreshes: The logins to refresh in a run of its own.
    """

    steps: tuple[Step, ...]
    reason: str
    cursor: DrainCursor
    tag: str = ""
    refreshes: tuple[str, ...] = ()


def plan_drain(workload: Workload, cursor: DrainCursor, *, refresh_interval_s: float) -> DrainPlan:
    """Decide what the next drain run has to do.

    A run is requested only when it can make progress: requests that cannot be valued now wait,
    and at most one refresh per `refresh_interval_s` connects to the gateway.

    >>> from datetime import UTC
    >>> workload = Workload(now=datetime(2026, 1, 2, tzinfo=UTC), pending=0, claimable=0)
    >>> plan_drain(workload, DrainCursor(), refresh_interval_s=180).steps
    ()
    """
    if workload.registry_version is None:  # it was not looked at
        workload = replace(workload, registry_version=cursor.registry_version)
    cursor = _tracked(workload, cursor)
    waits = {
        login.name: _why_no_refresh(workload.now, login, cursor, refresh_interval_s)
        for login in workload.logins
    }
    if len(waits) == 1:
        (why,) = waits.values()
        return _plan_run(workload, cursor, refresh=why is None, idle=why or REFRESH_REASON)
    idle = "; ".join(f"{name}: {why}" for name, why in waits.items() if why is not None)
    plan = _plan_run(workload, cursor, refresh=False, idle=idle or "no login")
    due = tuple(name for name, why in waits.items() if why is None)
    return plan if workload.refresh_in_progress else replace(plan, refreshes=due)


def _plan_run(workload: Workload, cursor: DrainCursor, *, refresh: bool, idle: str) -> DrainPlan:
    """Decide about the drain run.

    Args:
        workload: The workload.
        cursor: The cursor of this decision.
        refresh: Whether a refresh is due, as a step of this run.
        idle: The reason for the refresh, or for a run without any work.
    """
    if workload.drain_in_progress is not None:
        return _skip(f"drain run {workload.drain_in_progress[:8]} is in progress", workload, cursor)
    wait_s = _delay_s(workload)
    if wait_s > 0:
        what = "released requests that they could not value" if workload.released else "failed"
        reason = f"the last {workload.unsuccessful_runs} drain runs {what}; next in {wait_s:.0f} s"
        return _skip(reason, workload, cursor)

    steps: list[Step] = []
    reasons: list[str] = []
    tag = REFRESH_IS_DUE if refresh else REQUESTS_WAIT
    applied = (cursor.registry_version, cursor.strategies_mark)
    if (workload.registry_version, workload.strategies_mark) != applied:
        tag = REGISTRY_CHANGED
        steps.append(Step.STRATEGIES)
        reasons.append("the registry changed")
        cursor = replace(
            cursor,
            registry_version=workload.registry_version,
            strategies_mark=workload.strategies_mark,
        )
    unavailable = [login.unavailable for login in workload.logins]
    if refresh:
        steps += [Step.REFRESH, *DRAIN_AND_DERIVE]
        reasons.append(idle)
    elif workload.claimable and None in unavailable:
        steps += DRAIN_AND_DERIVE
        reasons.append("requests wait")
    elif workload.claimable:
        reasons.append(" ".join(filter(None, unavailable)))
    if not steps and workload.unapplied:  # alone: another failure then keeps no value back
        tag = REGISTRY_CHANGED
        steps.append(Step.STRATEGIES)
        reasons.append("the last run did not bring the registry up to date")
    if not steps:
        return _skip("; ".join(reasons) or idle, workload, cursor)
    return DrainPlan(
        steps=tuple(steps),
        reason=_with_counts("; ".join(reasons), workload),
        cursor=cursor,
        tag=tag,
    )


def _owner(login: LoginState, now: datetime) -> GatewaySession | None:
    session = login.session
    return session if session is not None and session.is_alive(now) else None


def _tracked(workload: Workload, cursor: DrainCursor) -> DrainCursor:
    """Return the cursor with what this decision saw.

    It keeps the version that a run recorded: later decisions read newer runs only.
    """
    now, before, version = workload.now, cursor.unowned_since, workload.registry_version
    since = {
        login.name: min(before.get(login.name, now), now)
        for login in workload.logins
        if _owner(login, now) is None and not login.stream_in_progress
    }
    if version is None or version != workload.recorded_version:
        version = cursor.registry_version
    return replace(cursor, unowned_since=since, registry_version=version)


def _delay_s(workload: Workload) -> float:
    if workload.last_unsuccessful_at is None or 0 < workload.released < workload.claimable:
        return 0.0
    if workload.last_unsuccessful_at > workload.now + SKEW:
        return 0.0
    since_s = (workload.now - workload.last_unsuccessful_at).total_seconds()
    return max(0.0, RETRY.delay_s(workload.unsuccessful_runs) - since_s)


REFRESH_REASON = "a refresh is due and no stream is alive"


def _why_no_refresh(
    now: datetime, login: LoginState, cursor: DrainCursor, refresh_interval_s: float
) -> str | None:
    """Return why no refresh of a login is due; None if one is."""
    owner, unowned_since = _owner(login, now), cursor.unowned_since.get(login.name)
    if owner is not None:
        return f"the {owner.owner.name.lower()} is {owner.state.value.lower()}"
    if login.stream_in_progress or unowned_since is None:
        return "a stream run is starting"
    if login.session is not None:
        due_at = login.session.started_at + timedelta(seconds=refresh_interval_s)
        if now < due_at and login.session.started_at <= now + SKEW:
            return f"next refresh in {(due_at - now).total_seconds():.0f} s"
    if now < unowned_since + timedelta(seconds=SETTLE_S):
        return "a stream may be about to start"
    return None


def _with_counts(reason: str, workload: Workload) -> str:
    if workload.pending is None:
        return reason
    numbers = f"pending {workload.pending}, claimable {workload.claimable}"
    if workload.oldest_pending_at is not None:
        numbers += f", oldest {(workload.now - workload.oldest_pending_at).total_seconds():.1f} s"
    return f"{reason} ({numbers})"


def _skip(reason: str, workload: Workload, cursor: DrainCursor) -> DrainPlan:
    return DrainPlan(steps=(), reason=_with_counts(reason, workload), cursor=cursor)


LEDGER = "position_updates"

SOURCES = {
    "latest_positions": (LEDGER, "active_strategies"),
    "strategy_exposure": (LEDGER, "active_strategies"),
    "closures": ("statement_events",),
}
"""The derived tables without partitions, each with the tables whose materialization makes it out of
date. A drain does not evaluate the check of `closures`, only the run of the derivation does: if two
runs evaluate a check at once, the UI may show the older result."""

LONGEST_AGE = timedelta(minutes=15)
"""Maximum age of a derived table: rows of the stream come without a materialization."""

SHORTEST_GAP = timedelta(seconds=15)
"""Minimum time between two runs: an unstable connection must not start a run each time."""

LEFT_BEHIND = timedelta(seconds=120)
"""A run older than this no longer counts as in progress: its process crashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """Whether to derive now, and why."""

    start: bool
    reason: str
    tag: str = ""


def plan_derivation(
    materialized_at: Mapping[str, datetime],
    *,
    now: datetime,
    in_progress: JobRun | None,
    last_run: JobRun | None,
) -> Derivation:
    """Decide whether the derived tables need a run.

    Args:
        materialized_at: When each source and target was last materialized.
        in_progress: A run of a drain, which derives as well, or of the derivation itself.
        last_run: The newest run of the derivation.

    >>> from datetime import UTC
    >>> noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    >>> plan_derivation({LEDGER: noon}, now=noon, in_progress=None, last_run=None).start
    True
    """
    if LEDGER not in materialized_at:
        return Derivation(start=False, reason="the ledger was never materialized")
    if in_progress is not None and elapsed(in_progress.since, now) < LEFT_BEHIND:
        return Derivation(start=False, reason=f"run {in_progress.run_id[:8]} is in progress")
    found = _why(materialized_at, now)
    if found is None:
        return Derivation(start=False, reason="the derived tables are up to date")
    tag, why = found
    if last_run is not None and elapsed(last_run.since, now) < SHORTEST_GAP:
        return Derivation(start=False, reason=f"{why}; the last run was less than 15 s ago")
    return Derivation(start=True, reason=why, tag=tag)


def _why(materialized_at: Mapping[str, datetime], now: datetime) -> tuple[str, str] | None:
    """Return the tag of the run and the reason."""
    for target, sources in SOURCES.items():
        derived_at = materialized_at.get(target)
        if derived_at is None:
            return "never_derived", f"{target} was never derived"
        if derived_at > now + SKEW:  # the clock was set back: the age is unknown
            return "tables_are_old", f"{target} was derived in the future"
        for source in sources:
            if source in materialized_at and derived_at < materialized_at[source] <= now + SKEW:
                return "source_is_newer", f"{source} is newer than {target}"
        if now - derived_at >= LONGEST_AGE:
            return "tables_are_old", f"{target} is a quarter of an hour old"
    return None


def unconfirmed(
    rows: Iterable[BrokerPosition], settings: Settings, now: datetime
) -> frozenset[Key]:
    """Return the holdings that the broker has not confirmed for two intervals and a drain.

    The interval is the longer one of `refresh_interval_s` and `account_interval_s`, in which the
    broker sends values by itself. A holding is confirmed by messages of its account after the
    download ended, and by a value of its own (a PnLSingle subscription needs no download). No
    holding of an account that is UNKNOWN is confirmed.
    """
    interval_s = max(settings.refresh_interval_s, settings.account_interval_s)
    span = timedelta(seconds=2 * interval_s + settings.drain_time_limit_s)
    return frozenset(
        row.key
        for row in rows
        if row.completeness is Completeness.UNKNOWN
        or not (
            _is_recent(row.confirmed_at, span, now)
            or (row.value_source is not ValueOrigin.NONE and _is_recent(row.received_at, span, now))
        )
    )


def unavailable_reason(
    session: GatewaySession | None, confirmed: datetime | None, settings: Settings, now: datetime
) -> str | None:
    """Return why the rows of `broker_positions` are not current; None when they are.

    They are current while the owner is LIVE. Without an owner they are current for one refresh
    interval and the time limit of a drain, counted from the newest `confirmed_at`. A
    `confirmed_at` in the future means that the clock was set back: the age is unknown.

    Args:
        confirmed: The newest `confirmed_at` of the rows.
    """
    gateway_id = settings.gateway_id
    if session is not None and session.is_alive(now):
        if session.state is SessionState.LIVE:
            return None
        because = f": {session.detail}" if session.detail else "."
        return (
            f"The owner of {gateway_id} is {session.state} since "
            f"{session.state_since:%H:%M:%S} UTC{because}"
        )
    if confirmed is None:
        return f"The positions of the gateway {gateway_id} have not been downloaded yet."
    span = timedelta(seconds=settings.refresh_interval_s + settings.drain_time_limit_s)
    if not _is_recent(confirmed, span, now):
        return (
            f"The positions of the gateway {gateway_id} were last downloaded at "
            f"{confirmed:%Y-%m-%d %H:%M:%S} UTC, and no stream is alive."
        )
    return None


def _is_recent(at: datetime | None, span: timedelta, now: datetime) -> bool:
    return at is not None and now - span <= at <= now + SKEW
