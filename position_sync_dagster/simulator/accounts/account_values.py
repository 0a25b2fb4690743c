"""The values of an account: net liquidation, cash, profits and the like."""

from __future__ import annotations

from collections.abc import Iterator

from position_sync_dagster.simulator.accounts.ledger import Ledger
from position_sync_dagster.simulator.market.market import Market


def account_values(ledger: Ledger, market: Market, account: str) -> Iterator[tuple[str, str, str]]:
    """Yield tag, value and currency of one account: a small, true part of what a gateway sends."""
    currency = ledger.accounts[account].currency
    worths = {"STK": 0.0, "OPT": 0.0}
    unrealized = realized = 0.0
    for holding in ledger.holdings(account):
        worth = ledger.value(holding, market.close_price(holding.contract.conid))
        kind = "OPT" if holding.contract.is_option else holding.contract.sec_type.value
        if kind in worths:
            worths[kind] += worth.value
        unrealized += worth.unrealized
        realized += holding.realized or 0.0
    cash = ledger.cash[account]
    net = cash + sum(worths.values())
    yield "AccountCode", account, ""
    yield "AccountReady", "true", ""
    yield "AccountType", "INDIVIDUAL", ""
    yield "Currency", currency, currency
    for tag, amount in (
        ("AvailableFunds", net),
        ("BuyingPower", 4 * net),
        ("CashBalance", cash),
        ("ExcessLiquidity", net),
        ("GrossPositionValue", sum(abs(worth) for worth in worths.values())),
        ("NetLiquidation", net),
        ("OptionMarketValue", worths["OPT"]),
        ("RealizedPnL", realized),
        ("StockMarketValue", worths["STK"]),
        ("TotalCashBalance", cash),
        ("TotalCashValue", cash),
        ("UnrealizedPnL", unrealized),
    ):
        yield tag, f"{amount:.2f}", currency
