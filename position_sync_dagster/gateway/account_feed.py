"""The account feed: requests positions first, then the values of one account after the other."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from ib_async import IB, PortfolioItem, Position

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.errors import (
    GatewayLostError,
    GatewayTimeoutError,
    TooManyAccountsError,
)
from position_sync_dagster.gateway.account_time import RowTimes
from position_sync_dagster.gateway.changes import PendingChanges
from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.gateway.holdings import HoldingsBook
from position_sync_dagster.gateway.ib_async_internals import on_account_time
from position_sync_dagster.gateway.translate import portfolio_of, position_of
from position_sync_dagster.settings import Settings

MAX_ACCOUNTS = 50
"""`reqPositions` is not served above. Source: IB, "Requesting Positions"."""


class AccountFeed:
    """Keeps every holding of the login as the broker last reported it.

    `snapshot()` requests all positions. `download()` requests the accounts' portfolio values,
    strictly one account after the other: the gateway serves one account at a time to all its
    clients. Afterwards events keep the book current. A holding that vanishes stays, with a
    position of 0.0; a failed request closes nothing.

    Attributes:
        book: The holdings.
        accounts: The accounts of the login.
        snapshot_at: When the newest list of positions arrived whole; None: none is valid.
        downloaded_at: When the newest download of every account ended; None: none is valid.
        downloaded: The accounts of which a download ended, served or not.
    """

    def __init__(
        self, ib: IB, *, settings: Settings, accounts: tuple[str, ...], clock: Clock = utc_now
    ) -> None:
        self.book = HoldingsBook(settings.gateway_id, accounts, clock=clock)
        self.accounts = accounts
        self.snapshot_at: datetime | None = None
        self.downloaded_at: datetime | None = None
        self.downloaded: set[str] = set()
        self._ib = ib
        self._settings = settings
        self._clock = clock
        self._refused: asyncio.Future[None] | None = None
        self._times = RowTimes(self.book.set_value_time, clock=clock)
        self._download_ended: dict[str, datetime] = {}
        self._requesting = asyncio.Lock()
        self._ensuring = asyncio.Lock()
        ib.positionEvent += self._on_position
        ib.updatePortfolioEvent += self._on_portfolio
        ib.errorEvent += self._on_error
        on_account_time(ib, lambda fields: self._times.on_time(fields[-1]))

    @property
    def holdings(self) -> tuple[BrokerPosition, ...]:
        """Return every holding, closed ones with a position of 0.0."""
        return self.book.holdings

    @property
    def completeness(self) -> dict[str, Completeness]:
        """Return how much of each account the broker has confirmed."""
        return self.book.completeness

    @property
    def is_complete(self) -> bool:
        """Return whether the positions and the values of every account arrived whole."""
        return self.book.is_complete

    def get(self, key: Key) -> BrokerPosition | None:
        """Return one holding."""
        return self.book.get(key)

    def watch(self) -> PendingChanges[Key, datetime]:
        """Collect from now on which holdings change, and when; a changed quantity is urgent."""
        return self.book.watch()

    def remember(self, holdings: Iterable[BrokerPosition]) -> None:
        """Add what an earlier connection knew, so that a close in the meantime is noticed."""
        self.book.remember(holdings)

    def invalidate(self) -> None:
        """Mark all that is known as old: the gateway dropped every subscription."""
        self.snapshot_at = self.downloaded_at = None
        self.downloaded.clear()
        self.book.invalidate()

    async def snapshot(self) -> None:
        """Request every position; only a list that ends with its end message counts.

        Raises:
            TooManyAccountsError: The login has more accounts than the gateway serves.
            GatewayTimeoutError: No end message came; nothing was changed.
            GatewayLostError: The connection ended; nothing was changed.
        """
        if len(self.accounts) > MAX_ACCOUNTS:
            raise TooManyAccountsError(
                f"The login has {len(self.accounts)} accounts; the gateway serves positions "
                f"for up to {MAX_ACCOUNTS}.",
                remedy="Use a login that sees fewer accounts.",
            )
        async with self._requesting:
            rows = await self._request(self._ib.reqPositionsAsync, "the positions")
            self.book.snapshot_id = str(uuid4())
            self.snapshot_at = self._clock()
            reported = set()
            for row in rows:
                account, instrument, position, cost = position_of(row)
                reported.add((account, instrument.conid))
                self.book.put_position(account, instrument, position, cost)
            self.book.close_absent(reported)
            for account in self.accounts:
                if self.completeness[account] is Completeness.UNKNOWN:
                    self.book.set_completeness(account, Completeness.PARTIAL)

    async def download(self, accounts: Iterable[str] | None = None) -> None:
        """Download the portfolio values of the accounts, one after the other.

        An account that the gateway does not serve (2101, or no end in time) stays PARTIAL. With
        one account the subscription stays open and keeps the values current.

        Args:
            accounts: By default every account of the login.

        Raises:
            GatewayLostError: The connection ended.
        """
        async with self._requesting:
            for account in self.accounts if accounts is None else accounts:
                await self._download_account(account)
            if accounts is None:
                self.downloaded_at = self._clock()

    async def ensure(self, max_age: timedelta) -> None:
        """Request what is missing for a snapshot and values no older than `max_age`.

        With one account the open subscription keeps the values current by itself.

        Raises:
            GatewayError: As `snapshot` and `download`.
        """
        async with self._ensuring:
            if self.snapshot_at is None:
                await self.snapshot()
            if self._downloaded_within(max_age):
                return
            if self.is_complete and len(self.accounts) == 1 and self._ib.isConnected():
                self.downloaded_at = self._clock()
                self.book.set_completeness(self.accounts[0], Completeness.COMPLETE)
            else:
                await self.download()

    def unsubscribed(self, changed: Iterable[Key]) -> set[str]:
        """Return the accounts of these holdings whose new values no open subscription brings."""
        if len(self.accounts) == 1:
            return set()
        return {
            holding.account
            for key in changed
            if (holding := self.get(key)) is not None
            and holding.position
            and holding.market_value is None
            and holding.position_time
            > self._download_ended.get(holding.account, holding.position_time)
        }

    def _downloaded_within(self, max_age: timedelta) -> bool:
        # A download in the future was before the clock was set back: its age is unknown.
        downloaded_at = self.downloaded_at
        return downloaded_at is not None and timedelta() <= self._clock() - downloaded_at <= max_age

    async def _download_account(self, account: str) -> None:
        refused = self._refused = asyncio.get_running_loop().create_future()
        self._times.start()
        try:
            await self._request(
                partial(self._ib.reqAccountUpdatesAsync, account),
                f"the values of account {account}",
                refused=refused,
            )
            self._times.date_rows()
            self.book.set_completeness(account, Completeness.COMPLETE)
        except GatewayTimeoutError:
            self.book.set_completeness(account, Completeness.PARTIAL)
        finally:
            self._refused = None
            self._times.follow()
            self.downloaded.add(account)
            self._download_ended[account] = self._clock()
        if len(self.accounts) > 1:
            self._times.stop()
            with suppress(ConnectionError):
                self._ib.client.reqAccountUpdates(False, account)

    async def _request(
        self,
        send: Callable[[], Awaitable[Any]],
        what: str,
        *,
        refused: asyncio.Future[None] | None = None,
    ) -> Any:
        """Send a request and wait for its answer, with a bound.

        ib_async itself waits for ever for an answer that the gateway refused.
        """
        try:
            answer = asyncio.ensure_future(send())
        except ConnectionError as error:
            raise self._lost(what) from error
        try:
            await asyncio.wait(
                {answer, refused} if refused else {answer},
                timeout=self._settings.gateway_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                return answer.result()
        except ConnectionError as error:
            raise self._lost(what) from error
        finally:
            answer.cancel()
        if not self._ib.isConnected():
            raise self._lost(what)
        raise GatewayTimeoutError(
            f"The gateway at {self._settings.gateway_id} did not give {what} whole.",
            remedy="See whether another program holds an account subscription (code 2101), or "
            "raise POSITION_SYNC_GATEWAY_TIMEOUT_S.",
        )

    def _lost(self, what: str) -> GatewayLostError:
        return GatewayLostError(
            f"The connection to {self._settings.gateway_id} ended while {what} was awaited.",
            remedy="It is tried again.",
        )

    def _on_error(self, _request: int, code: int, _text: str, _contract: object) -> None:
        refused = self._refused
        if code == GatewayCode.ACCOUNT_NOT_SERVED and refused is not None and not refused.done():
            refused.set_result(None)

    def _on_position(self, row: Position) -> None:
        self.book.put_position(*position_of(row))

    def _on_portfolio(self, item: PortfolioItem) -> None:
        account, instrument, values = portfolio_of(item)
        self._times.on_row((account, instrument.conid))
        self.book.put_portfolio(account, instrument, float(item.position), values)
