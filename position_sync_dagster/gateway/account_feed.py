"""The account feed: what the broker says of every holding, positions first, then values."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any
from uuid import uuid4

from ib_async import IB, PortfolioItem, Position

from position_sync_dagster.domain.broker_position import BrokerPosition, Completeness
from position_sync_dagster.domain.clock import Clock, utc_now
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.domain.routing import Key
from position_sync_dagster.domain.update import ValueOrigin
from position_sync_dagster.errors import (
    GatewayLostError,
    GatewayTimeoutError,
    TooManyAccountsError,
)
from position_sync_dagster.gateway.account_time import moment_of
from position_sync_dagster.gateway.changes import ChangeNotifier, PendingChanges
from position_sync_dagster.gateway.codes import GatewayCode
from position_sync_dagster.gateway.ib_async_internals import on_account_time
from position_sync_dagster.gateway.translate import portfolio_of, position_of
from position_sync_dagster.settings import Settings

MAX_ACCOUNTS = 50
"""`reqPositions` is not served above. Source: IB, "Requesting Positions"."""

ZONE_TRUST = timedelta(minutes=10)
"""The last time message of a download, and the one after a row that comes later by itself, is
about now, if we read it in the right zone."""


@dataclass(slots=True)
class _Download:
    """One account being downloaded."""

    refused: asyncio.Future[None]
    last_key: Key | None = None
    times: dict[Key, str] | None = None
    closing_time: str = ""


class AccountFeed:
    """Keep every holding of the login as the broker last told it.

    `snapshot()` asks for all positions, `download()` for the accounts' portfolio values, strictly
    one account after the other, since the gateway serves one account at a time to all its
    clients. Afterwards events keep it current. Rows of holdings that vanish stay, with a
    position of 0.0; nothing vanishes by a failed request.
    """

    def __init__(
        self, ib: IB, *, settings: Settings, accounts: tuple[str, ...], clock: Clock = utc_now
    ) -> None:
        self._ib = ib
        self._settings = settings
        self._clock = clock
        self._current: _Download | None = None
        self._guard = asyncio.Lock()
        self._ensuring = asyncio.Lock()
        self._holdings: dict[Key, BrokerPosition] = {}
        self._watches: ChangeNotifier[Key, datetime] = ChangeNotifier()
        self.accounts = accounts
        self.snapshot_id = ""
        self.snapshot_at: datetime | None = None
        self.downloaded_at: datetime | None = None
        self.downloaded: set[str] = set()
        self._confirmed: dict[str, datetime] = {}
        self._download_ended: dict[str, datetime] = {}
        self.completeness: dict[str, Completeness] = dict.fromkeys(accounts, Completeness.UNKNOWN)
        ib.positionEvent += self._on_position
        ib.updatePortfolioEvent += self._on_portfolio
        ib.errorEvent += self._on_error
        on_account_time(ib, self._on_account_time)

    @property
    def holdings(self) -> tuple[BrokerPosition, ...]:
        """Give every holding, closed ones with a position of 0.0."""
        return tuple(self._holdings.values())

    @property
    def is_complete(self) -> bool:
        """Tell whether positions and values of every account came whole."""
        return bool(self.completeness) and all(
            c is Completeness.COMPLETE for c in self.completeness.values()
        )

    def get(self, key: Key) -> BrokerPosition | None:
        """Give one holding."""
        return self._holdings.get(key)

    def watch(self) -> PendingChanges[Key, datetime]:
        """Watch which holdings change, and when; a changed quantity is urgent."""
        return self._watches.new()

    def remember(self, holdings: Iterable[BrokerPosition]) -> None:
        """Take what an earlier session knew, so that a holding closed meanwhile is seen."""
        for holding in holdings:
            self._holdings.setdefault(
                holding.key,
                replace(holding, completeness=Completeness.UNKNOWN, confirmed_at=None),
            )

    def invalidate(self) -> None:
        """Note that the gateway dropped every subscription: what is known is old from now on."""
        self.snapshot_at = self.downloaded_at = None
        self.downloaded.clear()
        for account in self.accounts:
            self._confirmed.pop(account, None)
            self._settle(account, Completeness.UNKNOWN)

    async def snapshot(self) -> None:
        """Ask for every position; only a list that ends with its end message counts.

        Raises:
            TooManyAccountsError: The login has more accounts than the gateway serves.
            GatewayTimeoutError, GatewayLostError: No end came; nothing was changed.
        """
        if len(self.accounts) > MAX_ACCOUNTS:
            raise TooManyAccountsError(
                f"The login has {len(self.accounts)} accounts; the gateway serves positions "
                f"for up to {MAX_ACCOUNTS}.",
                remedy="Use a login that sees fewer accounts.",
            )
        async with self._guard:
            rows = await self._answer(self._ib.reqPositionsAsync, "the positions")
            self.snapshot_id = str(uuid4())
            self.snapshot_at = self._clock()
            told = set()
            for row in rows:
                account, instrument, position, cost = position_of(row)
                told.add((account, instrument.conid))
                self._put_position(account, instrument, position, cost)
            for key, holding in list(self._holdings.items()):
                if key not in told and holding.position:
                    self._close(holding)
            for account in self.accounts:
                if self.completeness[account] is Completeness.UNKNOWN:
                    self._settle(account, Completeness.PARTIAL)

    async def download(self, accounts: Iterable[str] | None = None) -> None:
        """Download the portfolio values of the accounts, one after the other.

        An account that the gateway does not serve (2101, or no end in time) stays PARTIAL. With
        one account the subscription stays open and keeps the values current.

        Raises:
            GatewayLostError: The connection ended.
        """
        async with self._guard:
            for account in self.accounts if accounts is None else accounts:
                await self._download_account(account)
            if accounts is None:
                self.downloaded_at = self._clock()

    async def ensure(self, max_age: timedelta) -> None:
        """Have a snapshot and values no older than `max_age`, asking only for what is missing.

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
                self._settle(self.accounts[0], Completeness.COMPLETE)
            else:
                await self.download()

    def _downloaded_within(self, max_age: timedelta) -> bool:
        # A download that lies ahead was before the clock was set back: nobody knows how long ago.
        downloaded_at = self.downloaded_at
        return downloaded_at is not None and timedelta() <= self._clock() - downloaded_at <= max_age

    def unsubscribed(self, changed: Iterable[Key]) -> set[str]:
        """Give the accounts of which the values of these changes come by no open subscription."""
        if len(self.accounts) == 1:
            return set()
        holdings = (self._holdings[key] for key in changed if key in self._holdings)
        return {
            h.account
            for h in holdings
            if h.position
            and h.market_value is None
            and h.position_time > self._download_ended.get(h.account, h.position_time)
        }

    async def _download_account(self, account: str) -> None:
        download = self._current = _Download(asyncio.get_running_loop().create_future(), times={})
        what = f"the values of account {account}"
        try:
            await self._answer(
                partial(self._ib.reqAccountUpdatesAsync, account), what, refused=download.refused
            )
            self._apply_times(download)
            self._settle(account, Completeness.COMPLETE)
        except GatewayTimeoutError:
            self._settle(account, Completeness.PARTIAL)
        finally:
            download.times = None
            self.downloaded.add(account)
            self._download_ended[account] = self._clock()
        if len(self.accounts) > 1:
            self._current = None
            with suppress(ConnectionError):
                self._ib.client.reqAccountUpdates(False, account)

    async def _answer(
        self,
        ask: Callable[[], Awaitable[Any]],
        what: str,
        *,
        refused: asyncio.Future[None] | None = None,
    ) -> Any:
        """Ask, with a bound on the answer; ib_async itself waits for ever for a refused one."""
        try:
            future = asyncio.ensure_future(ask())
        except ConnectionError as error:
            raise self._lost(what) from error
        try:
            await asyncio.wait(
                {future, refused} if refused else {future},
                timeout=self._settings.gateway_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if future.done():
                return future.result()
        except ConnectionError as error:
            raise self._lost(what) from error
        finally:
            future.cancel()
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

    def put_pnl(
        self,
        key: Key,
        *,
        position: float,
        market_value: float,
        unrealized_pnl: float | None,
        realized_pnl: float | None,
        daily_pnl: float | None,
    ) -> bool:
        """Take the values of a PnLSingle subscription; tell whether they fit the holding."""
        holding = self._holdings.get(key)
        if holding is None or holding.position != position or not position:
            return False
        self._holdings[key] = replace(
            holding,
            market_price=None,
            market_value=market_value,
            unrealized_pnl=unrealized_pnl,
            realized_pnl=realized_pnl,
            daily_pnl=daily_pnl,
            value_source=ValueOrigin.PNL_SINGLE,
            value_time=None,
            received_at=self._clock(),
        )
        return True

    def forget_pnl(self, key: Key) -> None:
        """Drop the daily profit of a holding whose PnLSingle subscription ended: it would stay."""
        holding = self._holdings.get(key)
        if holding is not None and holding.daily_pnl is not None:
            self._holdings[key] = replace(holding, daily_pnl=None)

    def _on_error(self, _request: int, code: int, _text: str, _contract: object) -> None:
        download = self._current
        if (
            code == GatewayCode.ACCOUNT_NOT_SERVED
            and download is not None
            and not download.refused.done()
        ):
            download.refused.set_result(None)

    def _on_position(self, row: Position) -> None:
        account, instrument, position, cost = position_of(row)
        self._put_position(account, instrument, position, cost)

    def _on_portfolio(self, item: PortfolioItem) -> None:
        account, instrument, values = portfolio_of(item)
        key = (account, instrument.conid)
        if self._current is not None:
            self._current.last_key = key
        position = float(item.position)
        before = self._holdings.get(key)
        if before is None and position == 0:
            return
        now = self._clock()
        instrument = _merged(before.instrument if before else None, instrument)
        self._store(
            BrokerPosition(
                gateway_id=self._settings.gateway_id,
                account=account,
                instrument=instrument,
                position=position,
                value_time=None,
                received_at=now,
                position_time=(
                    before.position_time if before and before.position == position else now
                ),
                snapshot_id=self.snapshot_id,
                daily_pnl=before.daily_pnl if before else None,
                value_source=(
                    ValueOrigin.NONE if values["market_value"] is None else ValueOrigin.PORTFOLIO
                ),
                **values,
            ),
        )

    def _on_account_time(self, fields: list[str]) -> None:
        """Give the time to the portfolio row before it (one follows every single row)."""
        download, text = self._current, fields[-1]
        if download is None:
            return
        if download.times is not None:
            download.closing_time = text
        if download.last_key is None:
            return
        key, download.last_key = download.last_key, None
        if download.times is not None:
            download.times[key] = text
        else:
            self._stamp(key, text, _zone_now(text, self._clock()))

    def _apply_times(self, download: _Download) -> None:
        """Date the rows of a download, if its closing time is now in our zone or in UTC."""
        zone = _zone_now(download.closing_time, self._clock())
        for key, text in (download.times or {}).items():
            self._stamp(key, text, zone)

    def _stamp(self, key: Key, text: str, zone: tzinfo | None) -> None:
        holding = self._holdings.get(key)
        if holding is not None and zone is not None:
            at = moment_of(text, now=self._clock(), zone=zone)
            self._holdings[key] = replace(holding, value_time=at)

    def _put_position(
        self, account: str, instrument: Instrument, position: float, cost: float | None
    ) -> None:
        key = (account, instrument.conid)
        before = self._holdings.get(key)
        if position == 0:
            if before is not None and before.position:
                self._close(before)
            return
        now = self._clock()
        if before is not None and before.position == position:
            self._holdings[key] = replace(
                before,
                instrument=_merged(before.instrument, instrument),
                average_cost=cost if cost is not None else before.average_cost,
                snapshot_id=self.snapshot_id,
            )
            return
        self._store(
            BrokerPosition(
                gateway_id=self._settings.gateway_id,
                account=account,
                instrument=_merged(before.instrument if before else None, instrument),
                position=position,
                average_cost=cost,
                received_at=now,
                position_time=now,
                snapshot_id=self.snapshot_id,
                completeness=self.completeness.get(account, Completeness.UNKNOWN),
            ),
        )

    def _close(self, holding: BrokerPosition) -> None:
        now = self._clock()
        self._store(
            BrokerPosition(
                gateway_id=holding.gateway_id,
                account=holding.account,
                instrument=holding.instrument,
                position=0.0,
                realized_pnl=holding.realized_pnl,
                received_at=now,
                position_time=now,
                snapshot_id=self.snapshot_id,
            ),
        )

    def _store(self, holding: BrokerPosition) -> None:
        before = self._holdings.get(holding.key)
        moved = before is None or before.position != holding.position
        self._holdings[holding.key] = self._with_completeness(holding)
        self._watches.note(holding.key, holding.received_at, urgent=moved)

    def _settle(self, account: str, completeness: Completeness) -> None:
        """Note how a walk of an account ended, in each of its rows."""
        self.completeness[account] = completeness
        if completeness is Completeness.COMPLETE:
            self._confirmed[account] = self._clock()
        for key, holding in self._holdings.items():
            if holding.account == account:
                self._holdings[key] = self._with_completeness(holding)

    def _with_completeness(self, holding: BrokerPosition) -> BrokerPosition:
        return replace(
            holding,
            completeness=self.completeness.get(holding.account, Completeness.UNKNOWN),
            confirmed_at=self._confirmed.get(holding.account),
        )


def _zone_now(text: str, now: datetime) -> tzinfo | None:
    """Give the zone, ours or UTC, in which clocks show `text` about now.

    It is asked anew for each download and each later row: the offset of our zone changes twice a
    year, and a clock may be set.
    """
    for zone in (now.astimezone().tzinfo, UTC):
        at = moment_of(text, now=now, zone=zone) if zone else None
        if at is not None and now - at <= ZONE_TRUST:
            return zone
    return None


def _merged(before: Instrument | None, told: Instrument) -> Instrument:
    """Keep the listing exchange when a later message leaves it empty."""
    return replace(told, exchange=told.exchange or (before.exchange if before else ""))
