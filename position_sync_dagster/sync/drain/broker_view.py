"""Where a drained request gets its values from, and what they make of the request."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.clock import SKEW, Clock, utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, SessionState
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.errors import GatewayError
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.settings import Settings


class SourceBlindError(GatewayError):
    """Nothing current is known of the broker; requests are released, not failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView:
    """All that is currently known of the broker.

    Attributes:
        complete: It covers every account.
        unconfirmed: Holdings of which the values are too old to be told as news.
    """

    holdings: Mapping[Key, BrokerPosition]
    complete: bool
    unconfirmed: frozenset[Key] = frozenset()


class ValueSource(Protocol):
    """Gives a current view of the broker without using a market data line."""

    async def view(self) -> BrokerView:
        """Give it.

        Raises:
            SourceBlindError: There is none; try later.
        """
        ...

    async def close(self) -> None:
        """Give up what was opened for it."""
        ...


class Verdict(StrEnum):
    """What a view makes of a request."""

    VALUED = "VALUED"
    NOT_HELD = "NOT_HELD"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The holdings that answer a request, one per account where it names none."""

    verdict: Verdict
    holdings: tuple[BrokerPosition, ...] = ()


def answer(request: QueuedPosition, view: BrokerView) -> Answer:
    """Find what a request asks for.

    An absent holding is NOT_HELD in a complete view alone; otherwise it is UNKNOWN, since a
    request that failed proves nothing.
    """
    if request.account is not None:
        holding = view.holdings.get((request.account, request.conid))
        found = [holding] if holding is not None else []
    else:
        found = [h for (_, conid), h in view.holdings.items() if conid == request.conid]
    if any(holding.key in view.unconfirmed and holding.position for holding in found):
        return Answer(verdict=Verdict.UNKNOWN)
    if found:
        return Answer(verdict=Verdict.VALUED, holdings=tuple(found))
    return Answer(verdict=Verdict.NOT_HELD if view.complete else Verdict.UNKNOWN)


class LakeValues:
    """Values from `broker_positions`, which the owner of the login keeps: across processes.

    When they count, `why_blind` decides.
    """

    def __init__(
        self,
        broker_positions: BrokerPositionsTable,
        sessions: GatewaySessions,
        settings: Settings,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._positions = broker_positions
        self._sessions = sessions
        self._settings = settings
        self._clock = clock

    async def view(self) -> BrokerView:
        """Give the owner's last words, if they are current."""
        gateway_id, now = self._settings.gateway_id, self._clock()
        session = await self._sessions.current(gateway_id)
        rows = await self._positions.read(gateway_id)
        why = why_blind(session, confirmed_at(rows, now), self._settings, now)
        if why is not None:
            raise SourceBlindError(
                why, remedy="The requests wait; nothing is lost and nothing is failed."
            )
        return BrokerView(
            holdings={row.key: row for row in rows},
            complete=bool(rows) and all(row.completeness is Completeness.COMPLETE for row in rows),
            unconfirmed=unconfirmed(rows, self._settings, now),
        )

    async def close(self) -> None:
        """Do nothing: the tables are shared."""


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


def why_blind(
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
