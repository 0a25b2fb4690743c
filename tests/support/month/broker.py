"""The simulated broker: its books, what is done in them, and the statements it delivers.

Its own wealth is the measure of the program: `Broker.profit` shares no code with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from ib_gateway_simulator.clearing.activity_statement import FlexQuery, statement_xml
from ib_gateway_simulator.clearing.back_office import BackOffice, ClosedBooks, profit_between
from ib_gateway_simulator.clearing.entries import TradeEntry
from ib_gateway_simulator.clearing.securities import Security
from tests.support.month.market import NEW_YORK, D, MovingMarket

# An account in dollars and one in euros.
A, B = "DUSIM0001", "DUSIM0002"

DAILY = FlexQuery()

# When the statement of a session is made, in the night after it.
MADE_AT = time(2, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A file that arrives before a morning."""

    name: str
    content: bytes


class Broker:
    """Two accounts, and a statement of each session for each of them.

    Attributes:
        session: The session that is under way.
    """

    def __init__(self, seed: int = 1) -> None:
        self.market = MovingMarket(seed)
        self.office = BackOffice({A: "USD", B: "EUR"}, self.market.rate)
        self.session = date.min
        self.closed: dict[str, list[ClosedBooks]] = {A: [], B: []}
        self._orders = 900_000

    # -- what is done -------------------------------------------------------------------------

    def at(self, hour: int, minute: int = 0, *, day: date | None = None) -> datetime:
        """Return a time of the present session, or of another day, in New York."""
        return datetime.combine(day or self.session, time(hour, minute), NEW_YORK)

    def trade(
        self,
        account: str,
        security: Security,
        quantity: float,
        *,
        above: str = "0",
        commission: str = "1",
        commission_currency: str = "",
        hour: int = 10,
        order: int = 0,
        codes: str = "",
    ) -> TradeEntry:
        """Trade near the price of the close.

        Args:
            above: By how much the price is above that of the close.
        """
        return self.office.trade(
            account,
            security,
            D(str(quantity)),
            self.market.price(security) + D(above),
            self.at(hour, 31),
            commission=D(commission),
            commission_currency=commission_currency,
            order=order,
            codes=codes,
        )

    def roll(self, account: str, old: Security, new: Security, quantity: int) -> None:
        """Close a quantity of one option and open as much of another one, in one order."""
        self._orders += 1
        for security, change in ((old, -quantity), (new, quantity)):
            self.trade(account, security, change, commission="0.65", order=self._orders)

    # -- the end of a session -----------------------------------------------------------------

    def close(self) -> None:
        """Close the books of the present session."""
        for books in self.office.close(self.session, self.market.price):
            self.closed[books.account].append(books)

    def books(self, account: str, session: date) -> ClosedBooks:
        """Return the closed books of a session."""
        return next(books for books in self.closed[account] if books.session == session)

    def profit(self, account: str, session: date) -> dict[str, Decimal]:
        """Return by how much wealth grew by itself in a session, by currency.

        The accounts are empty before their first session.
        """
        after = self.books(account, session)
        before = None if after.previous is None else self.books(account, after.previous)
        return profit_between(before, after)

    def statement(
        self,
        account: str,
        first: date,
        last: date | None = None,
        *,
        query: FlexQuery = DAILY,
        days_later: int = 1,
        books: Sequence[ClosedBooks] | None = None,
    ) -> Delivery:
        """Return the statement of an account over some sessions, as it is made some days later.

        Args:
            books: What it says, if that is not what is true.
        """
        last = last or first
        told = books or [one for one in self.closed[account] if first <= one.session <= last]
        made = datetime.combine(last + timedelta(days=days_later), MADE_AT, NEW_YORK)
        text = f"{query.name}-{account}-{first:%Y%m%d}-{last:%Y%m%d}-{made:%Y%m%d}"
        content = statement_xml(told, self.office.securities, made=made, query=query)
        return Delivery(name=f"{text}.xml", content=content)


Action = Callable[[Broker], None]
Deliveries = Callable[[Broker], list[Delivery]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What happens in some sessions.

    Attributes:
        sessions: In their order.
        actions: What is done in a session, before its books are closed.
        deliveries: What arrives in the night after a session, instead of its two statements.
        with_gateway: The sessions in which the program runs beside a gateway.
        after_gaps: The sessions before which the program knows nothing: no profit is explained.
    """

    sessions: Sequence[date]
    actions: Mapping[date, Action] = field(default_factory=dict)
    deliveries: Mapping[date, Deliveries] = field(default_factory=dict)
    with_gateway: frozenset[date] = frozenset()
    after_gaps: frozenset[date] = frozenset()

    def without_gaps(self) -> list[list[date]]:
        """Return the sessions, in parts between which the program knows nothing."""
        parts: list[list[date]] = [[]]
        for session in self.sessions:
            if session in self.after_gaps:
                parts.append([])
            parts[-1].append(session)
        return parts

    def play(self, broker: Broker, session: date) -> None:
        """Let a session pass at the broker, until its close."""
        broker.session = session
        broker.market.move(session)
        if session in self.actions:
            self.actions[session](broker)
        broker.close()

    def delivered(self, broker: Broker, session: date) -> list[Delivery]:
        """Return the files that arrive in the night after a session."""
        if session in self.deliveries:
            return self.deliveries[session](broker)
        return [broker.statement(account, session) for account in broker.closed]
