"""An execution: a trade, as a gateway or a statement names it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from position_sync_dagster.domain.instrument import Right

# From when and until when the gateway named all executions of an account.
Asked = Mapping[str, tuple[datetime, datetime]]

# The source of executions that a gateway reported on their day.
FROM_GATEWAY = "GATEWAY"


class Side(StrEnum):
    """Whether an execution bought or sold."""

    BUY = "BUY"
    SELL = "SELL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One trade, or what the broker booked as one; a row of the table `executions`.

    A trade has a row of each source that names it, and a new row where a later statement says
    something else of it. `movements` has each trade once.

    Both sources have this one record, since they are rows of one table, and followers of changes
    get it. The core fills what a gateway names; the other fields are null in its rows.

    Attributes:
        execution_id: The broker's id of the execution, unique in an account; all of its rows
            have it.
        account: IB account that traded.
        conid: IB's contract id of the instrument.
        symbol: Symbol of the underlying, as IB writes it.
        sec_type: IB's security type: OPT, FOP, STK, FUT, …
        time: When it was executed (UTC).
        side: BUY or SELL.
        quantity: How much, without a sign. Unit: contracts or shares.
        price: Price of one unit. Unit: as quoted.
        commission: What the broker charged; positive is a cost. Unit: `commission_currency`.
        commission_currency: ISO code of the commission's currency.
        realized_pnl: Realized profit and loss of the trade. Unit: `currency`.
        currency: ISO code of the currency of the contract.
        source: Where the row came from: GATEWAY (on its day, provisional) or FLEX (a statement).
        statement: The statement that named it first: the file's name; empty of a gateway.
        run_id: The Dagster run that wrote the row.
        codes: The broker's codes as it writes them, separated by semicolons: A, Ex, Ep, Ca, …
        open_close: Whether it opened or closed, as the broker says: O, C or C;O.
        transaction_type: The broker's type: ExchTrade, BookTrade, TradeCancel, TradeCorrect, …
        order_id: The order's permanent id, equal for all legs of a combo order.
        brokerage_order_id: The order's id at the broker.
        trade_id: The statement's id of the trade.
        corrects: The trade_id of the trade that this one cancels or corrects.
        fx_rate_to_base: Rate of the currency. Unit: base currency of the account per `currency`.
        underlying_conid: Contract id of the underlying.
        attributes: JSON: everything that the source said of it, as it wrote it.
        stated_at: When the statement was made, or the gateway was asked: the later row counts.
        multiplier: Units of the underlying in one contract, as the gateway states it; null in
            rows of statements. Unit: units of the underlying in a contract.
        right: CALL or PUT of an option, as the gateway states it with the trade. Null in rows of
            statements and of older releases, and of what is no option; so are the next two.
        strike: Strike of an option. Unit: as quoted.
        expiry: Expiry of an option or a future.
    """

    execution_id: str
    account: str
    conid: int
    symbol: str
    sec_type: str
    time: datetime
    side: Side
    quantity: float
    price: float | None
    commission: float | None
    commission_currency: str | None
    realized_pnl: float | None
    currency: str
    source: str
    statement: str
    run_id: str | None = None
    codes: str | None = None
    open_close: str | None = None
    transaction_type: str | None = None
    order_id: str | None = None
    brokerage_order_id: str | None = None
    trade_id: str | None = None
    corrects: str | None = None
    fx_rate_to_base: float | None = None
    underlying_conid: int | None = None
    attributes: str | None = None
    stated_at: datetime | None = None
    multiplier: float | None = None
    right: Right | None = None
    strike: float | None = None
    expiry: date | None = None

    @property
    def change(self) -> float:
        """Return by how much it changed the position, with a sign."""
        if self.side is Side.BUY:
            return self.quantity

        return -self.quantity
