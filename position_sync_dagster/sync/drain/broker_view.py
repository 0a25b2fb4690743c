"""The broker's current holdings, from which a drain takes its values."""

from collections.abc import Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime
from typing import Protocol

import polars as pl

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.errors import BrokerUnavailableError
from position_sync_dagster.lake.broker_positions import BrokerPositionsTable, last_time
from position_sync_dagster.lake.schema.codec import broker_positions_of
from position_sync_dagster.lake.sessions import GatewaySessions
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.drain_plan import unavailable_reason, unconfirmed

_WAIT = "Nothing to do: the requests wait, and none is lost or marked FAILED."


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Which accounts the broker's current holdings cover.

    Attributes:
        complete: Whether they cover every account.
        covered: Whether they cover each account that is known by name.
        unavailable: The accounts of logins without current data; their requests wait.
    """

    complete: bool
    covered: Mapping[str, bool] = field(default_factory=dict)
    unavailable: frozenset[str] = frozenset()

    def covers(self, account: str | None) -> bool:
        """Return whether a missing holding is not held, in this account or (None) in any.

        If accounts are known by name, no login has any other account.
        """
        if account is None or not self.covered:
            return self.complete
        return self.covered.get(account, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerView(Coverage):
    """The current holdings of some contracts.

    Attributes:
        holdings: The holdings, by account and conid.
        unconfirmed: Holdings whose values are too old to be written as new rows.
        captured: When each session read the holdings that it published from its account feed.
    """

    holdings: Mapping[Key, BrokerPosition]
    unconfirmed: frozenset[Key] = frozenset()
    captured: Mapping[str, datetime] = field(default_factory=dict)


class ValueSource(Protocol):
    """A source of the current broker view that uses no market data line."""

    async def view(self, conids: Collection[int] | None = None) -> BrokerView:
        """Return the current holdings of these contracts; by default of all.

        Raises:
            BrokerUnavailableError: There is no current view; try again later.
        """
        ...

    async def close(self) -> None:
        """Close what was opened for the view."""
        ...


@dataclass(eq=False, repr=False)
class LakeValues:
    """Values from the table `broker_positions`, which the owners of the logins write.

    This source works across processes. `unavailable_reason` decides for each login whether its rows
    are current.
    """

    broker_positions: BrokerPositionsTable
    sessions: GatewaySessions
    settings: Settings
    _: KW_ONLY
    clock: Clock = utc_now

    async def view(self, conids: Collection[int] | None = None) -> BrokerView:
        """Return the holdings of these contracts in the logins whose rows are current.

        Raises:
            BrokerUnavailableError: No login has current rows; the message says why.
        """
        rows, coverage = await self.rows()
        wanted = rows if conids is None else rows.filter(pl.col("conid").is_in(list(conids)))
        holdings = broker_positions_of(wanted)
        newest = rows.select("gateway_id", "published_version", "session_id", "captured_at")
        newest = newest.sort("published_version").unique("gateway_id", keep="last")
        return BrokerView(
            holdings={holding.key: holding for holding in holdings},
            complete=coverage.complete,
            covered=coverage.covered,
            unavailable=coverage.unavailable,
            unconfirmed=unconfirmed(holdings, self.settings, self.clock()),
            captured=dict(newest.select("session_id", "captured_at").drop_nulls().iter_rows()),
        )

    async def rows(self) -> tuple[pl.DataFrame, Coverage]:
        """Return the stored rows of the logins whose rows are current.

        Raises:
            BrokerUnavailableError: No login has current rows; the message says why.
        """
        found: list[pl.DataFrame] = []
        covered: dict[str, bool] = {}
        complete: list[bool] = []
        unavailable: set[str] = set()
        reasons: list[str] = []
        for login in self.settings.logins:
            accounts = login.accounts or ()
            try:
                rows = await self._rows_of(login)
            except BrokerUnavailableError as error:
                reasons.append(error.what)
                unavailable.update(accounts)
                covered |= dict.fromkeys(accounts, False)
                continue
            found.append(rows)
            is_whole = rows.get_column("completeness") == Completeness.COMPLETE.value
            complete.append(rows.height > 0 and is_whole.all())
            covered |= dict.fromkeys(accounts, complete[-1])
        if not found:
            raise BrokerUnavailableError(" ".join(reasons), remedy=_WAIT)
        return pl.concat(found), Coverage(
            complete=not reasons and all(complete),
            covered=covered,
            unavailable=frozenset(unavailable),
        )

    async def _rows_of(self, login: Settings) -> pl.DataFrame:
        gateway_id, now = login.gateway_id, self.clock()
        session = await offload(self.sessions.current, gateway_id)
        rows = await offload(self.broker_positions.rows, gateway_id)
        if login.accounts is not None:
            # Rows of accounts that moved to another login stay here until this login connects
            # again.
            rows = rows.filter(pl.col("account").is_in(login.accounts))
        last = last_time(rows.get_column("confirmed_at"), now)
        why = unavailable_reason(session, last, login, now)
        if why is not None:
            raise BrokerUnavailableError(why, remedy=_WAIT)
        return rows

    async def close(self) -> None:
        """Do nothing: the tables are shared with others."""
