"""The net liquidation, cash and P&L of an account: one row of the table `account_values`."""

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from position_sync_dagster.domain.column import Column


class AccountSource(StrEnum):
    """Where a row of `account_values` came from: the gateway, or a Flex statement of the broker."""

    GATEWAY = "GATEWAY"
    FLEX = "FLEX"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSummary:
    """The net liquidation, cash and profits of one account, in its base currency.

    None is unknown, zero is zero. This class is the one definition of the table's columns.
    """

    row_id: Annotated[str, Column("Unique id of the row; ids sort by timestamp.")] = ""
    account: Annotated[str, Column("Account id.")]
    currency: Annotated[
        str | None,
        Column(
            "Base currency of the account, in which all amounts are; null until the broker named "
            "it with the net liquidation."
        ),
    ] = None
    net_liquidation: Annotated[
        float | None,
        Column(
            "What the account would be worth if all of it was sold now (tag NetLiquidation).",
            unit="`currency`",
        ),
    ] = None
    cash: Annotated[
        float | None,
        Column("Cash of all currencies (tag TotalCashValue).", unit="`currency`"),
    ] = None
    available_funds: Annotated[
        float | None,
        Column("Funds that are free for new positions (tag AvailableFunds).", unit="`currency`"),
    ] = None
    maintenance_margin: Annotated[
        float | None,
        Column("Margin to keep the positions (tag MaintMarginReq).", unit="`currency`"),
    ] = None
    daily_pnl: Annotated[
        float | None,
        Column("Profit and loss of the day, as the broker reports it.", unit="`currency`"),
    ] = None
    unrealized_pnl: Annotated[
        float | None,
        Column("Unrealized profit and loss, as the broker reports it.", unit="`currency`"),
    ] = None
    realized_pnl: Annotated[
        float | None,
        Column("Realized profit and loss of the day.", unit="`currency`"),
    ] = None
    timestamp: Annotated[
        datetime,
        Column("When the row was made; of a statement, the time for which it holds (UTC)."),
    ]
    values_received_at: Annotated[
        datetime | None,
        Column(
            "When the newest of net_liquidation, cash, available_funds and maintenance_margin was "
            "received: their age counts from here (UTC)."
        ),
    ] = None
    pnl_received_at: Annotated[
        datetime | None,
        Column("When the profits and losses were received: their age counts from here (UTC)."),
    ] = None
    exchange_rates: Annotated[
        str | None,
        Column(
            "JSON: currency → what one unit of it is worth in the base currency (tag "
            "ExchangeRate); null until the broker sent one. Unit: `currency`."
        ),
    ] = None
    rates_received_at: Annotated[
        datetime | None,
        Column("When the oldest of exchange_rates was received: their age counts from here (UTC)."),
    ] = None
    source: Annotated[
        AccountSource, Column("GATEWAY, or FLEX for a row of one of the broker's statements.")
    ] = AccountSource.GATEWAY
    gateway_id: Annotated[
        str | None, Column('"host:port" of the gateway; null for a statement.')
    ] = None
    trading_mode: Annotated[str | None, Column("LIVE, PAPER or SIMULATED.")] = None
    session_id: Annotated[
        str | None, Column("The session of gateway_sessions that wrote the row.")
    ] = None
    fencing_token: Annotated[
        int | None, Column("The fencing token of that session; rows of an older one are refused.")
    ] = None
    run_id: Annotated[str | None, Column("The Dagster run that wrote the row.")] = None

    @property
    def amounts(self) -> tuple[str | float | None, ...]:
        """Return currency, rates and amounts in whole cents; a row is due only when they change.

        >>> from datetime import UTC
        >>> at = datetime(2027, 1, 4, tzinfo=UTC)
        >>> AccountSummary(account="U1", cash=1.001, timestamp=at).amounts[3]
        1.0
        """
        return (
            self.currency,
            self.exchange_rates,
            *(
                None if amount is None else round(amount, 2)
                for amount in (
                    self.net_liquidation,
                    self.cash,
                    self.available_funds,
                    self.maintenance_margin,
                    self.daily_pnl,
                    self.unrealized_pnl,
                    self.realized_pnl,
                )
            ),
        )

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
        return any(amount is not None for amount in self.amounts[2:])
