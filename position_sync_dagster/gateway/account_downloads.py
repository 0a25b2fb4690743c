"""The values of the accounts: downloaded one account after the other, then followed by events.

Portfolio rows are dated by time messages without a date or zone. `AccountValues` keeps whether an
account has current values, and when they are requested again.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from random import Random

from ib_async import AccountValue

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import NEVER, Backoff, utc_now
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.codes import ACCOUNT_READY, GatewayCode, MessageType
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.login import Login
from position_sync_dagster.gateway.translate import HoldingRow

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
REFUSED = "another program is subscribed to another account (code 2101)"
UNFINISHED = "its download did not end"
STOPPED = "its values stopped (code 2100)"
IB_LOST = "the gateway had lost IB"
NOT_READY = "IB's server is being reset (AccountReady is false)"
UNREADABLE = "a row that cannot be read"


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

    def invalidate(self) -> None:
        """Forget its state: the gateway dropped every subscription."""
        self.whole_since_s = self.problem = self.ended_at = None
        self.again_at_s, self.end_is_due = math.inf, False

    def complete(self, now_s: float, *, stays_open: bool) -> None:
        """Record that a download ended whole.

        Args:
            now_s: The time.
            stays_open: Whether its subscription stays open; then it counts as a success only after
                `lasts_s`.
        """
        self.whole_since_s, self.problem, self.again_at_s = now_s, None, math.inf
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
        settings, random = login.settings, Random()  # noqa: S311 - jitter of a delay
        self.account_time = ""
        self.accounts = {
            account: AccountValues(settings.account_interval_s, random)
            for account in login.accounts
        }
        self._login, self._ib, self._book = login, login.ib, book
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
        for kind, read in (
            (MessageType.ACCOUNT_TIME, self._read_time),
            (MessageType.ACCOUNT_DOWNLOAD_END, self._read_end),
        ):
            ib_async_internals.read_messages(self._ib, kind, read)

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
        for one in self.accounts.values():
            one.invalidate()
        self._forget_subscription()

    def restored(self) -> None:
        """Make missing values due, and those of an open subscription: it may lack changes."""
        account = self._subscribed
        if account is not None and self.follows:
            self.accounts[account].whole_since_s = None
            self.request_again(account)
            self._on_change(account)
        for name, one in self.accounts.items():
            if one.again_at_s < math.inf:
                self.request_again(name)

    def request_again(self, account: str) -> None:
        """Make an account overdue at once."""
        self.accounts[account].again_at_s = time.monotonic()

    def put_row(self, row: HoldingRow) -> bool:
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
            self._spoil(self._subscribed, UNREADABLE)

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
        one.requested_at, one.whole_since_s, one.spoiled = utc_now(), None, None
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
                return UNFINISHED
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
        for key, text in self._times.items() if zone is not None else ():
            self._book.set_value_time(key, moment_of(text, now=now, zone=zone or UTC))
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
            self._finish(REFUSED)
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED and self._own_stops:
            self._own_stops -= 1
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED:
            account, self._subscribed = self._subscribed, None
            if account is not None and not self._finish(STOPPED):
                self._end(account, STOPPED)
