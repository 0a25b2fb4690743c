"""The values of the accounts: downloaded one account after the other, then followed by events.

Portfolio rows are dated by time messages without a date or zone. A row that cannot be used is set
aside by account and conid; the others are used. `AccountStanding` keeps which accounts have current
values, and when the others are requested again.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from random import Random

from ib_async import AccountValue

from position_sync_dagster.domain.broker_position import Key
from position_sync_dagster.domain.clock import Backoff, utc_now
from position_sync_dagster.domain.gateway_session import SET_ASIDE
from position_sync_dagster.domain.instrument import CONIDS
from position_sync_dagster.domain.leg import few
from position_sync_dagster.errors import shown
from position_sync_dagster.gateway import ib_async_internals, translate
from position_sync_dagster.gateway.codes import ACCOUNT_READY, GatewayCode, MessageType
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.login import Login

logger = logging.getLogger(__name__)

UNREADABLE = "a row that cannot be read"

# Number of rows that the detail of the session names; the others are counted.
NAMED = 3


def oddness(row: ib_async_internals.RowFields, accounts: Collection[str]) -> str | None:
    """Return why a row of a holding cannot be used, by its fields as sent; None for a usable one.

    ib_async reads an empty quantity of a position as 0, which would be a close (2.1.0, decoder.py).

    >>> oddness(ib_async_internals.RowFields("DU1", "7", "SPY", "OPT", "100", "nan"), {"DU1"})
    "quantity 'nan'"
    >>> oddness(ib_async_internals.RowFields("DU1", "7", "SPY", "OPT", "100", "2.0"), {"DU1"})
    """
    if row.account not in accounts:
        return "an account of another login" if row.account else "no account"
    number = translate.number_of(row.conid)
    if number is None or not number.is_integer() or int(number) not in CONIDS:
        return f"conid {shown(row.conid)}"
    if not row.symbol.strip():
        return "no symbol"
    if translate.number_of(row.quantity) is None:
        return f"quantity {shown(row.quantity)}"
    if translate.multiplier_of(row.sec_type, row.multiplier) is None:
        return f"multiplier {shown(row.multiplier)} ({row.sec_type})"
    return None


class OddRows:
    """The rows that are set aside, by account and conid, each with the reason.

    Args:
        accounts: The accounts of the login.
        on_change: Called with an account when one of its rows is set aside, or usable again.

    Attributes:
        reasons: Why the newest row of a holding cannot be used; cleared when a list begins.
    """

    def __init__(self, accounts: Collection[str], *, on_change: Callable[[str], None]) -> None:
        self.reasons: dict[Key, str] = {}
        self._accounts = accounts
        self._on_change = on_change
        self._logged: set[Key] = set()

    def accepts(self, row: ib_async_internals.RowFields) -> bool:
        """Return whether a row can be used, by its fields as sent; set it aside if not."""
        why = oddness(row, self._accounts)
        if why is not None:
            self.set_aside(row.account, row.conid, why)
        elif self.reasons and (key := key_as_sent(row.account, row.conid)) in self.reasons:
            del self.reasons[key]
            self._on_change(row.account)
        return why is None

    def set_aside(self, account: str, conid: str, reason: str = UNREADABLE) -> None:
        """Set a row aside, by its account and conid as sent."""
        key = key_as_sent(account, conid)
        self.reasons[key] = reason
        if key not in self._logged:
            self._logged.add(key)
            logger.warning("a holding (conid %s) is set aside: the gateway sent %s", key[1], reason)
        if account in self._accounts:
            self._on_change(account)

    def problem(self) -> str | None:
        """Return how many rows are set aside, with the first of them by name; None without one."""
        if not self.reasons:
            return None
        named = [
            f"conid {conid} of {account or 'no account'} ({reason})"
            for (account, conid), reason in sorted(self.reasons.items())
        ]
        noun = "holding is" if len(named) == 1 else "holdings are"
        return f"{len(named)} {noun} {SET_ASIDE}{few(named, NAMED)}"


def key_as_sent(account: str, conid: str) -> Key:
    """Return the key under which a row is set aside; 0 stands for a conid that is no number."""
    return (account, int(translate.number_of(conid) or 0))


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
# ended soon after the download. After a subscription that lasted, the first delay is zero.
AGAIN = Backoff(first_s=15.0, longest_s=300.0, jitter=(1.0, 1.2))


class AccountStanding:
    """Keeps whether the newest download of each account is whole, and the problem if it is not.

    Args:
        lasts_s: How long a subscription must last to count as a success.
        random: The jitter of the waits.
        monotonic: The clock of the waits, in seconds.
    """

    def __init__(
        self, *, lasts_s: float, random: Random, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lasts_s = lasts_s
        self._random = random
        self._monotonic = monotonic
        self._whole_since: dict[str, float] = {}
        self._problems: dict[str, str] = {}
        self._failures: Counter[str] = Counter()
        self._again_at: dict[str, float] = {}

    @property
    def overdue(self) -> list[str]:
        """Return the accounts that should be requested again now."""
        now = self._monotonic()
        return [account for account, at in self._again_at.items() if at <= now]

    @property
    def problems(self) -> list[str]:
        """Return why accounts have no current values, by account."""
        return [f"account {account}: {why}" for account, why in sorted(self._problems.items())]

    def is_whole(self, account: str | None) -> bool:
        """Return whether the newest download of an account ended and its values are current."""
        return account in self._whole_since

    def has_failed(self, account: str) -> bool:
        """Return whether the last request of an account failed."""
        return self._failures[account] > 0

    def invalidate(self) -> None:
        """Forget the state of every account: the gateway dropped every subscription."""
        self._whole_since.clear()
        self._problems.clear()
        self._again_at.clear()

    def retry_now(self) -> None:
        """Make every account overdue that waits to be requested again."""
        now = self._monotonic()
        self._again_at = dict.fromkeys(self._again_at, now)

    def begin(self, account: str) -> None:
        """Record that a download of an account begins."""
        self._whole_since.pop(account, None)

    def complete(self, account: str, *, stays_open: bool) -> None:
        """Record that a download ended whole.

        Args:
            account: The account.
            stays_open: Whether its subscription stays open; then it counts as a success only after
                `lasts_s`.
        """
        self._whole_since[account] = self._monotonic()
        self._problems.pop(account, None)
        self._again_at.pop(account, None)
        if not stays_open:
            self._failures.pop(account, None)

    def interrupt(self, account: str) -> None:
        """Make an account overdue at once: messages may have been ignored, or a download ended."""
        self._again_at[account] = self._monotonic()

    def fail(self, account: str, why: str) -> None:
        """Record that a download did not end whole."""
        self._failures[account] += 1
        self._await_again(account, why)

    def end(self, account: str, why: str) -> None:
        """Record that a subscription ended, after its download or in it."""
        whole_since = self._whole_since.pop(account, None)
        if whole_since is None:
            self.fail(account, why)
            return
        if self._monotonic() - whole_since >= self._lasts_s:
            self._failures[account] = 0
        self._await_again(account, why)
        self._failures[account] += 1

    def _await_again(self, account: str, why: str) -> None:
        delay_s = AGAIN.delay_s(self._failures[account], self._random)
        self._again_at[account] = self._monotonic() + delay_s
        self._problems[account] = why


# A download that neither ends nor falls silent is given up after this many timeouts.
LONGEST_TIMEOUTS = 4


REFUSED = "another program is subscribed to another account (code 2101)"
UNFINISHED = "its download did not end"
STOPPED = "its values stopped (code 2100)"
IB_LOST = "the gateway had lost IB"
# Why the values of an account are not whole.
NOT_READY = "IB's server is being reset (AccountReady is false)"


class AccountSubscription:
    """Subscribes to the values of one account, and matches each end of a download to its account.

    An end may come late, without the name of its account, or never (ib_insync issues/303 and /584;
    ib_async issues/72). At any end, ib_async ends the download that it waits for. Here an end
    counts for the account that it names. An end without a name counts only if it can mean just
    one account.

    Args:
        on_late_end: Called with the account of an end that came after its download was given up.
        on_stop: Called with the account when the gateway ends its subscription (code 2100).

    Attributes:
        account: The account that is subscribed; None: none is.
        heard_at: When its newest row, time or end arrived, in monotonic seconds.
    """

    def __init__(
        self, login: Login, *, on_late_end: Callable[[str], None], on_stop: Callable[[str], None]
    ) -> None:
        self.account: str | None = None
        self.heard_at = time.monotonic()
        self._ib = ib = login.ib
        self._timeout_s = login.settings.gateway_timeout_s
        self._quiet_s = login.settings.account_quiet_s
        self._on_late_end = on_late_end
        self._on_stop = on_stop
        self._active_at = self.heard_at
        self._spoke = False
        self._older_end_is_due = False
        self._ends_due: set[str] = set()
        self._own_stops = 0
        self._result: asyncio.Future[str | None] | None = None
        ib.errorEvent += self._on_error
        ib.disconnectedEvent += self.reset
        ib_async_internals.read_messages(ib, MessageType.ACCOUNT_DOWNLOAD_END, self._read_end)

    @property
    def is_awaited(self) -> bool:
        """Return whether a download is under way."""
        return self._result is not None

    async def download(self, account: str, *, impatient: bool = False) -> str | None:
        """Subscribe to an account, and wait until its download ends or falls silent.

        Args:
            impatient: Wait for the first message no longer than for the others: the account did
                not answer the last time.

        Returns:
            Why it is not whole; None for one that is.

        Raises:
            ConnectionError: There is no connection.
        """
        result = self._result = asyncio.get_running_loop().create_future()
        self.account, self._spoke = account, False
        self._older_end_is_due = account in self._ends_due
        self._ends_due.add(account)
        started = self.heard_at = self._active_at = time.monotonic()
        try:
            self._ib.client.reqAccountUpdates(True, account)
            while not result.done():
                now = time.monotonic()
                patience_s = self._quiet_s if self._spoke or impatient else self._timeout_s
                left_s = min(
                    self._active_at + patience_s - now,
                    started + LONGEST_TIMEOUTS * self._timeout_s - now,
                )
                if left_s <= 0:
                    return UNFINISHED
                # The first message makes the wait shorter.
                await asyncio.wait({result}, timeout=min(left_s, self._quiet_s))
            why: str | None = result.result()
            return why
        finally:
            self._result = None

    def stop(self) -> None:
        """End the subscription: the gateway serves one account at a time."""
        account, self.account = self.account, None
        if account is not None and self._ib.isConnected():
            self._own_stops += 1
            with suppress(ConnectionError):
                self._ib.client.reqAccountUpdates(False, account)

    def reset(self) -> None:
        """Forget the subscription: the gateway dropped it."""
        self.account, self._own_stops = None, 0
        self._ends_due.clear()
        self._finish(STOPPED)

    def record_message(self, account: str) -> None:
        """Record that any message of an account arrived."""
        if account == self.account:
            self._active_at, self._spoke, self._own_stops = time.monotonic(), True, 0

    def record_values(self, account: str) -> None:
        """Record that a row or a time of an account arrived."""
        self.record_message(account)
        if account == self.account:
            self.heard_at = self._active_at

    def _finish(self, why: str | None) -> bool:
        waiting = self._result
        if waiting is None or waiting.done():
            return False
        waiting.set_result(why)
        return True

    def _read_end(self, fields: list[str]) -> bool:
        account = fields[2] if len(fields) > 2 else ""
        if not account and len(self._ends_due) == 1:
            (account,) = self._ends_due
        if account not in self._ends_due:
            return True
        current = account == self.account
        if current and self._result and not self._spoke and self._older_end_is_due:
            # It is the late end of the download before: no message of this one has arrived yet.
            self._older_end_is_due = False
        else:
            self._ends_due.discard(account)
            self.record_values(account)
            if not (current and self._finish(None)):
                self._on_late_end(account)
        return True

    def _on_error(self, _request: int, code: int, _text: str, _contract: object) -> None:
        if code == GatewayCode.ACCOUNT_NOT_SERVED and self._result is not None:
            if self.account is not None:
                self._ends_due.discard(self.account)
            self.account = None
            self._finish(REFUSED)
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED:
            if self._own_stops:
                self._own_stops -= 1
                return
            account, self.account = self.account, None
            if account is not None and not self._finish(STOPPED):
                self._on_stop(account)


class PortfolioDownloads:
    """Brings the portfolio values of the accounts into the book of holdings, and confirms them.

    The end of a download confirms its account; so does each later row or time of a subscription
    that stays open, which only a login with one account has. A holding of which the download has no
    row is not confirmed: rows and times come from different parts of a gateway. For that reason a
    subscription whose rows are silent for two intervals is requested anew.

    Args:
        book: Gets the values.
        on_change: Called with an account when its values become whole, or stop being whole.

    Attributes:
        ended: When the newest download of each account ended, also if the gateway refused it.
        account_time: The newest time of day that came with values; empty until one came.
        standing: Whether the newest download of each account is whole.
    """

    def __init__(
        self, login: Login, book: HoldingsBook, *, on_change: Callable[[str], None]
    ) -> None:
        self.ended: dict[str, datetime] = {}
        self.account_time = ""
        self._login, self._book = login, book
        self._silence_s = 2 * login.settings.account_interval_s
        self._only_one = len(login.accounts) == 1
        self._on_change = on_change
        self._connectivity = login.connectivity
        self._last_row: Key | None = None
        self._times: dict[Key, str] = {}
        self._subscription = AccountSubscription(
            login, on_late_end=self._on_late_end, on_stop=self._on_stop
        )
        self.standing = AccountStanding(
            lasts_s=login.settings.account_interval_s,
            random=Random(),  # noqa: S311 - jitter of a delay
        )
        self._heard: dict[str, datetime] = {}
        self._requested: dict[str, datetime] = {}
        self._row_at = -math.inf
        self._interruptions: dict[str, int] = {}
        self._spoiled: dict[str, str] = {}
        login.ib.accountValueEvent += self._on_account_value
        ib_async_internals.read_messages(login.ib, MessageType.ACCOUNT_TIME, self._read_time)

    @property
    def follows(self) -> bool:
        """Return whether an open subscription keeps the values of the login current."""
        return self.standing.is_whole(self._subscription.account)

    def invalidate(self) -> None:
        """Forget every subscription: the gateway dropped them."""
        self.ended.clear()
        self.standing.invalidate()
        self._subscription.reset()

    def restored(self) -> None:
        """Make missing values due, and those of an open subscription: it may lack changes."""
        account = self._subscription.account
        if account is not None and self.standing.is_whole(account):
            self.standing.begin(account)
            self.standing.interrupt(account)
            self._on_change(account)
        self.standing.retry_now()

    def is_ready(self, account: str) -> bool:
        """Return whether IB calls the values of an account valid, as far as it has said so."""
        return self._spoiled.get(account) != NOT_READY

    def put_row(self, row: translate.PortfolioRow) -> None:
        """Merge a portfolio row."""
        self._row_at = time.monotonic()
        self._last_row = row.key
        self._book.put_portfolio(*row)
        self._hear(row.key[0])

    def _read_time(self, fields: list[str]) -> bool:
        """Read an account time, which is the only time of the values: that of the row before it."""
        self.account_time = fields[-1]
        key, self._last_row = self._last_row, None
        if key is not None and self._subscription.account is not None:
            self._times[key] = self.account_time
            if not self._subscription.is_awaited:
                self._date_rows()
        if self._subscription.account is not None:
            self._hear(self._subscription.account)
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

    async def download(self, accounts: Iterable[str]) -> None:
        """Download the accounts, first those that answered the last time.

        Raises:
            GatewayLostError: The connection ended.
        """
        for account in sorted(accounts, key=self.standing.has_failed):
            await self._download(account)

    def check_silence(self) -> None:
        """End a subscription that has been silent for two intervals, or whose rows have been."""
        account, silent_since = self._subscription.account, time.monotonic() - self._silence_s
        if account is None or not self.standing.is_whole(account):
            return
        if self._subscription.heard_at <= silent_since:
            self._subscription.account = None
            self.standing.end(account, f"its values have not come for {self._silence_s:g} s")
            self._on_change(account)
        elif self._row_at <= silent_since and self._book.open_in(account):
            self._subscription.stop()
            self.standing.interrupt(account)

    async def _download(self, account: str) -> None:
        interruptions = self._interruptions[account] = self._connectivity.interruptions
        self._requested[account], self._row_at = utc_now(), time.monotonic()
        self._last_row = None
        self._times.clear()
        self._spoiled.pop(account, None)
        self.standing.begin(account)
        try:
            why = await self._subscription.download(
                account, impatient=self.standing.has_failed(account)
            )
        except ConnectionError as error:
            raise self._login.lost(f"the values of account {account}") from error
        except asyncio.CancelledError:
            self.standing.interrupt(account)
            self._on_change(account)
            raise
        finally:
            self.ended[account] = utc_now()
        if not self._login.ib.isConnected():
            raise self._login.lost(f"the values of account {account}")
        uninterrupted = interruptions == self._connectivity.interruptions
        why = self._spoiled.get(account, why)
        if why is None and self._connectivity.lost is None and uninterrupted:
            self._date_rows()
            self._complete(account)
        else:
            self.standing.fail(account, why or IB_LOST)
            self._on_change(account)
        if not self._only_one:
            self._subscription.stop()

    def _complete(self, account: str, at: datetime | None = None) -> None:
        """Record that the download of an account ended whole, and what it confirms."""
        self.standing.complete(account, stays_open=self._only_one)
        self._book.doubt_before(account, self._requested[account])
        self._book.confirmed.confirm(account, at)
        self._on_change(account)

    def _on_late_end(self, account: str) -> None:
        """Count an end that came late: what came before it was whole, unless IB was lost since."""
        interrupted = self._interruptions.get(account) != self._connectivity.interruptions
        if interrupted or account in self._spoiled:
            return
        at = None if account == self._subscription.account else self._heard.get(account)
        if self._connectivity.lost is None and account in self._heard:
            self._complete(account, at)

    def _on_stop(self, account: str) -> None:
        self.standing.end(account, STOPPED)
        self._on_change(account)

    def miss_row(self) -> None:
        """Record that a row of the subscribed account cannot be read, not even which one it is."""
        if self._subscription.account is not None:
            self._spoil(self._subscription.account, UNREADABLE)

    def _spoil(self, account: str, why: str) -> None:
        """Record that what came of an account since its request is not whole."""
        self._spoiled[account] = why
        if self.standing.is_whole(account):
            self.standing.end(account, why)
            self._on_change(account)

    def _on_account_value(self, value: AccountValue) -> None:
        if value.tag == ACCOUNT_READY and value.value == "false":
            self._spoil(value.account, NOT_READY)
        elif value.tag == ACCOUNT_READY and not self.is_ready(value.account):
            self.standing.interrupt(value.account)
        self._subscription.record_message(value.account)
        self._heard[value.account] = utc_now()

    def _hear(self, account: str) -> None:
        """Record a row or a time of an account, which confirms it once its download ended."""
        self._heard[account] = utc_now()
        self._subscription.record_values(account)
        if account == self._subscription.account and self.standing.is_whole(account):
            self._book.confirmed.confirm(account)
