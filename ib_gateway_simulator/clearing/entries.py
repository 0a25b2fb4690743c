"""What a back office books: each entry belongs to the statement of its report day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from ib_gateway_simulator.clearing.securities import Security

ZERO = Decimal(0)

# The types of a trade: on an exchange, and without one.
EXECUTED = "ExchTrade"
BOOKED = "BookTrade"


def execution_id(number: int) -> str:
    """Return the id of an execution, by the number of its transaction."""
    return f"0000clr.{number:08x}.01.01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What all entries have.

    Attributes:
        number: The id of the transaction.
        at: When it happened, in New York.
        report_day: The day in whose statement it is; it may be one without a session.
    """

    number: int
    account: str
    at: datetime
    report_day: date


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeEntry(Entry):
    """A trade, or an option's end that is booked as one.

    Attributes:
        quantity: Signed; above 0 was bought.
        commission: What was charged, in its currency.
        codes: The broker's codes: O, C, A, Ex, Ep.
        settlement: The cash that an option on an index brings at its end, or costs.
        realized: The profit that it realized as the broker matches it; None: not stated.
        order: Trades of one order belong together.
    """

    security: Security
    quantity: Decimal
    price: Decimal
    commission: Decimal = ZERO
    commission_currency: str
    codes: str
    kind: str = EXECUTED
    settlement: Decimal = ZERO
    realized: Decimal | None = None
    order: int

    @property
    def proceeds(self) -> Decimal:
        """The money that it brought in, without the commission; of a future, its notional."""
        return -self.security.worth(self.quantity, self.price)

    @property
    def execution_id(self) -> str:
        """The id of its execution; what was only booked has none."""
        if self.kind != EXECUTED:
            return ""

        return execution_id(self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class CashEntry(Entry):
    """Money that came, or went (below 0); `type` is the broker's name of its kind."""

    type: str
    amount: Decimal
    currency: str
    security: Security | None = None
    description: str = ""

    @property
    def is_of_owner(self) -> bool:
        """Whether the owner of the account moved it."""
        return self.type == "Deposits/Withdrawals"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEntry(Entry):
    """Securities that came from another broker, or went there.

    Attributes:
        amount: Their value as the broker states it; None: it states none.
    """

    security: Security
    quantity: Decimal
    amount: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionEntry(Entry):
    """What a corporate action did to one holding, and the cash that it paid."""

    security: Security
    quantity: Decimal
    kind: str
    action: int
    proceeds: Decimal = ZERO
