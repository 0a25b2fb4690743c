"""Where a drained request gets its values from, and what they make of the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.request import QueuedPosition
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.decisions.availability import (
    confirmed_at,
    unavailable_reason,
    unconfirmed,
)


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
            BrokerUnavailableError: There is none; try later.
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

    When they count, `unavailable_reason` decides.
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
        why = unavailable_reason(session, confirmed_at(rows, now), self._settings, now)
        if why is not None:
            raise BrokerUnavailableError(
                why, remedy="The requests wait; nothing is lost and nothing is failed."
            )
        return BrokerView(
            holdings={row.key: row for row in rows},
            complete=bool(rows) and all(row.completeness is Completeness.COMPLETE for row in rows),
            unconfirmed=unconfirmed(rows, self._settings, now),
        )

    async def close(self) -> None:
        """Do nothing: the tables are shared."""
