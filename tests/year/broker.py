"""The simulated broker: its books, what is done in them, and the statements it delivers.

Its own wealth is the measure of the program: `Broker.profit` shares no code with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from ib_gateway_simulator.clearing.activity_statement import FlexQuery, statement_xml
from ib_gateway_simulator.clearing.back_office import BackOffice, ClosedBooks, profit_between
from ib_gateway_simulator.clearing.entries import TradeEntry
from ib_gateway_simulator.clearing.securities import Category, Security
from tests.year.exchanges import NEW_YORK, session_before
from tests.year.market import D, MovingMarket

# An account in dollars and one in euros.
A = "DUSIM0001"
B = "DUSIM0002"

DAILY = FlexQuery()

# When the statement of a session is made, in the night after it.
MADE_AT = time(2, 10)

# When trades are executed, when options on an index are settled at the open, when others end.
TRADED_AT = time(10, 32)
SETTLED_AT = time(9, 35)
ENDED_AT = time(16, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A file that arrives before a morning."""

    name: str
    content: bytes


class Broker:
    """Two accounts, and a statement of each session for each of them.

    Attributes:
        session: The session that is under way.
        closed: The closed books of each account.
    """

    def __init__(self, seed: int) -> None:
        self.market = MovingMarket(seed)
        self.office = BackOffice({A: "USD", B: "EUR"}, self.market.rate)
        self.session = date.min
        self.closed: dict[str, list[ClosedBooks]] = {A: [], B: []}
        self._orders = 900_000

    # -- what is done -------------------------------------------------------------------------

    def at(self, moment: time, *, day: date | None = None) -> datetime:
        """Return a time of the present session, or of another day, in New York."""
        return datetime.combine(day or self.session, moment, NEW_YORK)

    def trade(
        self,
        account: str,
        security: Security,
        quantity: float,
        *,
        above: str = "0",
        at: time = TRADED_AT,
        order: int = 0,
        codes: str = "",
    ) -> TradeEntry:
        """Trade near the price of the close, for a commission by the kind of security.

        Args:
            above: By how much the price is above that of the close.
            at: When, on the present session.
        """
        is_priced_each = security.is_option or security.category is Category.FUTURE
        commission = D("1.25")
        if is_priced_each:
            commission = D("0.65") * abs(D(str(quantity)))

        return self.office.trade(
            account,
            security,
            D(str(quantity)),
            max(self.market.price(security) + D(above), D("0.0001")),
            self.at(at),
            commission=commission,
            order=order,
            codes=codes,
        )

    def trade_together(
        self, account: str, changes: Sequence[tuple[Security, int]], at: time = TRADED_AT
    ) -> None:
        """Trade several securities in one order, as a spread or a roll is."""
        self._orders += 1
        for security, quantity in changes:
            self.trade(account, security, quantity, at=at, order=self._orders)

    # -- the end of a session -----------------------------------------------------------------

    def close(self) -> None:
        """Close the books of the present session."""
        for books in self.office.close(self.session, self.market.price):
            self.closed[books.account].append(books)

    def books(self, account: str, session: date) -> ClosedBooks:
        """Return the closed books of a session."""
        newest_first = reversed(self.closed[account])
        return next(books for books in newest_first if books.session == session)

    def has_closed(self, session: date) -> bool:
        """Return whether the books of a session are closed."""
        return any(books.session == session for books in self.closed[A][-2:])

    def has_passed(self, session: date) -> bool:
        """Return whether a session is one of those that were played."""
        return any(books.session == session for books in self.closed[A])

    def profit(self, account: str, session: date) -> dict[str, Decimal]:
        """Return by how much wealth grew by itself in a session, by currency.

        The accounts are empty before their first session.
        """
        after = self.books(account, session)
        before = None
        if after.previous is not None:
            before = self.books(account, after.previous)

        return profit_between(before, after)

    def held_at(self, account: str, at: datetime) -> dict[int, Decimal]:
        """Return the quantities of an account at a moment of the present session, by conid."""
        return self.books(account, self.session).quantities_at(at)

    def statement(
        self,
        account: str,
        first: date,
        last: date | None = None,
        *,
        query: FlexQuery = DAILY,
        days_later: float = 1,
        books: Sequence[ClosedBooks] | None = None,
    ) -> Delivery:
        """Return the statement of an account over some sessions, as it is made some days later.

        Args:
            books: What it says, if that is not what is true.
        """
        last = last or first
        covered = [closed for closed in self.closed[account] if first <= closed.session <= last]
        made = datetime.combine(last, MADE_AT, NEW_YORK) + timedelta(days=days_later)
        text = f"{query.name}-{account}-{first:%Y%m%d}-{last:%Y%m%d}-{made:%Y%m%d}"
        content = statement_xml(books or covered, self.office.securities, made=made, query=query)
        return Delivery(name=f"{text}.xml", content=content)

    def statements(self, session: date, *, days_later: int = 1) -> list[Delivery]:
        """Return the statements of a session for all accounts."""
        return [self.statement(account, session, days_later=days_later) for account in self.closed]

    def previous_session(self) -> date:
        """Return the session before the present one."""
        return session_before(self.session)
