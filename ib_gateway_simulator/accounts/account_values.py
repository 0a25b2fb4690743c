"""The values of an account: net liquidation, cash, profits and the like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ib_gateway_simulator.accounts.ledger import Ledger
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.protocol.contract import SecType

# The currency of a sum over all currencies, in the base currency of the account.
BASE = "BASE"

# The margin of the simulator, as a share of the gross value of all positions.
MARGIN_RATE = 0.2


@dataclass(slots=True)
class _Ledger:
    """The sums of one currency."""

    cash: float = 0.0
    stocks: float = 0.0
    options: float = 0.0
    unrealized: float = 0.0
    realized: float = 0.0


def account_values(ledger: Ledger, market: Market, account: str) -> Iterator[tuple[str, str, str]]:
    """Yield tag, value and currency of one account: a small, true part of what a gateway sends.

    Values of the account come in its base currency, those of the ledger once for each currency
    and once as `BASE`, the sum of all. A currency without a rate of its own counts 1.
    """
    base = ledger.accounts[account].currency
    rates = ledger.rates_of(account)
    total = _Ledger()
    by_currency = {base: _Ledger()}
    gross = 0.0

    for holding in ledger.holdings(account):
        contract = holding.contract
        worth = ledger.value(holding, market.close_price(contract.conid))
        rate = rates.get(contract.currency, 1.0)
        own_currency = by_currency.setdefault(contract.currency, _Ledger())
        for sums, by in ((total, rate), (own_currency, 1.0)):
            if contract.is_option:
                sums.options += worth.value * by
            elif contract.sec_type is SecType.STK:
                sums.stocks += worth.value * by

            sums.unrealized += worth.unrealized * by
            sums.realized += (holding.realized or 0.0) * by
        if contract.is_option or contract.sec_type is SecType.STK:
            gross += abs(worth.value) * rate

    total.cash = by_currency[base].cash = ledger.cash[account]
    net = total.cash + total.stocks + total.options
    margin = MARGIN_RATE * gross
    yield "AccountCode", account, ""
    ready = account not in ledger.resetting
    yield "AccountReady", str(ready).lower(), ""
    yield "AccountType", "INDIVIDUAL", ""
    for tag, amount in (
        ("AvailableFunds", net - margin),
        ("BuyingPower", 4 * (net - margin)),
        ("EquityWithLoanValue", net),
        ("ExcessLiquidity", net - margin),
        ("GrossPositionValue", gross),
        ("InitMarginReq", margin),
        ("MaintMarginReq", margin),
        ("NetLiquidation", net),
        ("TotalCashValue", total.cash),
    ):
        yield tag, f"{amount if ready else 0.0:.2f}", base

    for currency, sums in {BASE: total, **by_currency}.items():
        yield "Currency", currency, currency
        yield "ExchangeRate", f"{rates.get(currency, 1.0):.7f}", currency
        for tag, amount in (
            ("CashBalance", sums.cash),
            ("NetLiquidationByCurrency", sums.cash + sums.stocks + sums.options),
            ("OptionMarketValue", sums.options),
            ("RealizedPnL", sums.realized),
            ("StockMarketValue", sums.stocks),
            ("TotalCashBalance", sums.cash),
            ("UnrealizedPnL", sums.unrealized),
        ):
            yield tag, f"{amount:.2f}", currency
