"""Decide whether what the broker last said still counts; pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from position_sync_dagster.domain.broker_position import BrokerPosition
from position_sync_dagster.domain.clock import SKEW
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.settings import Settings


def unconfirmed(
    rows: Iterable[BrokerPosition], settings: Settings, now: datetime
) -> frozenset[Key]:
    """Name the holdings of which the broker has said nothing for two refresh intervals.

    What it says counts either way: a walk of the account that ended, which confirms all of its
    holdings, or a value that came for this one (a PnLSingle subscription needs no walk).
    """
    span = timedelta(seconds=2 * settings.refresh_interval_s + settings.drain_time_limit_s)
    return frozenset(
        row.key
        for row in rows
        if not (
            _is_recent(row.confirmed_at, span, now)
            or (row.value_source is not ValueOrigin.NONE and _is_recent(row.received_at, span, now))
        )
    )


def confirmed_at(rows: Iterable[BrokerPosition], now: datetime | None = None) -> datetime | None:
    """Tell when the broker last confirmed an account of these rows; None when it never has.

    Args:
        now: Times that lie ahead of it, from before the clock was set back, are left out as long
            as there are others.
    """
    times = [row.confirmed_at for row in rows if row.confirmed_at is not None]
    told = [at for at in times if now is None or at <= now + SKEW]
    return max(told or times, default=None)


def unavailable_reason(
    session: GatewaySession | None, confirmed: datetime | None, settings: Settings, now: datetime
) -> str | None:
    """Tell why the owner's last words do not count now; None when they do.

    They count while the owner is LIVE, and without an owner for as long as a refresh may be
    apart, from the newest `confirmed_at` in `broker_positions` on. One that lies ahead tells that
    the clock was set back, and not how old the words are.
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
        return f"Nobody has asked the gateway {gateway_id} for its positions yet."
    span = timedelta(seconds=settings.refresh_interval_s + settings.drain_time_limit_s)
    if not _is_recent(confirmed, span, now):
        return (
            f"The gateway {gateway_id} was last asked at {confirmed:%Y-%m-%d %H:%M:%S} UTC, "
            "and no stream lives."
        )
    return None


def _is_recent(at: datetime | None, span: timedelta, now: datetime) -> bool:
    return at is not None and now - span <= at <= now + SKEW
