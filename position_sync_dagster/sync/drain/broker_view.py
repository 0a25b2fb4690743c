"""The broker's data that a drain takes its values from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.clock import SKEW, Clock, utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable, Published
from position_sync_dagster.lake.published_rows import last_time
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.decisions.availability import (
    ConfirmationSpan,
    confirmed_at,
    unavailable_reason,
    unconfirmed,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView:
    """The current holdings of the login, by account and conid.

    Attributes:
        complete: The view covers every account.
        unconfirmed: Holdings whose values are too old to be written as new rows.
        session_id: The session that published them; None where they were not published.
        captured_at: When that session took them from its account feed.
    """

    holdings: Mapping[Key, BrokerPosition]
    complete: bool
    unconfirmed: frozenset[Key] = frozenset()
    session_id: str | None = None
    captured_at: datetime | None = None


class ValueSource(Protocol):
    """A source of the current broker view that uses no market data line."""

    async def view(self) -> BrokerView:
        """Return the current view.

        Raises:
            BrokerUnavailableError: There is no current view; try again later.
        """
        ...

    async def close(self) -> None:
        """Close what was opened for the view."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """What was worked out of one version of the table, for as long as it is the newest."""

    published: Published
    holdings: Mapping[Key, BrokerPosition]
    complete: bool
    span: ConfirmationSpan

    @classmethod
    def of(cls, published: Published) -> Self:
        rows = published.rows
        complete = all(row.completeness is Completeness.COMPLETE for row in rows)
        return cls(
            published,
            {row.key: row for row in rows},
            bool(rows) and complete,
            ConfirmationSpan.of(rows),
        )


class LakeValues:
    """Values from the table `broker_positions`, which the owner of the login writes.

    This source works across processes. `unavailable_reason` decides whether the table is current.
    The rows are looked at once for each version of the table.
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
        self._known: _Known | None = None

    async def view(self) -> BrokerView:
        """Return the rows of the table, if they are current.

        Raises:
            BrokerUnavailableError: They are not; the message says why.
        """
        gateway_id, now = self._settings.gateway_id, self._clock()
        session = await self._sessions.current(gateway_id)
        known = self._known
        published = await self._positions.published(gateway_id)
        if known is None or known.published is not published:
            known = self._known = _Known.of(published)
        last = known.span.last
        if last is not None and last > now + SKEW:
            last = confirmed_at(published.rows, now)
        self._require_current(session, last, now)
        return BrokerView(
            holdings=known.holdings,
            complete=known.complete,
            unconfirmed=unconfirmed(published.rows, self._settings, now, known.span),
            session_id=published.session_id,
            captured_at=published.captured_at,
        )

    async def rows(self) -> pl.DataFrame:
        """Return the rows of the table as they are stored, if they are current.

        Raises:
            BrokerUnavailableError: They are not; the message says why.
        """
        gateway_id, now = self._settings.gateway_id, self._clock()
        session = await self._sessions.current(gateway_id)
        rows = await self._positions.rows(gateway_id)
        self._require_current(session, last_time(rows.get_column("confirmed_at"), now), now)
        return rows

    def _require_current(
        self, session: GatewaySession | None, last: datetime | None, now: datetime
    ) -> None:
        why = unavailable_reason(session, last, self._settings, now)
        if why is not None:
            raise BrokerUnavailableError(
                why, remedy="The requests wait; nothing is lost and nothing is failed."
            )

    async def close(self) -> None:
        """Do nothing: the tables are shared with others."""
