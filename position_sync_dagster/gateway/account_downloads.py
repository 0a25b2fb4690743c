"""The values of accounts: one account after the other is subscribed, downloaded and confirmed.

A gateway serves one account at a time. The subscription of a login with one account stays open
after its download, and each later row or time confirms the account again. One of several accounts
is stopped then, which the gateway answers by code 2100. The end message of a download may come
late, or without the name of its account.

Whether an account has current values, how long they are awaited, when what came is spoiled, and
when the values are requested again is decided by `domain/account_state.py`. Portfolio rows are
dated by time messages without a date or zone.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from random import Random

from ib_async import AccountValue

from position_sync_dagster.domain import account_state
from position_sync_dagster.domain.account_state import AccountState, AccountStates
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.holding import Key
from position_sync_dagster.gateway import translate
from position_sync_dagster.gateway.codes import ACCOUNT_READY, GatewayCode, MessageType
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.ib_async_internals import read_messages
from position_sync_dagster.gateway.login import Login

# Maximum by which a gateway's clock may be ahead of ours.
CLOCK_AHEAD = timedelta(minutes=2)

# Maximum age of a time text. Without it, a text of a clock in another zone, or ahead of ours by
# more than `CLOCK_AHEAD`, would be read as one of yesterday, 23 hours ago.
OLDEST = timedelta(hours=6)

# Maximum age of a time message that is read in the right zone.
ABOUT_NOW = timedelta(minutes=10)


def moment_of(text: str, *, now: datetime, zone: tzinfo) -> datetime | None:
    """Return the newest moment at or before now at which clocks in `zone` showed `text`.

    A clock that is ahead by up to `CLOCK_AHEAD` shows the present time.

    Returns:
        None where the text is no time of day, or one more than `OLDEST` ago: then the clock is in
        another zone, or too far ahead.

    >>> moment_of("23:59", now=datetime(2026, 1, 2, 0, 1, tzinfo=UTC), zone=UTC).isoformat()
    '2026-01-01T23:59:00+00:00'
    """
    try:
        hour, minute = map(int, text.split(":"))
        local = now.astimezone(zone).replace(hour=hour, minute=minute, second=0, microsecond=0)
    except ValueError:
        return None
    if local > now + CLOCK_AHEAD:
        local -= timedelta(days=1)
    if now - local <= OLDEST:
        return min(local, now).astimezone(now.tzinfo)

    return None


def zone_showing(text: str, *, now: datetime) -> tzinfo | None:
    """Return our zone, or UTC, if clocks there show the time of day `text` about now; else None.

    IB's time messages name no zone (one that is named: `exchange_time.zone_of`). Decide it anew for
    each download and each later row: the offset of our zone changes twice a year, and a clock may
    be set.

    >>> zone_showing("14:58", now=datetime(2026, 1, 2, 15, 0, tzinfo=UTC)) is not None
    True
    """
    for zone in (now.astimezone().tzinfo or UTC, UTC):
        at = moment_of(text, now=now, zone=zone)
        if at is not None and now - at <= ABOUT_NOW:
            return zone
    return None


# Why the values of an account are not whole.
STOPPED = "its values stopped (code 2100)"
IB_LOST = "the gateway had lost IB"
BEING_RESET = "IB's server is being reset (AccountReady is false)"
NO_END = "its download did not end"


@dataclass(slots=True, kw_only=True)
class AccountSubscription:
    """The subscription to the values of one account, of which a gateway serves one at a time.

    Attributes:
        state: What is known of the account.
        expects_late_end: The download before had not ended: its end may still come.
        began_s: When it was requested.
        heard_s: When its newest message came, or it was requested.
        row_s: When its newest row came, or it was requested.
        result: Gets why its download is not whole, or None; done once nobody waits for it.
        has_spoken: Whether a message of it came.
        undated_row: The newest row, until the time that follows it comes.
        times: The texts of times of rows that are not dated yet.
    """

    account: str
    state: AccountState
    expects_late_end: bool
    began_s: float
    heard_s: float
    row_s: float
    result: asyncio.Future[str | None] = field(default_factory=asyncio.Future)
    has_spoken: bool = False
    undated_row: Key | None = None
    times: dict[Key, str] = field(default_factory=dict)

    def finish(self, why: str | None) -> bool:
        """End the wait for the download; return whether somebody waited.

        Args:
            why: Why it is not whole; None for one that is.
        """
        if self.result.done():
            return False
        self.result.set_result(why)
        return True


class AccountDownloads:
    """Brings the portfolio values of the accounts into the book of holdings, and confirms them.

    The end of a download confirms its account; so does each later row or time of a subscription
    that stays open, which only a login with one account has. A holding of which the download has no
    row is not confirmed: rows and times come from different parts of a gateway. For that reason a
    subscription whose rows are silent for two intervals is requested anew.

    An end may come late, without the name of its account, or never (ib_insync issues/303 and /584;
    ib_async issues/72). Here it counts for the account that it names, if that is subscribed, and no
    late end may come before its first message. One without a name is the late end of another
    account, if one may still come; else that of the account that is subscribed.

    Args:
        accounts: The state of each account.
        book: Gets the values.

    Attributes:
        account_time: The newest time of day that came with values; empty until one came.
    """

    def __init__(self, login: Login, accounts: AccountStates, book: HoldingsBook) -> None:
        self.account_time = ""
        self.accounts = accounts
        self._login = login
        self._ib = login.ib
        self._book = book
        self._random = Random()  # noqa: S311 - jitter of a delay

        # After how long an open subscription is silent.
        self._silence_s = account_state.SILENT_INTERVALS * account_state.ACCOUNT_INTERVAL_S
        self._timeout_s = login.timeout_s
        self._has_one_account = len(login.accounts) == 1  # then its subscription stays open

        self._subscription: AccountSubscription | None = None  # None: no account is subscribed
        # Subscriptions that we ended and whose 2100 may still come: it is not that of the open one.
        self._unanswered_stops = 0

        self._ib.accountValueEvent += self._on_account_value
        self._ib.errorEvent += self._on_error
        self._ib.disconnectedEvent += self.forget_subscription
        read_messages(self._ib, MessageType.ACCOUNT_TIME, self._read_time)
        read_messages(self._ib, MessageType.ACCOUNT_DOWNLOAD_END, self._read_end)

    @property
    def is_current(self) -> bool:
        """Return whether an open subscription keeps the values of the login current."""
        subscription = self._subscription
        return subscription is not None and subscription.state.is_whole

    @property
    def problems(self) -> list[str]:
        """Return why accounts have no current values, by account."""
        return [
            f"account {name}: {state.problem}"
            for name, state in sorted(self.accounts.items())
            if state.problem
        ]

    def interrupted(self) -> None:
        """Count nothing that came since the request: the gateway has lost IB, or had.

        If that is spoiled already, the first reason stays.
        """
        subscription = self._subscription
        if subscription is not None and subscription.state.spoiled is None:
            self._spoil(subscription.account, IB_LOST)

    def restored(self) -> None:
        """Make missing values due, and those of an open subscription: it may lack changes."""
        self.interrupted()
        now_s = time.monotonic()
        for account in self.accounts.values():
            account.restore(now_s)

    def request_again(self, account: str) -> None:
        """Make an account overdue at once."""
        self.accounts[account].again_at_s = time.monotonic()

    # Downloads.

    async def download(self, accounts: Iterable[str]) -> None:
        """Download the accounts, first those that answered the last time.

        Raises:
            GatewayLostError: The connection ended.
        """
        for account in sorted(accounts, key=lambda name: self.accounts[name].failures > 0):
            await self._download(account)

    async def _download(self, account: str) -> None:
        """Subscribe to an account, wait for the end of its download, and record how it ended.

        If the wait is cancelled, the account is due again at once.
        """
        state = self.accounts[account]
        now_s = time.monotonic()
        subscription = AccountSubscription(
            account=account,
            state=state,
            expects_late_end=state.end_is_due,
            began_s=now_s,
            heard_s=now_s,
            row_s=now_s,
        )
        state.begin(utc_now())
        if self._login.connectivity.lost is not None:
            state.spoiled = IB_LOST
        why: str | None = None
        try:
            if self._ib.isConnected():
                self._subscription = subscription
                self._ib.client.reqAccountUpdates(True, account)
                why = await self._end_of(subscription)

        except asyncio.CancelledError:
            self.request_again(account)
            state.is_covered = False  # nobody knows whether it would have ended whole
            raise
        finally:
            subscription.result.cancel()  # nobody waits any more: an end from now on is a late one
            state.ended_at = utc_now()

        if not self._ib.isConnected():
            raise self._login.lost(f"the values of account {account}")
        why = state.spoiled or why
        if why is None:
            self._complete(subscription)
        else:
            self._fail(account, why)
        if not self._has_one_account:  # the gateway is free for the next one
            self._stop()

    async def _end_of(self, subscription: AccountSubscription) -> str | None:
        """Wait until a download ends or falls silent.

        Returns:
            Why it is not whole; None for one that is.
        """
        result = subscription.result
        while not result.done():
            until_s = subscription.state.awaited_until_s(
                began_s=subscription.began_s,
                heard_s=subscription.heard_s,
                has_spoken=subscription.has_spoken,
                timeout_s=self._timeout_s,
            )
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return NO_END
            # The first message makes the wait shorter.
            await asyncio.wait({result}, timeout=min(left_s, account_state.ACCOUNT_QUIET_S))
        return result.result()

    def _complete(self, subscription: AccountSubscription, *, is_late: bool = False) -> None:
        """Record that the download of an account ended whole, and what it confirms.

        Args:
            subscription: That of the account.
            is_late: Whether its end came when nobody waited for it any more.
        """
        account = subscription.account
        self._set_value_times(subscription)
        state = subscription.state
        state.complete(time.monotonic(), stays_open=self._has_one_account, is_late=is_late)
        # A holding without a row in this download is not confirmed by its end.
        self._book.doubt_values_before(account, state.requested_at)
        self._book.confirm(account)

    def _fail(self, account: str, why: str) -> None:
        """Record that the values of an account are not whole, and why."""
        self.accounts[account].fail(time.monotonic(), why, self._random)

    def _spoil(self, account: str, why: str) -> None:
        """Record that what came of an account since its request is not whole."""
        self.accounts[account].spoil(time.monotonic(), why, self._random)

    # The subscription.

    def end_silent(self) -> None:
        """End the open subscription if it, or its rows alone, have been silent for two intervals.

        An account without any message is PARTIAL, and requested again: at once, since its
        subscription lasted (`AccountState.fail`). It is not stopped: the new request replaces it.
        One whose times still come, and no rows although something is held, keeps its completeness;
        it is stopped, and requested again at once.
        """
        subscription = self._subscription
        if subscription is None or not self.is_current:
            return

        account = subscription.account
        silent_since_s = time.monotonic() - self._silence_s
        if subscription.heard_s <= silent_since_s:
            self._subscription = None
            self._fail(account, f"its values have not come for {self._silence_s:g} s")
        elif subscription.row_s <= silent_since_s and self._book.open_in(account):
            self._stop()
            self.request_again(account)

    def _stop(self) -> None:
        """End the subscription: the gateway serves one account at a time, and answers by 2100."""
        subscription = self._subscription
        self._subscription = None
        if subscription is not None and self._ib.isConnected():
            self._unanswered_stops += 1  # its 2100 is not one of the next subscription
            with suppress(ConnectionError):
                self._ib.client.reqAccountUpdates(False, subscription.account)

    def forget_subscription(self) -> None:
        """Forget the subscription: the connection is gone, or the gateway dropped it.

        Stops that wait for their 2100 (unsubscribed) will get none.
        """
        subscription = self._subscription
        self._subscription = None
        self._unanswered_stops = 0
        if subscription is not None:
            subscription.state.spoiled = STOPPED
            subscription.finish(STOPPED)

    # Messages.

    def put_row(self, row: translate.HoldingRow) -> bool:
        """Merge a portfolio row; ignore it and return False while IB calls its account invalid."""
        account = row.key[0]
        if self.accounts[account].spoiled == BEING_RESET:
            return False

        # Rows of any account show that a download goes on; the time that follows dates this one.
        if self._subscription is not None:
            self._subscription.row_s = time.monotonic()
            self._subscription.undated_row = row.key
        self._book.put_portfolio(row.key, row.instrument, row.position, row.amounts)
        self._hear(account)
        return True

    def miss_row(self) -> None:
        """Record that a row of the subscribed account cannot be read, not even which one it is."""
        if self._subscription is not None:
            self._spoil(self._subscription.account, "a row that cannot be read")

    def _hear(self, account: str, *, confirms: bool = True) -> None:
        """Record a message of an account, if that is subscribed: it is not silent.

        Args:
            account: Whose message it is.
            confirms: Whether it confirms the holdings once the download has ended, as a row, a time
                or an end does; an account value does not.
        """
        subscription = self._subscription
        if subscription is None or account != subscription.account:
            return
        subscription.heard_s = time.monotonic()
        subscription.has_spoken = True
        # The gateway has begun with this one: a 2100 from now on is its own.
        self._unanswered_stops = 0
        if confirms and self.is_current:
            self._book.confirm(account)

    def _read_time(self, fields: list[str]) -> bool:
        """Read an account time, which is the only time of the values: that of the row before it.

        Returns:
            True: `ib_async` has no use for the message.
        """
        self.account_time = fields[-1]
        subscription = self._subscription
        if subscription is None:
            return True

        if subscription.undated_row is not None:
            subscription.times[subscription.undated_row] = self.account_time
            subscription.undated_row = None
            if subscription.result.done():  # else the end of the download dates its rows
                self._set_value_times(subscription)
        self._hear(subscription.account)
        return True

    def _set_value_times(self, subscription: AccountSubscription) -> None:
        """Set the `value_time` of the rows since the last call, by the times that followed them.

        The rows of a download may show times hours ago. They are dated at its end, if its last time
        message is about now in our zone or in UTC; in any other zone they have no time. A row that
        comes later by itself is dated at once, if its time is about now.
        """
        now = utc_now()
        zone = zone_showing(self.account_time, now=now)
        if zone is not None:
            moments = {  # of few texts: they have no seconds
                text: moment_of(text, now=now, zone=zone)
                for text in set(subscription.times.values())
            }
            for key, text in subscription.times.items():
                self._book.change(key, value_time=moments[text])
        subscription.times.clear()

    def _read_end(self, fields: list[str]) -> bool:
        """Read the end of a download: that of the subscribed account, or a late one.

        Returns:
            True: `ib_async` does not get the message, which it would take for an end of its own.
        """
        subscription = self._subscription
        subscribed = "" if subscription is None else subscription.account
        named = fields[2] if len(fields) > 2 else ""  # behind type and version, if at all
        account = named or self._account_with_late_end(subscribed) or subscribed

        if account in self.accounts:
            self._end(account)
        return True

    def _end(self, account: str) -> None:
        """Record an end of an account; one of another account, or of a download before, ends none.

        Before the first message of a download, an end is that of the one before, if that had none.
        If an end comes late, nobody waits for it any more, and what came before it counts.
        """
        state = self.accounts[account]
        subscription = self._subscription
        if subscription is None or account != subscription.account:
            state.end_is_due = False
            return
        if subscription.expects_late_end and not subscription.has_spoken:
            subscription.expects_late_end = False
            return

        state.end_is_due = False
        self._hear(account)
        is_late = not subscription.finish(None)
        if is_late and state.spoiled is None:
            self._complete(subscription, is_late=True)  # what came before it was whole

    def _account_with_late_end(self, subscribed: str) -> str | None:
        """Return an account, not the subscribed one, whose end may still come; None without one."""
        now = utc_now()
        for account, state in self.accounts.items():
            if account != subscribed and state.may_end_late(now):
                return account
        return None

    def _on_account_value(self, value: AccountValue) -> None:
        """Record whether IB calls the values of an account ready, and that it is not silent.

        While they are not ready, nothing that comes counts; once they are, the account is requested
        again at once. An account value confirms no holding.
        """
        account = value.account
        if account not in self.accounts:
            return
        if value.tag == ACCOUNT_READY:
            if value.value == "false":
                self._spoil(account, BEING_RESET)
            elif self.accounts[account].spoiled == BEING_RESET:
                self.request_again(account)
        self._hear(account, confirms=False)

    def _on_error(self, _request: int, code: int, _text: str, _contract: object) -> None:
        """Record that the gateway does not serve an account, or ended its subscription.

        A subscription whose download has ended is not ended by 2101, but by `end_silent`.
        """
        subscription = self._subscription
        if code == GatewayCode.ACCOUNT_NOT_SERVED:  # no end follows
            if subscription is not None and not subscription.result.done():
                subscription.state.end_is_due = False
                self._subscription = None
                subscription.finish("another program is subscribed to another account (code 2101)")
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED:
            if self._unanswered_stops:
                self._unanswered_stops -= 1  # the answer to a stop of ours: it ends nothing
            elif subscription is not None:
                self._subscription = None
                if not subscription.finish(STOPPED):
                    self._fail(subscription.account, STOPPED)
