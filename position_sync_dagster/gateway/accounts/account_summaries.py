"""The value of each account and its profit and loss, as the gateway last reported them.

The profit and loss needs one subscription for each account, retried while it is refused.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from random import Random

from ib_async import IB, AccountValue, PnL

from position_sync_dagster.domain.account_summary import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.gateway.codes import is_notice
from position_sync_dagster.gateway.connectivity import Connectivity
from position_sync_dagster.gateway.ib_async_internals import account_pnl_request, forget_account_pnl
from position_sync_dagster.gateway.translate import known, number_of
from position_sync_dagster.settings import Settings

NEW_AT_ONCE = 10
"""Maximum number of accounts subscribed in one step: the gateway takes 50 messages a second, and
market data come first."""

LONGEST_S = 900.0
JITTER = (0.8, 1.2)


@dataclass(slots=True)
class _Subscription:
    """The state of one account.

    Attributes:
        due_at: When it is requested, or requested again unless a message comes before.
        attempts: Requests in a row that brought no value.
    """

    due_at: float = -inf
    attempts: int = 0


class AccountPnlSubscriptions:
    """Keeps one `reqPnL` for each account.

    A subscription that is refused, or that brings no message, is requested again after a delay
    that doubles each time. ib_async refuses a second request of the same account until the first
    one is cancelled or forgotten.

    Args:
        on_pnl: Called with each message.
        on_refused: Called with an account whose subscription ended with an error.
        silence_s: The first delay, in seconds.
    """

    def __init__(
        self,
        ib: IB,
        accounts: Iterable[str],
        *,
        on_pnl: Callable[[PnL], None],
        on_refused: Callable[[str], None],
        silence_s: float,
    ) -> None:
        self._ib = ib
        self._subscriptions = {account: _Subscription() for account in accounts}
        self._on_pnl = on_pnl
        self._on_refused = on_refused
        self._backoff = Backoff(first_s=silence_s, longest_s=LONGEST_S, jitter=JITTER)
        self._random = Random()  # noqa: S311 - jitter of a delay
        ib.pnlEvent += self._on_message
        ib.errorEvent += self._on_error

    def step(self) -> None:
        """Request the accounts that are due, the next few of them."""
        if not self._ib.isConnected():
            return
        now = time.monotonic()
        due = [account for account, one in self._subscriptions.items() if one.due_at <= now]
        for account in due[:NEW_AT_ONCE]:
            self._request(account)

    def restored(self) -> None:
        """Expect a message of each account; an account without one is requested again."""
        for one in self._subscriptions.values():
            one.attempts = max(one.attempts, 1)
            one.due_at = min(one.due_at, time.monotonic() + self._delay_s(one))

    def dropped(self) -> None:
        """Make all of them due: the gateway dropped them (code 1101)."""
        for account in self._subscriptions:
            forget_account_pnl(self._ib, account)
            self._subscriptions[account] = _Subscription()

    def _request(self, account: str) -> None:
        if account_pnl_request(self._ib, account) is not None:
            self._ib.cancelPnL(account)
        self._ib.reqPnL(account)
        one = self._subscriptions[account]
        one.attempts += 1
        one.due_at = time.monotonic() + self._delay_s(one)

    def _delay_s(self, one: _Subscription) -> float:
        return self._backoff.delay_s(one.attempts, self._random)

    def _on_message(self, pnl: PnL) -> None:
        one = self._subscriptions.get(pnl.account)
        if one is not None and not pnl.modelCode:
            one.due_at, one.attempts = inf, 0
            self._on_pnl(pnl)

    def _on_error(self, request: int, code: int, _text: str, _contract: object) -> None:
        if request < 0 or is_notice(code):
            return
        for account, one in self._subscriptions.items():
            if account_pnl_request(self._ib, account) == request:
                # No cancel: the gateway has forgotten the request, and would answer 300.
                forget_account_pnl(self._ib, account)
                one.attempts = max(one.attempts, 1)
                one.due_at = time.monotonic() + self._delay_s(one)
                self._on_refused(account)


NET_LIQUIDATION = "NetLiquidation"
"""Its currency is the base currency of the account."""

CASH, AVAILABLE, MARGIN = "TotalCashValue", "AvailableFunds", "MaintMarginReq"

EXCHANGE_RATE = "ExchangeRate"
"""It comes once for each currency of the ledger, and is in the base currency. [D: "Account Value
Keys"]"""

TAGS = frozenset({NET_LIQUIDATION, CASH, AVAILABLE, MARGIN})
"""The tags of message 6 that are kept. They come in the base currency of the account only. The
tags of the ledger come by currency and as `BASE`, the sum; of them the rate alone is read. [D:
"Account Value Keys"]"""


@dataclass(slots=True)
class _Account:
    """The values of one account.

    Attributes:
        values: Amount and currency, by tag.
        rates: The exchange rate of each currency, and when it was received.
        is_answered: Whether the request for the profit and loss was answered or refused.
    """

    values: dict[str, tuple[float | None, str]] = field(default_factory=dict)
    values_at: datetime | None = None
    rates: dict[str, tuple[float, datetime]] = field(default_factory=dict)
    pnl: tuple[float | None, float | None, float | None] = (None, None, None)
    pnl_at: datetime | None = None
    is_answered: bool = False


class AccountSummaries:
    """Keeps the account values and the profit and loss of each account of a connection.

    Values from before the gateway dropped every subscription are forgotten. Messages that arrive
    while the gateway has lost IB are old and are ignored.

    Args:
        connectivity: Whether the gateway has IB.
    """

    def __init__(
        self,
        ib: IB,
        connectivity: Connectivity,
        *,
        settings: Settings,
        accounts: tuple[str, ...],
    ) -> None:
        self._gateway_id = settings.gateway_id
        self._timeout_s = settings.gateway_timeout_s
        self._connectivity = connectivity
        self._accounts = {account: _Account() for account in accounts}
        self._since = time.monotonic()
        self._pnl = AccountPnlSubscriptions(
            ib,
            accounts,
            on_pnl=self._on_pnl,
            on_refused=self._on_refused,
            silence_s=settings.line_silence_s,
        )
        ib.accountValueEvent += self._on_value

    def subscribe(self) -> None:
        """Request the profit and loss of the accounts that are due; call it now and then."""
        self._pnl.step()

    def restored(self) -> None:
        """Expect the profit and loss of each account again: the gateway has IB again (1102)."""
        self._pnl.restored()

    def dropped(self) -> None:
        """Forget everything: the gateway dropped every subscription (1101)."""
        self._accounts = {account: _Account() for account in self._accounts}
        self._since = time.monotonic()
        self._pnl.dropped()

    def current(self) -> list[AccountSummary]:
        """Return the values of each account whose first answers have arrived.

        A row before that would show a known net liquidation as null for a moment.
        """
        waited = time.monotonic() - self._since >= self._timeout_s
        return [
            summary
            for account, one in self._accounts.items()
            if (waited or (one.is_answered and one.values_at is not None))
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
        if one is None or value.modelCode or not self._connectivity.has_ib:
            return
        if value.currency in ("", "BASE"):
            return
        if value.tag == EXCHANGE_RATE:
            rate = number_of(value.value)
            if rate is not None and rate > 0:
                one.rates[value.currency] = rate, utc_now()
            else:
                one.rates.pop(value.currency, None)
        if value.tag not in TAGS:
            return
        one.values[value.tag] = (number_of(value.value), value.currency)
        one.values_at = utc_now()

    def _on_pnl(self, pnl: PnL) -> None:
        if not self._connectivity.has_ib:
            return
        one = self._accounts[pnl.account]
        one.pnl = (known(pnl.dailyPnL), known(pnl.unrealizedPnL), known(pnl.realizedPnL))
        one.pnl_at, one.is_answered = utc_now(), True

    def _on_refused(self, account: str) -> None:
        one = self._accounts[account]
        one.pnl, one.pnl_at, one.is_answered = (None, None, None), None, True
