"""The account feed: requests positions first, then the values of one account after the other.

One list of positions is requested at a time. The first list that empties an account does not count.
Portfolio rows are dated by time messages without a date or zone. `AccountValues` keeps whether an
account has current values, and when they are requested again.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from random import Random
from typing import Any, NamedTuple
from uuid import uuid4

from ib_async import AccountValue

from position_sync_dagster import errors
from position_sync_dagster.domain.clock import NEVER, utc_now
from position_sync_dagster.domain.gateway_session import (
    UnknownAccount,
    UnknownReason,
    UnusableHoldings,
    set_aside_of,
)
from position_sync_dagster.domain.holding import BrokerPosition, Completeness, Key
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway import translate
from position_sync_dagster.gateway.codes import ACCOUNT_READY, GatewayCode, MessageType
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.ib_async_internals import read_messages
from position_sync_dagster.gateway.login import Login
from position_sync_dagster.outage_log import LimitedLog

logger = logging.getLogger(__name__)

# Maximum by which a gateway's clock may be ahead of ours.
AHEAD = timedelta(minutes=2)

# Maximum age of a time text. Without it, a text of a clock in another zone, or ahead of ours by
# more than `AHEAD`, would be read as one of yesterday, 23 hours ago.
OLDEST = timedelta(hours=6)

# Maximum age of a time message that is read in the right zone.
ABOUT_NOW = timedelta(minutes=10)


@lru_cache(maxsize=256)
def moment_of(text: str, *, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the newest moment at or before now at which clocks in `zone` showed `text`.

    The thousands of rows of a large account have the same time.

    Returns:
        None where the text is no time of day, or no plausible one (`OLDEST`).

    >>> moment_of("23:59", now=datetime(2026, 1, 2, 0, 1, tzinfo=UTC), zone=UTC).isoformat()
    '2026-01-01T23:59:00+00:00'
    """
    try:
        hour, minute = (int(part) for part in text.split(":"))
        local = now.astimezone(zone).replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return None
    if local > now + AHEAD:
        local -= timedelta(days=1)
    return min(local, now).astimezone(now.tzinfo) if now - local <= OLDEST else None


def zone_of(text: str, *, now: datetime) -> tzinfo | None:
    """Return our zone or UTC if clocks there show `text` about now, else None.

    Decide it anew for each download and each later row: the offset of our zone changes twice a
    year, and a clock may be set.

    >>> zone_of("14:58", now=datetime(2026, 1, 2, 15, 0, tzinfo=UTC)) is not None
    True
    """
    for zone in (now.astimezone().tzinfo or UTC, UTC):
        at = moment_of(text, now=now, zone=zone)
        if at is not None and now - at <= ABOUT_NOW:
            return zone
    return None


# Delays before an account is requested again because its download did not end, or its subscription
# ended soon after the download. After a subscription that lasted there is none.
AGAIN = Backoff(first_s=15.0, longest_s=300.0, jitter=(1.0, 1.2))


# Why the values of an account are not whole.
STOPPED = "its values stopped (code 2100)"
IB_LOST = "the gateway had lost IB"
NOT_READY = "IB's server is being reset (AccountReady is false)"


@dataclass(slots=True)
class AccountValues:
    """Whether the newest download of an account is whole, and when it is requested again.

    Attributes:
        lasts_s: How long a subscription must last to count as a success.
        random: The jitter of the delays.
        whole_since_s: When its download ended whole, if its values are current.
        problem: Why they are not.
        again_at_s: When it is overdue; infinite while it waits for nothing.
        failures: Requests in a row that brought no lasting values.
        requested_at: When its newest download began.
        ended_at: When that ended, also if the gateway refused it.
        spoiled: Why what came since its request is not whole.
        end_is_due: No end has come since its request.
    """

    lasts_s: float
    random: Random
    whole_since_s: float | None = None
    problem: str | None = None
    again_at_s: float = math.inf
    failures: int = 0
    requested_at: datetime = NEVER
    ended_at: datetime | None = None
    spoiled: str | None = None
    end_is_due: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether its newest download ended and its values are current."""
        return self.whole_since_s is not None

    def begin(self) -> None:
        """Record that a download begins: what becomes due from now on is not part of it."""
        self.requested_at, self.again_at_s = utc_now(), math.inf
        self.whole_since_s = self.spoiled = None

    def complete(self, now_s: float, *, stays_open: bool) -> None:
        """Record that a download ended whole.

        Args:
            now_s: The time.
            stays_open: Whether its subscription stays open; then it counts as a success only after
                `lasts_s`.
        """
        self.whole_since_s, self.problem = now_s, None
        if not stays_open:
            self.failures = 0

    def end(self, now_s: float, why: str) -> None:
        """Record that a download did not end whole, or that a subscription ended after it."""
        lasted = self.whole_since_s is not None and now_s - self.whole_since_s >= self.lasts_s
        self.failures = 0 if lasted else self.failures + 1
        self.whole_since_s, self.problem = None, why
        self.again_at_s = now_s + AGAIN.delay_s(self.failures, self.random)


# A download that neither ends nor falls silent is given up after this many timeouts.
LONGEST_TIMEOUTS = 4


class PortfolioDownloads:
    """Brings the portfolio values of the accounts into the book of holdings, and confirms them.

    The end of a download confirms its account; so does each later row or time of a subscription
    that stays open, which only a login with one account has. A holding of which the download has no
    row is not confirmed: rows and times come from different parts of a gateway. For that reason a
    subscription whose rows are silent for two intervals is requested anew.

    An end may come late, without the name of its account, or never (ib_insync issues/303 and /584;
    ib_async issues/72). Here it counts for the account that it names, if that is subscribed, and no
    late end may come before its first message. One without a name counts in a login with one
    account.

    Args:
        book: Gets the values.
        on_change: Called with an account when its values become whole, or stop being whole.

    Attributes:
        accounts: What is known of the values of each account.
        account_time: The newest time of day that came with values; empty until one came.
    """

    def __init__(
        self, login: Login, book: HoldingsBook, *, on_change: Callable[[str], None]
    ) -> None:
        settings = login.settings
        self.account_time = ""
        self._login, self._ib, self._book = login, login.ib, book
        self._random = Random()  # noqa: S311 - jitter of a delay
        self._know_nothing()
        self._connectivity = login.connectivity
        self._on_change = on_change
        self._silence_s = 2 * settings.account_interval_s
        self._timeout_s, self._quiet_s = settings.gateway_timeout_s, settings.account_quiet_s
        self._only_one = len(login.accounts) == 1
        self._subscribed: str | None = None
        self._result: asyncio.Future[str | None] | None = None  # of the download under way
        self._interruptions = 0
        self._spoke = self._late_end_is_due = False
        self._own_stops = 0
        self._heard_s = self._row_s = -math.inf
        self._last_row: Key | None = None
        self._times: dict[Key, str] = {}
        self._ib.accountValueEvent += self._on_account_value
        self._ib.errorEvent += self._on_error
        self._ib.disconnectedEvent += self._forget_subscription
        read_messages(self._ib, MessageType.ACCOUNT_TIME, self._read_time)
        read_messages(self._ib, MessageType.ACCOUNT_DOWNLOAD_END, self._read_end)

    @property
    def follows(self) -> bool:
        """Return whether an open subscription keeps the values of the login current."""
        return self._subscribed is not None and self.accounts[self._subscribed].is_whole

    @property
    def overdue(self) -> list[str]:
        """Return the accounts that should be requested again now."""
        now_s = time.monotonic()
        return [account for account, one in self.accounts.items() if one.again_at_s <= now_s]

    @property
    def problems(self) -> list[str]:
        """Return why accounts have no current values, by account."""
        accounts = sorted(self.accounts.items())
        return [f"account {name}: {one.problem}" for name, one in accounts if one.problem]

    def invalidate(self) -> None:
        """Forget every subscription: the gateway dropped them."""
        self._know_nothing()
        self._forget_subscription()

    def _know_nothing(self) -> None:
        lasts_s = self._login.settings.account_interval_s
        self.accounts = {
            account: AccountValues(lasts_s, self._random) for account in self._login.accounts
        }

    def restored(self) -> None:
        """Make missing values due, and those of an open subscription: it may lack changes."""
        if self._subscribed is not None and self.follows:
            self._end(self._subscribed, IB_LOST)
        for name, one in self.accounts.items():
            if one.again_at_s < math.inf:
                self.request_again(name)

    def request_again(self, account: str) -> None:
        """Make an account overdue at once."""
        self.accounts[account].again_at_s = time.monotonic()

    def put_row(self, row: translate.HoldingRow) -> bool:
        """Merge a portfolio row; ignore it and return False while IB calls its account invalid."""
        account = row.key[0]
        if self.accounts[account].spoiled == NOT_READY:
            return False
        self._row_s = time.monotonic()
        self._last_row = row.key
        self._book.put_portfolio(row.key, row.instrument, row.position, row.amounts)
        self._hear(account)
        return True

    def miss_row(self) -> None:
        """Record that a row of the subscribed account cannot be read, not even which one it is."""
        if self._subscribed is not None:
            self._spoil(self._subscribed, "a row that cannot be read")

    async def download(self, accounts: Iterable[str]) -> None:
        """Download the accounts, first those that answered the last time.

        Raises:
            GatewayLostError: The connection ended.
        """
        for account in sorted(accounts, key=lambda name: self.accounts[name].failures > 0):
            await self._download(account)

    def check_silence(self) -> None:
        """End a subscription that has been silent for two intervals, or whose rows have been."""
        account, silent_since = self._subscribed, time.monotonic() - self._silence_s
        if account is None or not self.follows:
            return
        if self._heard_s <= silent_since:
            self._subscribed = None
            self._end(account, f"its values have not come for {self._silence_s:g} s")
        elif self._row_s <= silent_since and self._book.open_in(account):
            self._stop()
            self.request_again(account)

    async def _download(self, account: str) -> None:
        one = self.accounts[account]
        self._interruptions = self._connectivity.interruptions
        one.begin()
        self._last_row = None
        self._times.clear()
        why: str | None = None
        try:
            if self._ib.isConnected():
                why = await self._subscribe(account, impatient=one.failures > 0)
        except asyncio.CancelledError:
            self.request_again(account)
            self._on_change(account)
            raise
        finally:
            self._result, one.ended_at = None, utc_now()
        if not self._ib.isConnected():
            raise self._login.lost(f"the values of account {account}")
        why = one.spoiled or why
        if why is None and self._is_uninterrupted:
            self._complete(account)
        else:
            self._end(account, why or IB_LOST)
        if not self._only_one:
            self._stop()

    async def _subscribe(self, account: str, *, impatient: bool) -> str | None:
        """Subscribe to an account, and wait until its download ends or falls silent.

        Args:
            impatient: Wait for the first message no longer than for the others: the account did
                not answer the last time.

        Returns:
            Why it is not whole; None for one that is.
        """
        result = self._result = asyncio.get_running_loop().create_future()
        one = self.accounts[account]
        self._subscribed, self._spoke = account, False
        self._late_end_is_due, one.end_is_due = one.end_is_due, True
        started_s = self._heard_s = self._row_s = time.monotonic()
        self._ib.client.reqAccountUpdates(True, account)
        while not result.done():
            patience_s = self._quiet_s if self._spoke or impatient else self._timeout_s
            until_s = min(
                self._heard_s + patience_s, started_s + LONGEST_TIMEOUTS * self._timeout_s
            )
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return "its download did not end"
            # The first message makes the wait shorter.
            await asyncio.wait({result}, timeout=min(left_s, self._quiet_s))
        why: str | None = result.result()
        return why

    def _stop(self) -> None:
        """End the subscription: the gateway serves one account at a time."""
        account, self._subscribed = self._subscribed, None
        if account is not None and self._ib.isConnected():
            self._own_stops += 1
            with suppress(ConnectionError):
                self._ib.client.reqAccountUpdates(False, account)

    def _forget_subscription(self) -> None:
        """Forget the subscription: the gateway dropped it."""
        self._subscribed, self._own_stops = None, 0
        self._finish(STOPPED)

    def _finish(self, why: str | None) -> bool:
        """End the wait for the download under way; return whether there is one."""
        waiting = self._result
        if waiting is None or waiting.done():
            return False
        waiting.set_result(why)
        return True

    @property
    def _is_uninterrupted(self) -> bool:
        """Whether the gateway has had IB since the newest download began."""
        connectivity = self._connectivity
        return connectivity.lost is None and connectivity.interruptions == self._interruptions

    def _complete(self, account: str) -> None:
        """Record that the download of an account ended whole, and what it confirms."""
        self._date_rows()
        one = self.accounts[account]
        one.complete(time.monotonic(), stays_open=self._only_one)
        self._book.doubt_before(account, one.requested_at)
        self._book.confirmed.confirm(account)
        self._on_change(account)

    def _end(self, account: str, why: str) -> None:
        self.accounts[account].end(time.monotonic(), why)
        self._on_change(account)

    def _spoil(self, account: str, why: str) -> None:
        """Record that what came of an account since its request is not whole."""
        one = self.accounts[account]
        one.spoiled = why
        if one.is_whole:
            self._end(account, why)

    def _record(self, account: str) -> None:
        """Record that any message of an account arrived."""
        if account == self._subscribed:
            self._heard_s, self._spoke, self._own_stops = time.monotonic(), True, 0

    def _hear(self, account: str) -> None:
        """Record a row or a time of an account, which confirms it once its download ended."""
        self._record(account)
        if account == self._subscribed and self.follows:
            self._book.confirmed.confirm(account)

    def _read_time(self, fields: list[str]) -> bool:
        """Read an account time, which is the only time of the values: that of the row before it."""
        self.account_time = fields[-1]
        key, self._last_row = self._last_row, None
        if self._subscribed is not None:
            if key is not None:
                self._times[key] = self.account_time
                if self._result is None:
                    self._date_rows()
            self._hear(self._subscribed)
        return True

    def _date_rows(self) -> None:
        """Date the rows since the last call by the times that followed them.

        The rows of a download may show times hours ago. They are dated at its end, if its last time
        message is about now in our zone or in UTC; in any other zone they have no time. A row that
        comes later by itself is dated at once, if its time is about now.
        """
        now = utc_now()
        zone = zone_of(self.account_time, now=now)
        if zone is not None:
            for key, text in self._times.items():
                self._book.set_value_time(key, moment_of(text, now=now, zone=zone))
        self._times.clear()

    def _read_end(self, fields: list[str]) -> bool:
        account = fields[2] if len(fields) > 2 else ""
        if not account and self._only_one:
            account = self._subscribed or ""
        one = self.accounts.get(account)
        if one is None:
            return True
        is_current = account == self._subscribed
        if is_current and self._late_end_is_due and not self._spoke:
            self._late_end_is_due = False  # it is that of the download before
            return True
        one.end_is_due = False
        if is_current:
            self._hear(account)
            is_late = not self._finish(None)
            if is_late and self._is_uninterrupted and not one.spoiled:
                one.again_at_s = math.inf
                self._complete(account)  # what came before it was whole
        return True

    def _on_account_value(self, value: AccountValue) -> None:
        one = self.accounts.get(value.account)
        if one is None:
            return
        if value.tag == ACCOUNT_READY and value.value == "false":
            self._spoil(value.account, NOT_READY)
        elif value.tag == ACCOUNT_READY and one.spoiled == NOT_READY:
            self.request_again(value.account)
        self._record(value.account)

    def _on_error(self, _request: int, code: int, _text: str, _contract: object) -> None:
        if code == GatewayCode.ACCOUNT_NOT_SERVED and self._result is not None:
            if self._subscribed is not None:
                self.accounts[self._subscribed].end_is_due = False
            self._subscribed = None
            self._finish("another program is subscribed to another account (code 2101)")
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED and self._own_stops:
            self._own_stops -= 1
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED:
            account, self._subscribed = self._subscribed, None
            if account is not None and not self._finish(STOPPED):
                self._end(account, STOPPED)


# Seconds between two log lines for a holding whose row is set aside.
LOG_EVERY_S = 86_400.0


class _FirstList(NamedTuple):
    """The first list that emptied an account: when it came, and whether a second one may count."""

    at_s: float
    counts: bool


class EmptiedAccounts:
    """Decides when a list of positions that names no holding of an account closes its holdings.

    After a restart, gateways have answered with a list that ends properly and is empty (thetagang
    issues/272). Therefore such a list does not count by itself: the holdings stay as they were
    until a second one, `second_s` later, says the same. After a row of an open holding of the
    account, or an interruption, the next such list is a first one again. A list that names a
    holding, or messages that close each of them, end the doubt.

    Args:
        second_s: How much later a second list counts, in seconds; it is due then.
        monotonic: Returns the time of a monotonic clock, in seconds.

    >>> now = iter([0.0, 10.0, 30.0])
    >>> emptied = EmptiedAccounts(second_s=30.0, monotonic=lambda: next(now))
    >>> for _ in range(3):
    ...     emptied.take_list({"DU1", "DU2"}, {"DU2"})
    ...     print("DU1" in emptied)
    True
    True
    False
    """

    def __init__(self, *, second_s: float, monotonic: Callable[[], float]) -> None:
        self._second_s = second_s
        self._monotonic = monotonic
        self._first: dict[str, _FirstList] = {}

    def __contains__(self, account: object) -> bool:
        """Return whether the holdings of an account are in doubt."""
        return account in self._first

    def __iter__(self) -> Iterator[str]:
        """Iterate over the accounts whose holdings are in doubt."""
        return iter(self._first)

    @property
    def is_due(self) -> bool:
        """Return whether a second list should be requested now."""
        now = self._monotonic()
        return any(now - first.at_s >= self._second_s for first in self._first.values())

    def take_list(self, held: Set[str], named: Set[str]) -> None:
        """Take a whole list; the holdings of accounts that are in doubt afterwards stay open.

        Args:
            held: The accounts with open holdings.
            named: The accounts of which the list names a holding.
        """
        now, doubted = self._monotonic(), {}
        for account in held - named:
            first = self._first.get(account)
            if first is None or not first.counts:
                doubted[account] = _FirstList(now, counts=True)
            elif now - first.at_s < self._second_s:
                doubted[account] = first
        self._first = doubted

    def take_back(self, account: str | None = None) -> None:
        """Count the next list that empties an account (None: any account) as a first one again."""
        for name in self._first.keys() if account is None else {account} & self._first.keys():
            self._first[name] = self._first[name]._replace(counts=False)

    def settle(self, account: str) -> None:
        """End the doubt: messages have closed each holding of the account."""
        self._first.pop(account, None)


# For this many seconds after a portfolio row, a position message that differs from it may be older
# than the row: the two come from different parts of a gateway, and neither names a time.
LATE_S = 10.0


class AccountFeed:
    """Keeps every holding of the login as the broker last reported it.

    `snapshot()` requests all positions. `download()` requests the accounts' portfolio values,
    strictly one account after the other: the gateway serves one account at a time to all its
    clients. Afterwards events keep the book current. A holding that disappears is kept with a
    position of 0.0. A failed request closes nothing, and neither does the first list that empties
    an account. A position message that contradicts a portfolio row of the last seconds changes
    nothing: a new list decides. Only received messages confirm a holding, not an open socket.

    Args:
        give_up: Called with the reason when the connection must not be used any more.

    Attributes:
        book: The holdings.
        accounts: The accounts of the login.
        snapshot_at: When the newest list of positions arrived whole; None: none is valid.
        connectivity: Whether the gateway has IB.
        values: The downloads of the accounts' values.
        odd_rows: Why the newest row of a holding cannot be used; cleared when a list begins.
        emptied: The accounts whose holdings are in doubt.
    """

    def __init__(self, login: Login, *, give_up: Callable[[str], None]) -> None:
        ib, settings, accounts = login.ib, login.settings, login.accounts
        self.connectivity = login.connectivity
        band = settings.value_band
        self.book = HoldingsBook(
            settings.gateway_id, accounts, login.connectivity, band=band, clock=utc_now
        )
        self.accounts = accounts
        self.snapshot_at: datetime | None = None
        self.odd_rows: dict[Key, str] = {}
        self.emptied = EmptiedAccounts(second_s=settings.second_list_s, monotonic=time.monotonic)
        self.book.confirmed.doubted = self.emptied
        self._login, self._give_up = login, give_up
        self._timeout_s = settings.gateway_timeout_s
        self._log = LimitedLog(logger, every_s=LOG_EVERY_S)
        self._listing: asyncio.Future[Any] | None = None  # until `_list` has returned
        self._list_wanted = False  # messages since the last one may be missing
        self._requested_at, self._listed_at = -math.inf, time.monotonic()
        self.values = PortfolioDownloads(login, self.book, on_change=self._rate)
        self._named: set[Key] = set()  # since the list was requested
        self._portfolio: dict[Key, tuple[float, float]] = {}  # when, and the quantity
        self._contradicted: dict[Key, float] = {}
        self._demoted = False
        self._requesting = asyncio.Lock()
        self._ensuring = asyncio.Lock()
        read_messages(ib, MessageType.POSITION, self._read_position)
        read_messages(ib, MessageType.PORTFOLIO_VALUE, self._read_portfolio)

    @property
    def holdings(self) -> tuple[BrokerPosition, ...]:
        """Return every holding, closed ones with a position of 0.0."""
        return self.book.holdings

    @property
    def completeness(self) -> dict[str, Completeness]:
        """Return how much of each account the broker has confirmed."""
        return self.book.confirmed.completeness

    @property
    def is_complete(self) -> bool:
        """Return whether the positions and the values of every account arrived whole."""
        return set(self.completeness.values()) == {Completeness.COMPLETE}

    @property
    def positions_due(self) -> bool:
        """Return whether a new list of the positions should be requested now."""
        age_s = time.monotonic() - self._listed_at
        is_old = self._list_wanted or age_s >= self._login.settings.positions_interval_s
        return is_old or self.emptied.is_due or bool(self._contradicted)

    @property
    def overdue(self) -> list[str]:
        """Return the accounts that should be requested again now: their values do not arrive."""
        return self.values.overdue

    @property
    def unknown_accounts(self) -> tuple[UnknownAccount, ...]:
        """Return the accounts whose holdings are unknown, and why."""
        unknown = []
        for account in sorted(self.emptied):
            held = self.book.open_in(account)
            unknown.append(
                UnknownAccount(account=account, reason=UnknownReason.EMPTIED, holdings=held)
            )

        unmanaged = Counter(row.account for row in self.book.unmanaged.values() if row.position)
        for account, held in sorted(unmanaged.items()):
            unknown.append(
                UnknownAccount(account=account, reason=UnknownReason.NOT_MANAGED, holdings=held)
            )
        return tuple(unknown)

    @property
    def problems(self) -> list[str]:
        """Return what a person should know: accounts without current values, rows set aside."""
        unusable = UnusableHoldings(
            unknown_accounts=self.unknown_accounts, set_aside=set_aside_of(self.odd_rows)
        )
        return [*self.values.problems, *unusable.texts]

    def get(self, key: Key) -> BrokerPosition | None:
        """Return one holding."""
        return self.book.get(key)

    def is_known(self, holding: BrokerPosition) -> bool:
        """Return whether a holding may be valued: its account was downloaded and is not in doubt.

        A closed holding of a downloaded account is always known.
        """
        in_doubt = holding.position and holding.account in self.emptied
        return self.values.accounts[holding.account].ended_at is not None and not in_doubt

    def restored(self) -> None:
        """Make the positions and missing values due: the gateway has IB again."""
        self._list_wanted = True
        self.values.restored()

    def invalidate(self) -> None:
        """Mark all holdings as unconfirmed: the gateway dropped every subscription."""
        self.emptied.take_back()
        self.snapshot_at = None
        self.book.invalidate()
        self.values.invalidate()

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
            while True:
                interruptions = self.connectivity.interruptions
                self.odd_rows.clear()
                self._named.clear()
                self._contradicted.clear()
                self.book.snapshot_id = str(uuid4())
                await self._list()
                self.connectivity.require_ib()
                if interruptions == self.connectivity.interruptions:
                    break
            self._listed_at = time.monotonic()
            self._end_list()

    async def _list(self) -> None:
        """Wait for the list that is under way; request one where there is none.

        Messages of positions do not name their request, and at any end message ib_async ends the
        request that it waits for (2.1.0, wrapper.py). Therefore no list is requested while another
        one is under way, and a timeout ends the connection: the late rows of that list would be
        taken for the whole answer to the next request.
        """
        login, timeout_s = self._login, self._timeout_s
        try:
            listing = self._listing
            if listing is None:
                listing = self._listing = asyncio.ensure_future(login.ib.reqPositionsAsync())
                # Its error is retrieved in any case: asyncio logs one that nobody awaits any more.
                listing.add_done_callback(lambda one: one.cancelled() or one.exception())
                self._list_wanted, self._requested_at = False, time.monotonic()
            await asyncio.wait({listing}, timeout=timeout_s)
            if listing.done():
                self._listing = None
                listing.result()
                return
            if not login.ib.isConnected():
                raise ConnectionError
        except ConnectionError as error:
            self._listing = None
            raise login.lost("the positions") from error
        timeout = errors.GatewayTimeoutError(
            f"The gateway at {login.settings.gateway_id} did not send the whole list of positions "
            f"(reqPositions) within {timeout_s:g} s.",
            remedy="It is requested again on a new connection. If this goes on, "
            "restart TWS or IB Gateway.",
        )
        self._give_up(timeout.what)
        raise timeout

    def _end_list(self) -> None:
        """Close what a whole list does not name; its rows, and later ones, were merged before."""
        self.snapshot_at = utc_now()
        named = self._named | self.odd_rows.keys()
        before = set(self.emptied)
        held = {h.key for h in self.book.holdings if h.position}
        of_named = {account for account, _conid in (held & self._named) | self.odd_rows.keys()}
        self.emptied.take_list({account for account, _conid in held}, of_named)
        self.book.close_absent(named, except_in=self.emptied)
        for account in before & of_named:
            self.values.request_again(account)  # their latest messages may have been ignored
        for account in self.accounts:
            self._rate(account)

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

        With one account the open subscription keeps the values current, as long as messages come.

        Raises:
            GatewayError: As `snapshot` and `download`.
        """
        async with self._ensuring:
            if self.snapshot_at is None or self.positions_due:
                await self.snapshot()
            self.lapse()
            if self._downloaded_within(max_age):
                if overdue := self.overdue:
                    await self.download(overdue)
            elif not self.values.follows:
                await self.download()

    def lapse(self) -> bool:
        """Mark an account as PARTIAL whose subscription has been silent for two intervals.

        Returns:
            Whether an account stopped being COMPLETE since the last call.
        """
        self.values.check_silence()
        demoted, self._demoted = self._demoted, False
        return demoted

    def _downloaded_within(self, max_age: timedelta) -> bool:
        # One in the future is from before the clock was set back: its age is unknown.
        now, ended = utc_now(), [one.ended_at for one in self.values.accounts.values()]
        return all(at is not None and timedelta() <= now - at <= max_age for at in ended)

    def _rate(self, account: str) -> None:
        """Set the completeness of an account, and doubt its holdings that were set aside."""
        whole = self.values.accounts[account].is_whole
        for key in self.odd_rows:
            if key[0] == account:
                whole = False
                self.book.doubt(key)
        rating = Completeness.COMPLETE if whole else Completeness.PARTIAL
        if self.snapshot_at is None or account in self.emptied:
            rating = Completeness.UNKNOWN
        if rating is not self.completeness[account]:
            self._demoted |= self.completeness[account] is Completeness.COMPLETE
            self.completeness[account] = rating

    def _usable(self, row: translate.HoldingRow | translate.OddRow) -> translate.HoldingRow | None:
        """Return a row that can be used; set another one aside by its account and conid."""
        account = row.key[0]
        if account not in self.accounts:
            why = "an account of another login" if account else "no account"
            row = translate.OddRow(row.key, why)
        if isinstance(row, translate.HoldingRow):
            if self.odd_rows.pop(row.key, None) is not None:
                self._rate(account)
            return row
        self.odd_rows[row.key] = row.why
        text = f"a holding (conid {row.key[1]}) is set aside: the gateway sent {row.why}"
        self._log.report(repr(row.key), text)
        if account in self.accounts:
            self._rate(account)
        return None

    def _read_position(self, fields: list[str]) -> bool:
        if len(fields) != translate.POSITION_FIELDS:
            return False
        row = self._usable(translate.position_row(fields))
        if row is None:
            return True
        self._named.add(row.key)
        account, position = row.key[0], row.position
        if self._may_be_late(row.key, position):
            self._contradicted[row.key] = position
        else:
            cost = row.amounts["average_cost"]
            changed = self.book.put_position(account, row.instrument, position, cost)
            if (
                changed
                and len(self.accounts) > 1
                and self.values.accounts[account].ended_at is not None
            ):
                self.values.request_again(account)  # it sends no values by itself
        self._hear(account, position)
        return True

    def _may_be_late(self, key: Key, position: float) -> bool:
        """Return whether a portfolio row of the last seconds has another quantity.

        The list that is under way counts if it was requested after that row.
        """
        at_s, newest = self._portfolio.get(key, (-math.inf, position))
        if newest == position or (self._listing is not None and at_s < self._requested_at):
            return False
        return time.monotonic() - at_s <= LATE_S

    def _read_portfolio(self, fields: list[str]) -> bool:
        if len(fields) != translate.PORTFOLIO_FIELDS:
            self.values.miss_row()
            return False
        row = self._usable(translate.portfolio_row(fields))
        if row is None or not self.values.put_row(row):
            return True
        self._named.add(row.key)
        self._portfolio[row.key] = time.monotonic(), row.position
        if self._contradicted.get(row.key) == row.position:
            del self._contradicted[row.key]
        self._hear(row.key[0], row.position)
        return True

    def _hear(self, account: str, position: float) -> None:
        """Update the doubt about an account after one of its rows has arrived."""
        if account not in self.emptied:
            return
        if position:
            self.emptied.take_back(account)
        elif not self.book.open_in(account):
            self.emptied.settle(account)
            self._rate(account)
