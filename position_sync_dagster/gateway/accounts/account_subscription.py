"""The subscription to the values of one account at a time, and the ends of its downloads."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum

from ib_async import IB

from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.gateway.ib_async_internals.holdings import on_download_end
from position_sync_dagster.settings import Settings

LONGEST_TIMEOUTS = 4
"""A download that never falls silent and never ends is given up after so many timeouts."""


class DownloadResult(StrEnum):
    """How the download of an account ended."""

    WHOLE = "WHOLE"
    REFUSED = "REFUSED"
    UNFINISHED = "UNFINISHED"
    STOPPED = "STOPPED"


class AccountSubscription:
    """Subscribes to the values of one account, and matches each end of a download to its account.

    An end may come late, without the name of its account, or never (ib_insync issues/303 and /584;
    ib_async issues/72). ib_async ends whatever download it waits for at any of them. Here an end
    counts for the account that it names. An end without a name counts where only one account can
    be meant.

    Args:
        on_late_end: Called with the account of an end that came after its download was given up.
        on_stop: Called with the account when the gateway ends its subscription (code 2100).

    Attributes:
        account: The account that is subscribed; None: none is.
        heard_at: When its newest row, time or end arrived, in monotonic seconds.
    """

    def __init__(
        self,
        ib: IB,
        *,
        settings: Settings,
        on_late_end: Callable[[str], None],
        on_stop: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.account: str | None = None
        self.heard_at = monotonic()
        self._ib = ib
        self._timeout_s = settings.gateway_timeout_s
        self._quiet_s = settings.account_quiet_s
        self._on_late_end = on_late_end
        self._on_stop = on_stop
        self._monotonic = monotonic
        self._active_at = self.heard_at
        self._spoke = False
        self._older_end_is_due = False
        self._ends_due: set[str] = set()
        self._own_stops = 0
        self._result: asyncio.Future[DownloadResult] | None = None
        ib.errorEvent += self._on_error
        ib.disconnectedEvent += self.reset
        on_download_end(ib, self._on_end)

    async def download(self, account: str, *, impatient: bool = False) -> DownloadResult:
        """Subscribe to an account, and wait until its download ends or falls silent.

        Args:
            impatient: Wait for the first message no longer than for the others: the account did
                not answer the last time.

        Raises:
            ConnectionError: There is no connection.
        """
        result: asyncio.Future[DownloadResult] = asyncio.get_running_loop().create_future()
        self._result = result
        self.account, self._spoke = account, False
        self._older_end_is_due = account in self._ends_due
        self._ends_due.add(account)
        started = self.heard_at = self._active_at = self._monotonic()
        try:
            self._ib.client.reqAccountUpdates(True, account)
            while not result.done():
                now = self._monotonic()
                patience_s = self._quiet_s if self._spoke or impatient else self._timeout_s
                left_s = min(
                    self._active_at + patience_s - now,
                    started + LONGEST_TIMEOUTS * self._timeout_s - now,
                )
                if left_s <= 0:
                    return DownloadResult.UNFINISHED
                # The first message makes the wait shorter.
                await asyncio.wait({result}, timeout=min(left_s, self._quiet_s))
            return result.result()
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
        self._finish(DownloadResult.STOPPED)

    def is_active(self, account: str) -> None:
        """Record that any message of an account arrived."""
        if account == self.account:
            self._active_at, self._spoke, self._own_stops = self._monotonic(), True, 0

    def is_heard(self, account: str) -> None:
        """Record that a row or a time of an account arrived."""
        self.is_active(account)
        if account == self.account:
            self.heard_at = self._active_at

    def _finish(self, result: DownloadResult) -> bool:
        waiting = self._result
        if waiting is None or waiting.done():
            return False
        waiting.set_result(result)
        return True

    def _on_end(self, account: str) -> None:
        if not account and len(self._ends_due) == 1:
            (account,) = self._ends_due
        if account not in self._ends_due:
            return
        current = account == self.account
        if current and self._result is not None and not self._spoke and self._older_end_is_due:
            # It ends the download before this one: nothing of this one has arrived.
            self._older_end_is_due = False
            return
        self._ends_due.discard(account)
        if current:
            self.is_heard(account)
        if not (current and self._finish(DownloadResult.WHOLE)):
            self._on_late_end(account)

    def _on_error(self, _request: int, code: int, _text: str, _contract: object) -> None:
        if code == GatewayCode.ACCOUNT_NOT_SERVED and self._result is not None:
            if self.account is not None:
                self._ends_due.discard(self.account)
            self.account = None
            self._finish(DownloadResult.REFUSED)
        elif code == GatewayCode.ACCOUNT_UNSUBSCRIBED:
            if self._own_stops:
                self._own_stops -= 1
                return
            account, self.account = self.account, None
            if account is not None and not self._finish(DownloadResult.STOPPED):
                self._on_stop(account)
