"""The values of each account: net liquidation, cash and margins, and its profit and loss."""

import json
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from random import Random

from ib_async import AccountValue

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.clock import Backoff, utc_now
from position_sync_dagster.gateway import ib_async_internals
from position_sync_dagster.gateway.accounts.pnl_subscriptions import (
    JITTER,
    LONGEST_S,
    Subscription,
)
from position_sync_dagster.gateway.codes import ACCOUNT_READY, MessageType, is_notice
from position_sync_dagster.gateway.login import Login
from position_sync_dagster.gateway.translate import UNSET, known, number_of

NEW_AT_ONCE = 10
"""Maximum number of accounts subscribed in one step: the gateway takes 50 messages a second, and
market data come first."""

PNL_REALIZED = 4
"""The place of the last value among the fields of a message with an account's profit and loss."""

NET_LIQUIDATION = "NetLiquidation"
"""Its currency is the base currency of the account."""

CASH, AVAILABLE, MARGIN = "TotalCashValue", "AvailableFunds", "MaintMarginReq"
EXCESS, INITIAL = "ExcessLiquidity", "InitMarginReq"

EXCHANGE_RATE = "ExchangeRate"
"""The key of an exchange rate, in the base currency, which comes once for each currency of the
ledger. [D: "Account Value Keys"]"""

TAGS = frozenset({NET_LIQUIDATION, CASH, AVAILABLE, MARGIN, EXCESS, INITIAL})
"""The tags of message 6 that are kept. They come in the base currency of the account only. The
tags of the ledger come by currency and as `BASE`, the sum; only the rate is read of them. [D:
"Account Value Keys"]"""


@dataclass(slots=True)
class _Account(Subscription):
    """The values of one account, and its request for profit and loss.

    Attributes:
        values: Amount and currency, by tag.
        rates: The exchange rate of each currency, and when it was received.
        pnl: The daily, unrealized and realized profit.
        is_answered: Whether the request for the profit and loss was answered or refused.
        is_ready: Whether the values that come are valid.
    """

    values: dict[str, tuple[float | None, str]] = field(default_factory=dict)
    values_at: datetime | None = None
    rates: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    pnl: tuple[float | None, ...] = (None, None, None)
    pnl_at: datetime | None = None
    is_answered: bool = False
    is_ready: bool = True


class AccountSummaries:
    """Keeps the account values and the profit and loss of each account of a connection.

    Values from before the gateway dropped every subscription are forgotten. Messages that arrive
    while the gateway has lost IB are old and are ignored. So are values that IB calls not ready.

    Each account has one `reqPnL`. One that is refused, or that brings no message, is requested
    again after a delay that doubles each time.
    """

    def __init__(self, login: Login) -> None:
        self._ib, settings = login.ib, login.settings
        self._gateway_id = settings.gateway_id
        self._timeout_s = settings.gateway_timeout_s
        self._connectivity = login.connectivity
        self._backoff = Backoff(first_s=settings.line_silence_s, longest_s=LONGEST_S, jitter=JITTER)
        self._random = Random()  # noqa: S311 - jitter of a delay
        self._begin(login.accounts)
        login.ib.accountValueEvent += self._on_value
        ib_async_internals.read_messages(login.ib, MessageType.PNL, self._read_pnl)
        login.ib.errorEvent += self._on_error

    def _begin(self, accounts: Iterable[str]) -> None:
        self._accounts = {account: _Account(self._backoff, self._random) for account in accounts}
        self._since = time.monotonic()

    def subscribe(self) -> None:
        """Request the profit and loss of the next few accounts that are due; call it now and then.

        None is requested without a connection.
        """
        if not self._ib.isConnected():
            return
        now = time.monotonic()
        for one in self._accounts.values():
            one.expect_if_silent(now)
        due = [(account, one) for account, one in self._accounts.items() if one.due_at <= now]
        for account, one in due[:NEW_AT_ONCE]:
            self._cancel(one)
            request = self._ib.client.getReqId()
            self._ib.client.reqPnL(request, account, "")
            one.request = str(request)
            one.requested(now)

    def restored(self) -> None:
        """Expect the profit and loss of each account again: the gateway has IB again (1102).

        An account without a message is requested again.
        """
        for one in self._accounts.values():
            one.expect(time.monotonic())

    def dropped(self) -> None:
        """Forget everything: the gateway dropped every subscription (1101).

        A request whose value is awaited is cancelled: if it reached the gateway after the drop, it
        still runs.
        """
        for one in self._accounts.values():
            if one.is_awaited:
                self._cancel(one)
        self._begin(self._accounts)

    def current(self, without: Collection[str] = ()) -> list[AccountSummary]:
        """Return the values of each account whose first answers have arrived.

        A row before that would show a known net liquidation as null for a moment.

        Args:
            without: Accounts to leave out.
        """
        waited = time.monotonic() - self._since >= self._timeout_s
        return [
            summary
            for account, one in self._accounts.items()
            if account not in without
            and (waited or (one.is_answered and one.values_at is not None))
            and (summary := self._summary(account, one)).is_known
        ]

    def _summary(self, account: str, one: _Account) -> AccountSummary:
        _, currency = one.values.get(NET_LIQUIDATION, (None, None))
        amounts = {tag: amount for tag, (amount, unit) in one.values.items() if unit == currency}
        daily, unrealized, realized = one.pnl
        rates = {unit: rate for unit, (rate, _at) in one.rates.items()}
        return AccountSummary(
            account=account,
            currency=currency,
            net_liquidation=amounts.get(NET_LIQUIDATION),
            cash=amounts.get(CASH),
            available_funds=amounts.get(AVAILABLE),
            maintenance_margin=amounts.get(MARGIN),
            excess_liquidity=amounts.get(EXCESS),
            initial_margin=amounts.get(INITIAL),
            daily_pnl=daily,
            unrealized_pnl=unrealized,
            realized_pnl=realized,
            timestamp=utc_now(),
            exchange_rates=json.dumps(rates, sort_keys=True) if rates else None,
            rates_received_at=min((at for _rate, at in one.rates.values()), default=None),
            values_received_at=one.values_at if currency is not None else None,
            pnl_received_at=one.pnl_at,
            gateway_id=self._gateway_id,
        )

    def _on_value(self, value: AccountValue) -> None:
        one = self._accounts.get(value.account)
        if one is None or value.modelCode or self._connectivity.lost is not None:
            return
        if value.tag == ACCOUNT_READY:
            one.is_ready = value.value != "false"
        if value.currency in ("", "BASE") or not one.is_ready:
            return
        if value.tag == EXCHANGE_RATE:
            rate = number_of(value.value)
            if rate is not None and rate > 0:
                one.rates[value.currency] = rate, utc_now()
            else:
                one.rates.pop(value.currency, None)
        elif value.tag in TAGS:
            one.values[value.tag] = (number_of(value.value), value.currency)
            one.values_at = utc_now()

    def _cancel(self, one: _Account) -> None:
        if one.request is not None:
            self._ib.client.cancelPnL(int(one.request))

    def _requested_by(self, request: str) -> _Account | None:
        return next((one for one in self._accounts.values() if one.request == request), None)

    def _read_pnl(self, fields: list[str]) -> bool:
        one = self._requested_by(fields[1]) if len(fields) > PNL_REALIZED else None
        if one is None:
            return False
        try:
            sent = [known(float(text or UNSET)) for text in fields[2 : PNL_REALIZED + 1]]
        except ValueError:
            return False
        one.valued(time.monotonic())
        if self._connectivity.lost is None:
            one.pnl = tuple(sent)
            one.pnl_at, one.is_answered = utc_now(), True
        return True

    def _on_error(self, request: int, code: int, _text: str, _contract: object) -> None:
        one = self._requested_by(str(request))
        if one is not None and not is_notice(code):
            one.request = None  # no cancel: the gateway has forgotten it, and would answer 300
            one.attempts = max(one.attempts, 1)
            one.postpone(time.monotonic())
            one.pnl, one.pnl_at, one.is_answered = (None, None, None), None, True
