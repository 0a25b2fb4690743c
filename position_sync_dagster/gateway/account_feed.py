"""The account feed: requests positions first, then the values of one account after the other.

One list of positions is requested at a time. The first list that empties an account does not count:
the account is in doubt until a second one says the same (`domain/account_state.py`). A row that
cannot be used is set aside: its holding stays in the book as it was, and messages of the account do
not confirm it. The values are those of `gateway/account_downloads.py`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import uuid4

from position_sync_dagster import errors
from position_sync_dagster.domain.account_state import AccountStates
from position_sync_dagster.domain.clock import is_recent, utc_now
from position_sync_dagster.domain.gateway_session import (
    UnknownAccount,
    UnknownReason,
    UnusableHoldings,
    set_aside_of,
)
from position_sync_dagster.domain.holding import BrokerPosition, Completeness, Key
from position_sync_dagster.gateway import translate
from position_sync_dagster.gateway.account_downloads import AccountDownloads
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.ib_async_internals import read_messages
from position_sync_dagster.gateway.login import Login
from position_sync_dagster.gateway.translate import (
    PORTFOLIO_FIELDS,
    POSITION_FIELDS,
    HoldingRow,
    OddRow,
)
from position_sync_dagster.outage_log import LimitedLog

logger = logging.getLogger(__name__)

# How often all positions are listed again, to check the single messages.
POSITIONS_INTERVAL_S = 900.0

# Seconds between two log lines for a holding whose row is set aside.
ODD_ROW_LOG_S = 86_400.0


class AccountFeed:
    """Keeps every holding of the login as the broker last reported it.

    `snapshot()` requests all positions. `download()` requests the accounts' portfolio values,
    strictly one account after the other: the gateway serves one account at a time to all its
    clients. Afterwards events keep the book current. A holding that disappears is kept with a
    position of 0.0. A failed request closes nothing, and neither does the first list that empties
    an account. Only received messages confirm a holding, not an open socket.

    Args:
        give_up: Called with the reason when the connection must not be used any more.

    Attributes:
        book: The holdings.
        accounts: The accounts of the login.
        connectivity: Whether the gateway has IB.
        states: What is known of each account.
        values: The downloads of the accounts' values.
    """

    def __init__(self, login: Login, *, give_up: Callable[[str], None]) -> None:
        self._login = login
        self._give_up = give_up
        self._timeout_s = login.timeout_s
        self.connectivity = login.connectivity
        self.accounts = login.accounts

        self.states = AccountStates(login.accounts)
        self.book = HoldingsBook(
            login.settings.gateway_id, self.states, login.connectivity, clock=utc_now
        )
        self.values = AccountDownloads(login, self.states, self.book)
        self._log = LimitedLog(logger, every_s=ODD_ROW_LOG_S)

        # The list of positions.
        self._listing: asyncio.Future[Any] | None = None  # the one that is under way
        self._list_wanted = False  # messages since the last list may be missing
        self._named: set[Key] = set()  # the holdings of which a row came while it is under way

        self._complete: set[str] = set()  # the accounts that were so at the last `take_demoted`
        self._requesting = asyncio.Lock()  # one list or download at a time
        self._ensuring = asyncio.Lock()  # who waits for it may find nothing missing any more
        read_messages(login.ib, MessageType.POSITION, self._read_position)
        read_messages(login.ib, MessageType.PORTFOLIO_VALUE, self._read_portfolio)

    @property
    def completeness(self) -> dict[str, Completeness]:
        """Return how much of each account the broker has confirmed."""
        return {account: self.states.completeness(account) for account in self.states}

    @property
    def is_complete(self) -> bool:
        """Return whether the positions and the values of every account arrived whole."""
        return set(self.completeness.values()) == {Completeness.COMPLETE}

    @property
    def positions_due(self) -> bool:
        """Return whether a new list of the positions should be requested now.

        So it is without a recent one, to end a doubt, and if messages may be missing since the
        newest one (`_list_wanted`), as after a loss of IB.
        """
        interval = timedelta(seconds=POSITIONS_INTERVAL_S)
        is_listed = is_recent(self.states.listed_at, interval, utc_now())
        now_s = time.monotonic()
        is_doubted = any(state.needs_second_list(now_s) for state in self.states.values())
        return not is_listed or self._list_wanted or is_doubted

    @property
    def overdue(self) -> list[str]:
        """Return the accounts that should be requested again now: their values do not arrive."""
        return self.states.overdue(time.monotonic())

    def unusable_holdings(self, set_aside_by_pricing: Mapping[Key, str]) -> UnusableHoldings:
        """Return the accounts whose holdings are unknown, and the holdings that are set aside.

        Args:
            set_aside_by_pricing: Why holdings are set aside that could not be valued
                (`StreamPricer.set_aside`). A row that cannot be read comes before them.
        """
        emptied = [
            UnknownAccount(
                account=name, reason=UnknownReason.EMPTIED, holdings=self.book.open_in(name)
            )
            for name in self.states.doubted
        ]
        unmanaged = Counter(row.account for row in self.book.unmanaged.values() if row.position)
        not_managed = [
            UnknownAccount(account=name, reason=UnknownReason.NOT_MANAGED, holdings=held)
            for name, held in sorted(unmanaged.items())
        ]
        return UnusableHoldings(
            unknown_accounts=(*emptied, *not_managed),
            set_aside=set_aside_of({**set_aside_by_pricing, **self.states.set_aside}),
        )

    @property
    def problems(self) -> list[str]:
        """Return what a person should know: accounts without current values, rows set aside."""
        return [*self.values.problems, *self.unusable_holdings({}).texts]

    def is_known(self, holding: BrokerPosition) -> bool:
        """Return whether a holding may be valued: its account was downloaded and is not in doubt.

        A closed holding of a downloaded account is always known.
        """
        account = self.states[holding.account]
        is_doubted = holding.position != 0 and account.is_doubted
        return account.ended_at is not None and not is_doubted

    def interrupted(self) -> None:
        """Count no download under way, and an emptying list as a first one: the gateway lost IB."""
        self.values.interrupted()
        for account in self.states.values():
            account.contradict()

    def restored(self) -> None:
        """Make the positions and missing values due: the gateway has IB again."""
        self._list_wanted = True
        self.values.restored()

    def invalidate(self) -> None:
        """Mark all holdings as unconfirmed: the gateway dropped every subscription."""
        self.book.invalidate()
        self.values.forget_subscription()

    async def snapshot(self) -> None:
        """Request every position; only a list that ends with its end message counts.

        Raises:
            GatewayTimeoutError: No end message came; nothing was closed, and the connection is
                given up.
            GatewayLostError: The connection ended; nothing was closed.
            BrokerUnavailableError: The gateway has lost IB; nothing was closed.
        """
        async with self._requesting:
            if self._listing is not None:  # its request was cancelled: the rows do not count
                await self._list()

            # A list during which the gateway lost IB may lack rows: it is requested again.
            self._list_wanted = True
            while self._list_wanted:
                self._named.clear()
                self.book.snapshot_id = str(uuid4())
                await self._list()
                self.connectivity.require_ib()

            self._end_list()

    async def _list(self) -> None:
        """Wait for the list that is under way; request one where there is none.

        Messages of positions do not name their request, and at any end message ib_async ends the
        request that it waits for (2.1.0, wrapper.py). Therefore no list is requested while another
        one is under way (`_listing`, also after a cancelled wait), and a timeout ends the
        connection: the late rows of that list would be taken for the whole answer to the next
        request.
        """
        login = self._login
        try:
            if self._listing is None:
                self._list_wanted = False
                self._listing = asyncio.ensure_future(login.ib.reqPositionsAsync())
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(self._listing)  # if this wait is cancelled, it goes on
            self._listing = None

        except (ConnectionError, TimeoutError) as error:
            if not login.ib.isConnected():
                self._listing = None
                raise login.lost("the positions") from error

            timeout = errors.GatewayTimeoutError(
                f"The gateway at {login.settings.gateway_id} did not send the whole list of "
                f"positions (reqPositions) within {self._timeout_s:g} s.",
                remedy="It is requested again on a new connection. If this goes on, "
                "restart TWS or IB Gateway.",
            )
            self._give_up(timeout.what)
            raise timeout from None

    def _end_list(self) -> None:
        """Count a list that came to its end: close what it does not name.

        Its rows, and later ones, were merged before; `_named` has their keys. Nothing is closed in
        an account that the list empties, until a second one does so too. A holding that was set
        aside, and is not named any more, is closed like the others.
        """
        self.states.listed_at = utc_now()
        now_s = time.monotonic()
        set_aside = self.states.set_aside.keys()
        for account, conid in set_aside - self._named:
            del self.states.odd_rows[account][conid]
        # A row of 0 names no account: only one of a holding that is open, or set aside.
        open_keys = {holding.key for holding in self.book.rows if holding.position}
        named_accounts = {account for account, _conid in self._named & (open_keys | set_aside)}

        for account, state in self.states.items():
            was_doubted = state.is_doubted
            is_named = account in named_accounts
            is_emptied = not is_named and self.book.open_in(account) > 0
            state.take_list(now_s, is_emptied=is_emptied)
            if was_doubted and is_named:
                # In doubt, no message confirmed it (`HoldingsBook.confirm`): a download does.
                self.values.request_again(account)

        self.book.close_absent(self._named, except_in=self.states.doubted)
        self._named.clear()

    async def download(self, accounts: Iterable[str] | None = None) -> None:
        """Download the portfolio values of the accounts, one after the other.

        An account that the gateway does not serve (2101), or whose download falls silent without
        its end, stays PARTIAL. With one account the subscription stays open and keeps the values
        current.

        Args:
            accounts: By default every account of the login.

        Raises:
            GatewayLostError: The connection ended.
        """
        async with self._requesting:
            await self.values.download(self.accounts if accounts is None else accounts)

    async def ensure(self, max_age: timedelta) -> None:
        """Request what is missing for a snapshot and values no older than `max_age`.

        If each account was downloaded within that time, only those that are overdue are downloaded
        again. Otherwise all are, unless an open subscription keeps the one account current.

        Raises:
            GatewayError: As `snapshot` and `download`.
        """
        async with self._ensuring:
            if self.positions_due:
                await self.snapshot()
            self.values.end_silent()
            now = utc_now()
            if all(is_recent(state.ended_at, max_age, now) for state in self.states.values()):
                await self.download(self.overdue)
            elif not self.values.is_current:
                await self.download()

    def take_demoted(self) -> bool:
        """Return whether an account that was COMPLETE at the last call is not so any more.

        Whatever the cause, readers are to see it at once, not with the next publication.
        """
        before = self._complete
        ratings = self.completeness
        self._complete = {name for name in ratings if ratings[name] is Completeness.COMPLETE}
        return not before <= self._complete

    def _usable_or_set_aside(self, row: HoldingRow | OddRow) -> HoldingRow | None:
        """Return a row that can be used; set another one aside, and doubt what the book has of it.

        A list that names such a row does not close its holding.

        Returns:
            None for a row that is set aside.
        """
        account, conid = row.key
        if account not in self.accounts:
            row = OddRow(row.key, "an account of another login" if account else "no account")
        if isinstance(row, HoldingRow):
            self.states.odd_rows[account].pop(conid, None)
            return row
        self.states.odd_rows[account][conid] = row.why
        if self._listing is not None:  # `_note_for_list` adds the usable ones
            self._named.add(row.key)
        self.book.doubt(row.key)
        text = f"a holding (conid {conid}) is set aside: the gateway sent {row.why}"
        self._log.report(repr(row.key), text)
        return None

    def _read_position(self, fields: list[str]) -> bool:
        """Take a row of a list of positions, or a change; False: it is malformed."""
        if len(fields) != len(POSITION_FIELDS):
            return False
        row = self._usable_or_set_aside(translate.position_row(fields))
        if row is None:
            return True

        account = row.key[0]
        is_new = self.book.put_position(
            account, row.instrument, row.position, row.amounts["average_cost"]
        )
        was_downloaded = self.states[account].ended_at is not None
        if is_new and was_downloaded and len(self.accounts) > 1:
            # Only the account of a login with one stays subscribed, and sends its values itself.
            self.values.request_again(account)
        self._note_for_list(row)
        return True

    def _read_portfolio(self, fields: list[str]) -> bool:
        """Take a row with values of the subscribed account; False: it is malformed."""
        if len(fields) != len(PORTFOLIO_FIELDS):
            self.values.miss_row()  # the download lacks a row: it is not whole
            return False
        row = self._usable_or_set_aside(translate.portfolio_row(fields))
        if row is not None and self.values.put_row(row):
            self._note_for_list(row)
        return True

    def _note_for_list(self, row: HoldingRow) -> None:
        """Record that a list names this row; update the doubt about an account that a list emptied.

        An open holding speaks against that list. A close that leaves none open ends the doubt:
        messages have closed what the list lacks.
        """
        if self._listing is not None:
            self._named.add(row.key)
        account = row.key[0]
        state = self.states[account]
        if row.position:
            state.contradict()
        elif state.is_doubted and not self.book.open_in(account):
            state.end_doubt()
