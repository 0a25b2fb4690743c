"""The content of a broker's statement: holdings, trades and cash of past days."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated

from position_sync_dagster.domain.column import Column
from position_sync_dagster.domain.instrument import Right

FLEX = "FLEX"
"""The source of rows from a Flex statement."""


class Side(StrEnum):
    """Whether an execution bought or sold."""

    BUY = "BUY"
    SELL = "SELL"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementPosition:
    """One holding at the end of a day, as the broker states it.

    Attributes:
        position: Signed quantity, negative when short.
        average_cost: Of one contract or share, including the multiplier.
    """

    account: str
    day: date
    conid: int
    symbol: str
    sec_type: str
    right: Right | None
    strike: float | None
    expiry: date | None
    multiplier: float
    currency: str
    local_symbol: str | None
    position: float
    market_price: float | None
    market_value: float | None
    average_cost: float | None
    unrealized_pnl: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One trade, and one row of the table `executions`."""

    execution_id: Annotated[str, Column("The broker's id of the execution; unique.")]
    account: Annotated[str, Column("IB account that traded.")]
    conid: Annotated[int, Column("IB's contract id of the instrument.")]
    symbol: Annotated[str, Column("Symbol of the underlying, as IB writes it.")]
    sec_type: Annotated[str, Column("IB's security type: OPT, FOP, STK, FUT, …")]
    time: Annotated[datetime, Column("When it was executed (UTC).")]
    side: Annotated[Side, Column("BUY or SELL.")]
    quantity: Annotated[float, Column("How much, without a sign.", unit="contracts or shares")]
    price: Annotated[float | None, Column("Price of one unit.", unit="as quoted")]
    commission: Annotated[
        float | None,
        Column("What the broker charged; positive is a cost.", unit="`commission_currency`"),
    ]
    commission_currency: Annotated[str | None, Column("ISO code of the commission's currency.")]
    realized_pnl: Annotated[
        float | None, Column("Realized profit and loss of the trade.", unit="`currency`")
    ]
    currency: Annotated[str, Column("ISO code of the currency of the contract.")]
    source: Annotated[str, Column("Where the row came from: FLEX.")]
    statement: Annotated[str, Column("The statement that named it first: the file's name.")]
    run_id: Annotated[str | None, Column("The Dagster run that wrote the row.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementCash:
    """Net liquidation and cash of an account at the end of a day, in its base currency."""

    account: str
    day: date
    currency: str | None
    net_liquidation: float | None
    cash: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The content of one file for one account.

    Attributes:
        file: The name of the file.
        first, last: The days that it covers.
        states_positions: Whether it has the section of positions. Without it, an account without
            positions is not known to be flat.
    """

    file: str
    account: str
    first: date
    last: date
    generated_at: datetime | None
    states_positions: bool
    positions: tuple[StatementPosition, ...]
    executions: tuple[Execution, ...]
    cash: tuple[StatementCash, ...]

    @property
    def days(self) -> frozenset[date]:
        """Return the days whose positions it states."""
        stated = {one.day for one in self.positions}
        return frozenset(stated | {self.last} if self.states_positions else stated)
