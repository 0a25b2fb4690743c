"""The values of an account, as the broker last reported them: a row of `account_values`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class AccountSource(StrEnum):
    """Where a row of `account_values` came from; those of statements are of earlier releases."""

    GATEWAY = "GATEWAY"
    FLEX = "FLEX"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSummary:
    """The net liquidation, cash and profits of one account, in its base currency.

    None is unknown, zero is zero. This class is the one definition of the table's columns.

    Attributes:
        row_id: Unique id of the row; ids sort by timestamp.
        account: Account id.
        currency: Base currency of the account, in which all amounts are; null until the broker
            named it with the net liquidation.
        net_liquidation: What the account would be worth if all of it was sold now (tag
            NetLiquidation). Unit: `currency`.
        cash: Cash of all currencies (tag TotalCashValue). Unit: `currency`.
        available_funds: Funds that are free for new positions (tag AvailableFunds). Unit:
            `currency`.
        maintenance_margin: Margin to keep the positions (tag MaintMarginReq). Unit: `currency`.
        excess_liquidity: What can be lost until positions are liquidated (tag ExcessLiquidity).
            Unit: `currency`.
        initial_margin: Margin to open the positions (tag InitMarginReq). Unit: `currency`.
        daily_pnl: Profit and loss of the day, as the broker reports it. Unit: `currency`.
        unrealized_pnl: Unrealized profit and loss, as the broker reports it. Unit: `currency`.
        realized_pnl: Realized profit and loss of the day. Unit: `currency`.
        timestamp: When the row was made (UTC).
        values_received_at: When the newest of net_liquidation, cash, the funds and the margins was
            received: their age counts from here (UTC).
        pnl_received_at: When the profits and losses were received: their age counts from here
            (UTC).
        exchange_rates: JSON: currency → what one unit of it is worth in the base currency (tag
            ExchangeRate); null until the broker sent one. Unit: `currency`.
        rates_received_at: When the oldest of exchange_rates was received: their age counts from
            here (UTC).
        source: GATEWAY; FLEX in rows of statements that earlier releases wrote.
        gateway_id: The login, as in gateway_sessions; null in rows of statements.
        trading_mode: LIVE, PAPER or SIMULATED.
        session_id: The session of gateway_sessions that wrote the row.
        fencing_token: The fencing token of that session; rows of an older one are refused.
        run_id: The Dagster run that wrote the row.
        open_pnl: Profit and loss of the day of the open holdings at the moment of daily_pnl, as far
            as it is known; null in rows of earlier releases. Unit: `currency`.
        open_unknown: The open holdings that open_pnl leaves out.
    """

    row_id: str = ""
    account: str
    currency: str | None = None
    net_liquidation: float | None = None
    cash: float | None = None
    available_funds: float | None = None
    maintenance_margin: float | None = None
    daily_pnl: float | None = None
    unrealized_pnl: float | None = None
    realized_pnl: float | None = None
    timestamp: datetime
    values_received_at: datetime | None = None
    pnl_received_at: datetime | None = None
    exchange_rates: str | None = None
    rates_received_at: datetime | None = None
    source: AccountSource = AccountSource.GATEWAY
    gateway_id: str | None = None
    trading_mode: str | None = None
    session_id: str | None = None
    fencing_token: int | None = None
    run_id: str | None = None
    excess_liquidity: float | None = None
    initial_margin: float | None = None
    open_pnl: float | None = None
    open_unknown: int | None = None

    @property
    def cushion(self) -> float | None:
        """The part of the net liquidation that is excess liquidity, as IB's tag Cushion.

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> values = dict(net_liquidation=200.0, excess_liquidity=50.0)
        >>> AccountSummary(account="U1", timestamp=at, **values).cushion
        0.25
        """
        if self.excess_liquidity is None or not self.net_liquidation:
            return None
        return self.excess_liquidity / self.net_liquidation

    @property
    def amounts(self) -> tuple[float | None, ...]:
        """Return the broker's amounts, in whole cents: a smaller move is no new row (`content`).

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> AccountSummary(account="U1", cash=1.001, timestamp=at).amounts[1]
        1.0
        """
        money = (
            self.net_liquidation, self.cash, self.available_funds, self.maintenance_margin,
            self.daily_pnl, self.unrealized_pnl, self.realized_pnl,
            self.excess_liquidity, self.initial_margin,
        )  # fmt: skip
        return tuple(None if amount is None else round(amount, 2) for amount in money)

    @property
    def content(self) -> tuple[object, ...]:
        """Return what a new row is due for when it changes: all but times and ids."""
        return (
            *self.amounts, self.currency, self.exchange_rates, self.open_pnl, self.open_unknown,
        )  # fmt: skip

    @property
    def rates(self) -> dict[str, float]:
        """Return what a unit of each currency is worth in the base currency; empty if unknown.

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> values = AccountSummary(
        ...     account="U1", timestamp=at, currency="EUR", exchange_rates='{"USD": 0.8}'
        ... )
        >>> values.rates
        {'USD': 0.8, 'EUR': 1.0}
        """
        if self.currency is None:
            return {}
        sent: dict[str, float] = json.loads(self.exchange_rates or "{}")
        return sent | {self.currency: 1.0}

    @property
    def is_known(self) -> bool:
        """Return whether the broker has sent any of the amounts."""
        return any(amount is not None for amount in self.amounts)

    def with_open_profit(
        self, holdings: Iterable[tuple[str, float | None]], number: int
    ) -> "AccountSummary":
        """Return the values with the profit of the day of the open holdings at the same moment.

        Args:
            holdings: Of open holdings the currency, and the profit of the day in it.
            number: How many are open, also those that are not named, or whose profit is unknown.

        >>> from datetime import UTC
        >>> account = AccountSummary(
        ...     account="U1", currency="EUR", exchange_rates='{"USD": 0.8}',
        ...     timestamp=datetime(2027, 1, 4, tzinfo=UTC),
        ... )  # fmt: skip
        >>> summed = account.with_open_profit([("USD", 10.0), ("EUR", 1.0), ("USD", None)], 3)
        >>> (summed.open_pnl, summed.open_unknown)
        (9.0, 1)
        >>> account.with_open_profit([("USD", 10.0), ("CHF", 1.0)], number=7).open_unknown
        6
        """
        rates = self.rates
        profits = [
            profit * rates[currency]
            for currency, profit in holdings
            if profit is not None and rates.get(currency) is not None
        ]
        return replace(self, open_pnl=round(sum(profits), 2), open_unknown=number - len(profits))
