"""The rows of holdings, as a gateway sends them in position lists and account downloads."""

from __future__ import annotations

from collections.abc import Iterator

from position_sync_dagster.simulator.accounts.ledger import Holding, Ledger
from position_sync_dagster.simulator.market.market import Market
from position_sync_dagster.simulator.protocol import account_messages
from position_sync_dagster.simulator.protocol.fields import Fields


class HoldingRows:
    """Writes the holdings of a ledger as messages, at the prices of the market."""

    def __init__(self, *, ledger: Ledger, market: Market) -> None:
        self._ledger = ledger
        self._market = market

    def positions(self) -> Iterator[Fields]:
        """Yield the rows of a position list, of all accounts."""
        for holding in self._ledger.holdings():
            yield self.position(holding)

    def positions_multi(self, req_id: int, account: str) -> Iterator[Fields]:
        """Yield the rows of the positions of one account, for one request."""
        for holding in self._ledger.holdings(account):
            row = (account, holding.contract, holding.quantity, holding.average_cost)
            yield account_messages.position_multi(req_id, *row)

    def portfolio(self, account: str) -> Iterator[Fields]:
        """Yield the portfolio rows of one account."""
        for holding in self._ledger.holdings(account):
            yield self.portfolio_row(holding)

    def position(self, holding: Holding) -> Fields:
        """Return the row of one holding in a position list."""
        return account_messages.position(
            holding.account, holding.contract, holding.quantity, holding.average_cost
        )

    def portfolio_row(self, holding: Holding) -> Fields:
        """Return the portfolio row of one holding."""
        worth = self._ledger.value(holding, self._market.close_price(holding.contract.conid))
        return account_messages.portfolio_value(
            holding.account,
            holding.contract,
            held=holding.quantity,
            price=worth.price,
            value=worth.value,
            average_cost=holding.average_cost,
            unrealized=worth.unrealized,
            realized=holding.realized or 0.0,
        )
