"""Decisions about the drain: when it tries again, and whose values count; pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.clock import SKEW, Backoff, elapsed
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.settings import Settings

TIME_LIMIT_S = Settings.drain_time_limit_s

RETRY = Backoff(first_s=10.0, longest_s=120.0)
"""Delays after drains in a row that released requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """The drains in a row, up to the newest, that released requests without a value.

    Attributes:
        drains: Their number.
        requests: The requests that the newest of them released.
        at: When it ended.
    """

    drains: int = 0
    requests: int = 0
    at: datetime | None = None

    def after(self, released: int, now: datetime) -> "Releases":
        """Return what a drain that ended now makes of them."""
        return Releases(drains=self.drains + 1, requests=released, at=now) if released else NONE

    def wait_s(self, claimable: int, now: datetime) -> float:
        """Return for how many seconds the requests are left alone; 0 if others wait too."""
        if self.at is None or self.requests < claimable:
            return 0.0
        return max(0.0, RETRY.delay_s(self.drains) - elapsed(self.at, now).total_seconds())


NONE = Releases()


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
    span = timedelta(seconds=2 * interval_s + TIME_LIMIT_S)
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
    span = timedelta(seconds=settings.refresh_interval_s + TIME_LIMIT_S)
    if not _is_recent(confirmed, span, now):
        return (
            f"The positions of the gateway {gateway_id} were last downloaded at "
            f"{confirmed:%Y-%m-%d %H:%M:%S} UTC, and no stream is alive."
        )
    return None


def _is_recent(at: datetime | None, span: timedelta, now: datetime) -> bool:
    return at is not None and now - span <= at <= now + SKEW
