"""The broker's data that a drain takes its values from."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self, TypeVar

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.clock import SKEW, Clock, utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable, Published, last_time
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.availability import (
    ConfirmationSpan,
    confirmed_at,
    unavailable_reason,
    unconfirmed,
)

T = TypeVar("T")

_WAIT = "The requests wait; nothing is lost and nothing is failed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which accounts the broker's current holdings cover.

    Attributes:
        complete: They cover every account.
        covered: Whether they cover an account, for each account that is known by name.
        unavailable: The accounts of logins without current data; their requests wait.
    """

    complete: bool
    covered: Mapping[str, bool] = field(default_factory=dict)
    unavailable: frozenset[str] = frozenset()

    def covers(self, account: str | None) -> bool:
        """Return whether a holding that is absent is not held: in an account, or in any.

        While accounts are known by name, no login has any other one.
        """
        if account is None or not self.covered:
            return self.complete
        return self.covered.get(account, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView(Coverage):
    """The current holdings of the logins, by account and conid.

    Attributes:
        unconfirmed: Holdings whose values are too old to be written as new rows.
        captured: When each session took the holdings that it published from its account feed.
    """

    holdings: Mapping[Key, BrokerPosition]
    unconfirmed: frozenset[Key] = frozenset()
    captured: Mapping[str, datetime] = field(default_factory=dict)


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
    rows: Sequence[BrokerPosition]
    holdings: Mapping[Key, BrokerPosition]
    complete: bool
    span: ConfirmationSpan

    @classmethod
    def of(cls, published: Published, accounts: tuple[str, ...] | None) -> Self:
        rows = published.rows
        if accounts is not None:
            # What another login serves by now stays in the table until this one connects again.
            rows = [row for row in rows if row.account in accounts]
        complete = all(row.completeness is Completeness.COMPLETE for row in rows)
        return cls(
            published,
            rows,
            {row.key: row for row in rows},
            bool(rows) and complete,
            ConfirmationSpan.of(rows),
        )


class LakeValues:
    """Values from the table `broker_positions`, which the owners of the logins write.

    This source works across processes. `unavailable_reason` decides for each login whether its rows
    are current. They are looked at once for each version of the table.
    """

    def __init__(
        self,
        broker_positions: BrokerPositionsTable,
        sessions: GatewaySessions,
        settings: Settings,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._logins = tuple(
            _LoginValues(broker_positions, sessions, login, clock) for login in settings.logins
        )

    async def view(self) -> BrokerView:
        """Return the rows of the logins whose rows are current.

        Raises:
            BrokerUnavailableError: None of them are; the message says why.
        """
        views, unavailable = await self._current(_LoginValues.view)
        if len(self._logins) == 1:
            return views[0]
        together = _together(views, unavailable)
        return BrokerView(
            holdings={key: row for view in views for key, row in view.holdings.items()},
            complete=together.complete,
            unconfirmed=frozenset().union(*(view.unconfirmed for view in views)),
            captured={name: at for view in views for name, at in view.captured.items()},
            covered=together.covered,
            unavailable=together.unavailable,
        )

    async def rows(self) -> tuple[pl.DataFrame, Coverage]:
        """Return the rows of the table as they are stored, of the logins whose rows are current.

        Raises:
            BrokerUnavailableError: None of them are; the message says why.
        """
        found, unavailable = await self._current(_LoginValues.rows)
        rows = pl.concat(rows for rows, _ in found)
        coverages = [coverage for _, coverage in found]
        return rows, coverages[0] if len(self._logins) == 1 else _together(coverages, unavailable)

    async def _current(
        self, read: Callable[["_LoginValues"], Awaitable[T]]
    ) -> tuple[list[T], list["_LoginValues"]]:
        """Read the logins that have current data; return them, and the logins that have none."""
        found: list[T] = []
        unavailable: list[_LoginValues] = []
        reasons: list[str] = []
        for login in self._logins:
            try:
                found.append(await read(login))
            except BrokerUnavailableError as error:
                reasons.append(error.what)
                unavailable.append(login)
        if not found:
            raise BrokerUnavailableError(" ".join(reasons), remedy=_WAIT)
        return found, unavailable

    async def close(self) -> None:
        """Do nothing: the tables are shared with others."""


def _together(found: Sequence[Coverage], unavailable: Sequence["_LoginValues"]) -> Coverage:
    """Return what several logins cover."""
    missing = [account for login in unavailable for account in login.accounts]
    covered = {name: covers for one in found for name, covers in one.covered.items()}
    return Coverage(
        complete=not unavailable and all(one.complete for one in found),
        covered=dict.fromkeys(missing, False) | covered,
        unavailable=frozenset(missing),
    )


class _LoginValues:
    """The rows of one login."""

    def __init__(
        self,
        broker_positions: BrokerPositionsTable,
        sessions: GatewaySessions,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._positions = broker_positions
        self._sessions = sessions
        self._settings = settings
        self._clock = clock
        self._known: _Known | None = None

    @property
    def accounts(self) -> tuple[str, ...]:
        return self._settings.accounts or ()

    async def view(self) -> BrokerView:
        gateway_id, now = self._settings.gateway_id, self._clock()
        session = await self._sessions.current(gateway_id)
        known = self._known
        published = await self._positions.published(gateway_id)
        if known is None or known.published is not published:
            known = self._known = _Known.of(published, self._settings.accounts)
        last = known.span.last
        if last is not None and last > now + SKEW:
            last = confirmed_at(known.rows, now)
        self._require_current(session, last, now)
        captured_by, captured_at = published.session_id, published.captured_at
        return BrokerView(
            holdings=known.holdings,
            complete=known.complete,
            unconfirmed=unconfirmed(known.rows, self._settings, now, known.span),
            captured={captured_by: captured_at} if captured_by and captured_at else {},
            covered=dict.fromkeys(self.accounts, known.complete),
        )

    async def rows(self) -> tuple[pl.DataFrame, Coverage]:
        gateway_id, now = self._settings.gateway_id, self._clock()
        session = await self._sessions.current(gateway_id)
        rows = await self._positions.rows(gateway_id)
        if self._settings.accounts is not None:
            rows = rows.filter(pl.col("account").is_in(self._settings.accounts))
        self._require_current(session, last_time(rows.get_column("confirmed_at"), now), now)
        completeness = rows.get_column("completeness")
        complete = rows.height > 0 and (completeness == Completeness.COMPLETE.value).all()
        covered = dict.fromkeys(self.accounts, complete)
        return rows, Coverage(complete=complete, covered=covered)

    def _require_current(
        self, session: GatewaySession | None, last: datetime | None, now: datetime
    ) -> None:
        why = unavailable_reason(session, last, self._settings, now)
        if why is not None:
            raise BrokerUnavailableError(why, remedy=_WAIT)
