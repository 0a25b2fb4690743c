"""Portfolio rows, read as sent: of a contract that came before, its fields are not read again."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from ib_async import Contract

from position_sync_dagster.domain.broker_position import Key, key_of
from position_sync_dagster.domain.instrument import Instrument
from position_sync_dagster.gateway.accounts.odd_rows import OddRows
from position_sync_dagster.gateway.codes import MessageType
from position_sync_dagster.gateway.ib_async_internals.connection import fields_of
from position_sync_dagster.gateway.ib_async_internals.holdings import WHOLE_ROW, RowFields
from position_sync_dagster.gateway.translate import PortfolioValues, instrument_of, known

PORTFOLIO_ROW = MessageType.PORTFOLIO_VALUE.start
"""So a portfolio row begins."""

FIELDS = 20
"""So many fields it has."""

AFTER_CONTRACT = 8
"""So many of its zero bytes come after its contract: six numbers, the account, and the end."""


class PortfolioRow(NamedTuple):
    """A portfolio row: what an account holds of an instrument, and the broker's values of it."""

    key: Key
    instrument: Instrument
    position: float
    values: PortfolioValues


class PortfolioRows:
    """Reads portfolio rows: all of a large account come every three minutes.

    ib_async looks at the type of each field of the contract, makes two contracts of each row and
    writes the text of a log line that nobody reads.

    Args:
        accounts: The accounts of the login.
        odd_rows: Decides which rows are set aside.
        on_row: Gets each of the others.
    """

    def __init__(
        self,
        accounts: Iterable[str],
        odd_rows: OddRows,
        *,
        on_row: Callable[[PortfolioRow], None],
    ) -> None:
        self._accounts = {account.encode(): account for account in accounts}
        self._odd_rows = odd_rows
        self._on_row = on_row
        self._instruments: dict[bytes, Instrument] = {}

    def read(self, message: bytes) -> bool:
        """Read a message if it is a portfolio row; one that is too short is left to ib_async."""
        if not message.startswith(PORTFOLIO_ROW):
            return False
        contract, *sent = message.rsplit(b"\0", AFTER_CONTRACT)
        row = self._row_of(contract, sent)
        if row is not None:
            self._on_row(row)
            return True
        fields = fields_of(message)
        if len(fields) < WHOLE_ROW:
            return False
        account, conid = fields[-1], fields[2]
        if self._odd_rows.accepts(
            RowFields(account, conid, fields[3], fields[4], fields[8], fields[-7])
        ):
            with suppress(ValueError):
                self._instruments[contract] = instrument_of(_contract_of(fields))
                row = self._row_of(contract, sent)
            if row is not None:
                self._on_row(row)
            else:
                self._odd_rows.set_aside(account, conid)
        return True

    def _row_of(self, contract: bytes, sent: list[bytes]) -> PortfolioRow | None:
        """Return a usable row of a contract that came before; None for any other."""
        instrument = self._instruments.get(contract)
        account = self._accounts.get(sent[-2]) if instrument is not None else None
        if instrument is None or account is None:
            return None
        try:
            position, price, value, cost, unrealized, realized = map(float, sent[:6])
        except ValueError:
            return None
        key = key_of(account, instrument.conid)
        if known(position) is None or (self._odd_rows and key in self._odd_rows):
            return None
        values = PortfolioValues(
            average_cost=known(cost),
            market_price=known(price),
            market_value=known(value),
            unrealized_pnl=known(unrealized),
            realized_pnl=known(realized),
        )
        return PortfolioRow(key, instrument, position, values)


def _contract_of(fields: list[str]) -> Contract:
    """Return the contract of a row.

    Raises:
        ValueError: The row has another number of fields, or one of these is no number.
    """
    if len(fields) != FIELDS:
        raise ValueError(f"{len(fields)} fields")
    contract = Contract()
    (
        _,
        _,
        conid,
        contract.symbol,
        contract.secType,
        contract.lastTradeDateOrContractMonth,
        strike,
        contract.right,
        contract.multiplier,
        contract.primaryExchange,
        contract.currency,
        contract.localSymbol,
        contract.tradingClass,
    ) = fields[:13]
    contract.conId = int(conid) if conid else 0
    contract.strike = float(strike) if strike else 0.0
    return contract
