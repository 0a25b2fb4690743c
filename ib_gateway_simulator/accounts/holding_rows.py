"""The rows of holdings, as a gateway sends them in position lists and account downloads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ib_gateway_simulator.accounts.ledger import Holding, Ledger
from ib_gateway_simulator.accounts.odd_row import OddRow
from ib_gateway_simulator.market.market import Market
from ib_gateway_simulator.protocol import account_messages
from ib_gateway_simulator.protocol.fields import Fields

Row = Holding | OddRow


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """The rows of one moment: of all accounts, and as written in each account's download."""

    rows: list[Row]
    downloads: dict[str, list[Fields]]


class HoldingRows:
    """Writes the holdings of a ledger, and odd rows, as messages at the prices of the market.

    An odd row replaces the holding of the same account and conid.
    """

    def __init__(self, *, ledger: Ledger, market: Market) -> None:
        self._ledger = ledger
        self._market = market
        self._odd: dict[tuple[str, int], OddRow] = {}
        # The accounts without a row in any list or download.
        self.unlisted: set[str] = set()
        self._cached: _Cache | None = None

    def add_odd(self, row: OddRow) -> None:
        """Send an odd row in every list from now on."""
        self._odd[row.account, row.contract.conid] = row

    def remove_odd(self, account: str, conid: int) -> bool:
        """Send an odd row no longer; return whether there was one."""
        return self._odd.pop((account, conid), None) is not None

    @property
    def odd(self) -> int:
        """How many odd rows there are."""
        return len(self._odd)

    def concerns(self, row: Row, account: str) -> bool:
        """Return whether a row belongs to the download of an account.

        A row of an account that the login does not know belongs to every download.
        """
        return row.account == account or row.account not in self._ledger.accounts

    def freeze(self) -> None:
        """Send the rows of this moment in every list, until `thaw`."""
        if self._cached is None:
            downloads = {name: list(self.portfolio(name)) for name in self._ledger.accounts}
            self._cached = _Cache(rows=list(self._rows()), downloads=downloads)

    def thaw(self) -> None:
        """Send the rows of each moment again."""
        self._cached = None

    def _rows(self) -> Iterator[Row]:
        if self._cached is not None:
            yield from self._cached.rows
            return
        for holding in self._ledger.holdings():
            if (holding.account, holding.contract.conid) not in self._odd:
                yield holding
        yield from self._odd.values()

    def positions(self) -> Iterator[Fields]:
        """Yield the rows of a position list, of all accounts."""
        for row in self._rows():
            if row.account not in self.unlisted:
                yield self.position(row)

    def positions_multi(self, req_id: int, account: str) -> Iterator[Fields]:
        """Yield the rows of the positions of one account, for one request."""
        for row in self._rows():
            if self.concerns(row, account) and account not in self.unlisted:
                yield self.position_multi(req_id, row)

    def portfolio(self, account: str) -> Iterator[Fields]:
        """Yield the portfolio rows of one account."""
        if self._cached is not None:
            yield from self._cached.downloads[account]
            return
        for row in self._rows():
            if self.concerns(row, account) and account not in self.unlisted:
                yield self.portfolio_row(row)

    def position(self, row: Row) -> Fields:
        """Return one row of a position list."""
        return account_messages.position(row.account, row.contract, row.quantity, row.average_cost)

    def position_multi(self, req_id: int, row: Row) -> Fields:
        """Return one row of the positions of one account."""
        held = (row.account, row.contract, row.quantity, row.average_cost)
        return account_messages.position_multi(req_id, *held)

    def portfolio_row(self, row: Row) -> Fields:
        """Return one portfolio row."""
        if isinstance(row, OddRow):
            price = row.price
            if price is None:
                price = self._market.value_price(row.priced_as)

            worth = row.valued_at(price)
        else:
            worth = self._ledger.value(row, self._market.close_price(row.contract.conid))
        return account_messages.portfolio_value(
            row.account,
            row.contract,
            held=row.quantity,
            price=worth.price,
            value=worth.value,
            average_cost=row.average_cost,
            unrealized=worth.unrealized,
            realized=row.realized or 0.0,
        )
