"""The current holdings of the broker, which requests are valued from: whose values count.

They come from the table `broker_positions`, or without Dagster from the shared connection of the
process.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Protocol

from polars import DataFrame, col, concat

from position_sync_dagster.domain import account_state
from position_sync_dagster.domain.clock import Clock, is_recent, utc_now
from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.holding import BrokerPosition, Completeness, Holdings, Key
from position_sync_dagster.domain.position_update import (
    ValueOrigin,
)
from position_sync_dagster.errors import (
    BrokerUnavailableError,
    GatewayError,
)
from position_sync_dagster.gateway.connection import IBConnectionManager
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.lake import Lake, broker_rows
from position_sync_dagster.lake.storage.threads import offload
from position_sync_dagster.settings import Settings

# The drain of a tick begins no further batch after this time: Dagster ends a tick after 60 s, and a
# lease of requests lasts `LEASE_S`.
DRAIN_TIME_LIMIT_S = 20.0


def unconfirmed(
    rows: Iterable[BrokerPosition], settings: Settings, now: datetime
) -> frozenset[Key]:
    """Return the holdings that the broker has not confirmed for two intervals and a drain's time.

    A drain writes no row of them, and releases their requests. The interval is the longer one of
    `refresh_interval_s` and `ACCOUNT_INTERVAL_S`, in which the broker sends values by itself; one
    may pass without a message. A holding is confirmed by messages of its account after the download
    ended, and by a value of its own (a PnLSingle subscription needs no download). In an account
    that is UNKNOWN, whose last download cannot be trusted, no holding is confirmed.
    """
    interval_s = max(settings.refresh_interval_s, account_state.ACCOUNT_INTERVAL_S)
    span = timedelta(seconds=2 * interval_s + DRAIN_TIME_LIMIT_S)

    def is_confirmed(row: BrokerPosition) -> bool:
        """Return whether a value of its own or a message of its account is recent enough.

        In an account that is UNKNOWN neither counts.
        """
        has_value = row.value_source is not ValueOrigin.NONE
        is_valued = has_value and is_recent(row.received_at, span, now)
        return row.completeness is not Completeness.UNKNOWN and (
            is_valued or is_recent(row.confirmed_at, span, now)
        )

    return frozenset(row.key for row in rows if not is_confirmed(row))


def unavailable_reason(
    session: GatewaySession | None, confirmed: datetime | None, settings: Settings, now: datetime
) -> str | None:
    """Return why the rows of `broker_positions` are not current; None when they are.

    They are current while the owner is LIVE. Without an owner they are current for one refresh
    interval and the time limit of a drain, counted from the newest `confirmed_at`.

    Args:
        session: The newest session of the login; None if it never had an owner.
        confirmed: The newest `confirmed_at` of the rows; None if nothing has confirmed them.
        settings: Those of the login.
        now: The current time.
    """
    gateway_id = settings.gateway_id
    # A stream of a library may publish nothing: its state says nothing of the rows.
    if session is not None and session.owner is not Owner.LIBRARY and session.is_alive(now):
        if session.state is SessionState.LIVE:
            return None
        because = f": {session.detail}" if session.detail else "."
        return (
            f"The owner of {gateway_id} is {session.state} since "
            f"{session.state_since:%H:%M:%S} UTC{because}"
        )

    if confirmed is None:
        return f"The positions of the gateway {gateway_id} have not been downloaded yet."

    span = timedelta(seconds=settings.refresh_interval_s + DRAIN_TIME_LIMIT_S)
    if not is_recent(confirmed, span, now):
        return (
            f"The positions of the gateway {gateway_id} were last confirmed at "
            f"{confirmed:%Y-%m-%d %H:%M:%S} UTC, and no stream is alive."
        )

    return None


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
        """Return whether a holding that is missing here is not held in an account.

        If the logins name their accounts (`covered`), no login has any other account: nothing is
        held there.

        Args:
            account: The account; None for any account.
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
        captured: When each session read the holdings that it published from its account feed: a
            newer row of its stream answers a request.
    """

    holdings: Holdings
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


@dataclass(eq=False, repr=False)
class LakeValues:
    """Values from the table `broker_positions`, which the owners of the logins write.

    This source works across processes. `unavailable_reason` decides for each login whether its rows
    are current.
    """

    lake: Lake
    settings: Settings
    _: KW_ONLY
    clock: Clock = utc_now

    async def view(self, conids: Collection[int] | None = None) -> BrokerView:
        """Return the holdings of these contracts in the logins whose rows are current.

        Raises:
            BrokerUnavailableError: No login has current rows; the message says why.
        """
        rows, coverage = await self.rows()
        wanted = rows if conids is None else rows.filter(col.conid.is_in(list(conids)))
        holdings = schema.broker_positions_of(wanted)
        # The newest publication of a login names its session, and when that read its account feed.
        published = rows.select("gateway_id", "published_version", "session_id", "captured_at")
        newest = published.sort("published_version").unique("gateway_id", keep="last")
        captured = newest.select("session_id", "captured_at").drop_nulls()
        return BrokerView(
            **asdict(coverage),
            holdings={holding.key: holding for holding in holdings},
            unconfirmed=unconfirmed(holdings, self.settings, self.clock()),
            captured=dict(captured.iter_rows()),
        )

    async def rows(self) -> tuple[DataFrame, Coverage]:
        """Return the stored rows of the logins whose rows are current.

        Raises:
            BrokerUnavailableError: No login has current rows; the message says why.
        """
        current: list[DataFrame] = []
        are_all_complete = True
        covered: dict[str, bool] = {}
        unavailable: dict[str, Collection[str]] = {}  # reason → accounts, where they are named

        for login in self.settings.logins:
            now = self.clock()
            session = await offload(self.lake.sessions.current, login.gateway_id)
            rows = await offload(broker_rows, self.lake, login)
            confirmed: Any = rows["confirmed_at"].max()
            why = unavailable_reason(session, confirmed, login, now)
            if why is None:
                current.append(rows)
            else:
                unavailable[why] = login.accounts or ()

            # A login without any row is not complete: nothing says that it holds nothing.
            is_complete = why is None and set(rows["completeness"]) == {Completeness.COMPLETE}
            are_all_complete &= is_complete
            covered |= dict.fromkeys(login.accounts or (), is_complete)

        if not current:
            raise BrokerUnavailableError(
                " ".join(unavailable),
                remedy="Nothing to do: the requests wait, and none is lost or marked FAILED.",
            )

        return concat(current), Coverage(
            complete=are_all_complete,
            covered=covered,
            unavailable=frozenset(chain.from_iterable(unavailable.values())),
        )


@dataclass(eq=False, repr=False)
class ConnectionValues:
    """Values from the account feed of a shared connection, for programs without Dagster.

    The drain of Dagster takes what the stream published instead: `LakeValues`.
    """

    manager: IBConnectionManager

    async def view(self, conids: Collection[int] | None = None) -> BrokerView:
        """Return the account feed's holdings; download them first if they are missing or old.

        Raises:
            BrokerUnavailableError: The gateway cannot be used, or it has lost the broker.
        """
        try:
            connection = await self.manager.get_connection()
            connection.connectivity.require_ib()
            await connection.feed.ensure(
                timedelta(seconds=self.manager.settings.refresh_interval_s)
            )
        except GatewayError as error:
            raise BrokerUnavailableError(error.what, remedy=error.remedy) from error
        connection.connectivity.require_ib()  # IB may have been lost during the download

        feed = connection.feed
        holdings = {
            holding.key: holding
            for holding in feed.book.holdings
            if conids is None or holding.instrument.conid in conids
        }
        return BrokerView(
            holdings=holdings,
            # Holdings of accounts that the login no longer manages stay unknown.
            complete=feed.is_complete and not feed.book.unmanaged,
            unconfirmed=unconfirmed(holdings.values(), self.manager.settings, utc_now()),
        )
