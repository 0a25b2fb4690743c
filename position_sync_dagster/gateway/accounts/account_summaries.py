"""The value of each account and its profit and loss, as the gateway last reported them."""

import json
import time
from dataclasses import dataclass, field
from datetime import datetime

from ib_async import IB, AccountValue, PnL

from position_sync_dagster.domain.account_summary import AccountSummary
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.gateway.accounts.pnl_subscriptions import AccountPnlSubscriptions
from position_sync_dagster.gateway.connectivity import Connectivity
from position_sync_dagster.gateway.translate import known, number_of
from position_sync_dagster.settings import Settings

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
