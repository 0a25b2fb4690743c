"""The values of the accounts: downloaded one account after the other, then followed by events."""

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from random import Random

from ib_async import IB, AccountValue

from position_sync_dagster.domain.clock import Clock
from position_sync_dagster.errors import GatewayLostError
from position_sync_dagster.gateway.accounts.account_standing import AccountStanding
from position_sync_dagster.gateway.accounts.account_subscription import (
    AccountSubscription,
    DownloadResult,
)
from position_sync_dagster.gateway.accounts.account_time import RowTimes
from position_sync_dagster.gateway.accounts.holdings import HoldingsBook
from position_sync_dagster.gateway.accounts.portfolio_rows import PortfolioRow
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.settings import Settings

WHY_INCOMPLETE = {
    DownloadResult.REFUSED: "another program is subscribed to another account (code 2101)",
    DownloadResult.UNFINISHED: "its download did not end",
    DownloadResult.STOPPED: "its values stopped (code 2100)",
}

ACCOUNT_TIME = MessageType.ACCOUNT_TIME.start
"""So an account time begins; ib_async drops these messages."""


class AccountValues:
    """Brings the portfolio values of the accounts into the book of holdings, and confirms them.

    The end of a download confirms its account; so does each later row or time of a subscription
    that stays open, which only a login with one account has.

    Args:
        accounts: The accounts of the login.
        on_change: Called with an account whose values became whole, or are whole no more.

    Attributes:
        downloaded: The accounts of which a download ended, served or not.
        ended: When the newest download of each account ended.
        account_time: The newest time of day that came with values; empty until one came.
    """

    def __init__(
        self,
        ib: IB,
        book: HoldingsBook,
        *,
        settings: Settings,
        accounts: tuple[str, ...],
        on_change: Callable[[str], None],
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self.downloaded: set[str] = set()
        self.ended: dict[str, datetime] = {}
        self.account_time = ""
        self._ib = ib
        self._book = book
        self._gateway_id = settings.gateway_id
        self._silence_s = 2 * settings.account_interval_s
        self._only_one = len(accounts) == 1
        self._on_change = on_change
        self._clock = clock
        self._monotonic = monotonic
        self._times = RowTimes(book.set_value_time, clock=clock)
        self._subscription = AccountSubscription(
            ib,
            settings=settings,
            on_late_end=self._on_late_end,
            on_stop=self._on_stop,
            monotonic=monotonic,
        )
        self._standing = AccountStanding(
            lasts_s=settings.account_interval_s,
            random=random or Random(),  # noqa: S311 - jitter of a delay
            monotonic=monotonic,
        )
        self._interruptions = 0
        self._heard: dict[str, datetime] = {}
        ib.accountValueEvent += self._on_account_value

    @property
    def overdue(self) -> list[str]:
        """Return the accounts that should be requested again now: their values do not arrive."""
        return self._standing.overdue

    @property
    def problems(self) -> list[str]:
        """Return why accounts have no current values, by account."""
        return self._standing.problems

    @property
    def follows(self) -> bool:
        """Return whether an open subscription keeps the values of the login current."""
        return self._standing.is_whole(self._subscription.account)

    def is_whole(self, account: str) -> bool:
        """Return whether the newest download of an account ended, and nothing ended it since."""
        return self._standing.is_whole(account)

    def request(self, accounts: Iterable[str]) -> None:
        """Make accounts overdue at once: what came of them lately may not have counted."""
        for account in accounts:
            self._standing.interrupt(account)

    def set_online(self, online: bool) -> None:
        """Record that the gateway lost IB, or has it again: what is missing is due then."""
        self._book.set_online(online)
        if online:
            self._standing.retry_now()
        else:
            self._interruptions += 1

    def invalidate(self) -> None:
        """Forget every subscription: the gateway dropped them."""
        self._interruptions += 1
        self.downloaded.clear()
        self._standing.invalidate()
        self._subscription.reset()

    def put_row(self, row: PortfolioRow) -> None:
        """Merge a portfolio row."""
        self._times.on_row(row.key)
        self._book.put_portfolio(*row)
        self._hear(row.key[0])

    def read_time(self, message: bytes) -> bool:
        """Read a message as sent if it is an account time, which is the only time of the values."""
        if not message.startswith(ACCOUNT_TIME):
            return False
        self.account_time = message.split(b"\0")[-2].decode(errors="backslashreplace")
        self._times.on_time(self.account_time)
        if self._subscription.account is not None:
            self._hear(self._subscription.account)
        return True

    async def download(self, accounts: Iterable[str]) -> None:
        """Download the accounts, first those that answered the last time.

        Raises:
            GatewayLostError: The connection ended.
        """
        for account in sorted(accounts, key=self._standing.has_failed):
            await self._download(account)

    def check_silence(self) -> None:
        """End a subscription that has been silent for two intervals."""
        account = self._subscription.account
        silent_s = self._monotonic() - self._subscription.heard_at
        if account is not None and self._standing.is_whole(account) and silent_s >= self._silence_s:
            self._subscription.account = None
            self._standing.end(account, f"its values have not come for {self._silence_s:g} s")
            self._on_change(account)

    async def _download(self, account: str) -> None:
        interruptions = self._interruptions
        self._times.start()
        self._standing.begin(account)
        try:
            result = await self._subscription.download(
                account, impatient=self._standing.has_failed(account)
            )
        except ConnectionError as error:
            raise self._lost(account) from error
        except asyncio.CancelledError:
            self._standing.interrupt(account)
            self._on_change(account)
            raise
        finally:
            self._times.follow()
            self.downloaded.add(account)
            self.ended[account] = self._clock()
        if not self._ib.isConnected():
            raise self._lost(account)
        online = self._book.confirmed.online and interruptions == self._interruptions
        if result is DownloadResult.WHOLE and online:
            self._times.date_rows()
            self._complete(account)
        else:
            why = WHY_INCOMPLETE.get(result, "the gateway had lost IB")
            self._standing.fail(account, why)
            self._on_change(account)
        if not self._only_one:
            self._times.stop()
            self._subscription.stop()

    def _lost(self, account: str) -> GatewayLostError:
        return GatewayLostError(
            f"The connection to {self._gateway_id} ended while the values of account {account} "
            "were awaited.",
            remedy="It is tried again.",
        )

    def _complete(self, account: str, at: datetime | None = None) -> None:
        """Record that the download of an account ended whole, and what it confirms."""
        self._standing.complete(account, stays_open=self._only_one)
        self._book.confirmed.confirm(account, at)
        self._on_change(account)

    def _on_late_end(self, account: str) -> None:
        """Count an end that came late: what came before it was whole."""
        at = None if account == self._subscription.account else self._heard.get(account)
        if self._book.confirmed.online and account in self._heard:
            self._complete(account, at)

    def _on_stop(self, account: str) -> None:
        self._standing.end(account, WHY_INCOMPLETE[DownloadResult.STOPPED])
        self._on_change(account)

    def _on_account_value(self, value: AccountValue) -> None:
        self._subscription.is_active(value.account)
        self._heard[value.account] = self._clock()

    def _hear(self, account: str) -> None:
        """Record a row or a time of an account, which confirms it once its download ended."""
        self._heard[account] = self._clock()
        self._subscription.is_heard(account)
        if account == self._subscription.account and self._standing.is_whole(account):
            self._book.confirmed.confirm(account)
