"""What happens besides the strategies: money, dividends, late statements, gaps.

Everything is decided by the seed and the day.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, time, timedelta
from enum import StrEnum

from ib_gateway_simulator.clearing.activity_statement import (
    CASH,
    EQUITY,
    POSITIONS,
    TRADES,
    FlexQuery,
)
from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import CashEntry, TradeEntry
from ib_gateway_simulator.clearing.securities import Security
from tests.year import actions
from tests.year.book import Book
from tests.year.broker import A, B, Broker, Delivery
from tests.year.exchanges import FIRST, frankfurt_trades, session_after
from tests.year.market import (
    AAPL,
    EUR_USD,
    GBP_USD,
    MSFT,
    OLD,
    SAP,
    VOD,
    D,
)

# On this day the clock of the machine is this much ahead for a while.
JUMP_DAY = date(2027, 1, 14)
JUMP = timedelta(minutes=40)
# The statements of this day come five sessions later.
LATE_DAY = date(2027, 2, 23)
LATE_UNTIL = date(2027, 3, 2)
DIVIDEND_MONTHS = {2, 5, 8, 11}

# A second query of the same account, with fewer sections and other fields.
SECOND_QUERY = FlexQuery(
    name="weekly",
    sections=frozenset({POSITIONS, TRADES, CASH, EQUITY}),
    without=frozenset({"transactionID", "settleDate", "fxRateToBase", "netCash", "taxes"}),
    date_format="%Y-%m-%d",
    futures_at_notional=False,
)


class Night(StrEnum):
    """What arrives in the night after a session."""

    USUAL = "usual"
    LATE = "late"
    WRONG = "wrong"
    AGAIN = "again"


def let_pass(broker: Broker, book: Book, session: date, seed: int) -> None:
    """Let a session pass at the broker, until its books are closed."""
    is_first = not broker.closed[A]
    broker.session = session
    broker.market.move(session)
    if is_first:
        open_accounts(broker)
        book.open_all(broker)
    else:
        happen(broker, book, seed)
        book.trade(broker)
    book.end_options(broker)
    broker.close()


def open_accounts(broker: Broker) -> None:
    """Bring money, buy currencies, and buy what the corporate actions need."""
    office = broker.office
    office.pay(A, "Deposits/Withdrawals", D(3_000_000), "USD", broker.at(time(8)))
    office.pay(B, "Deposits/Withdrawals", D(900_000), "EUR", broker.at(time(8)))
    broker.trade(A, EUR_USD, 60_000)
    broker.trade(A, GBP_USD, 30_000)
    broker.trade(B, EUR_USD, -50_000)
    broker.trade(A, OLD, 300)
    broker.trade(A, VOD, 5_000)


def happen(broker: Broker, book: Book, seed: int) -> None:
    """Let happen what the day has besides the strategies."""
    session = broker.session
    office = broker.office
    chance = random.Random(f"{seed}:{session}:events")
    actions.act(broker, book)
    if chance.random() < 0.08:
        amount = D(chance.randrange(-40, 60) * 1_000 + 500)
        office.pay(A, "Deposits/Withdrawals", amount, "USD", broker.at(time(11)))
    if chance.random() < 0.05:
        broker.trade(A, EUR_USD, 1_234, codes="AFx")

    if chance.random() < 0.05:
        amount = D(7) * broker.market.price(VOD) * 100
        office.transfer(A, VOD, D(700), amount, broker.at(time(11)))
    if chance.random() < 0.3 and frankfurt_trades(session):
        broker.trade(B, SAP, chance.choice((-20, 10, 30)), above="0.4")
    _pay_by_calendar(broker)
    _trade_on_holidays(broker)


def _pay_by_calendar(broker: Broker) -> None:
    """Pay interest, dividends and fees on the days on which brokers do."""
    session = broker.session
    office = broker.office
    evening = broker.at(time(20, 20))
    is_first = session.month != broker.previous_session().month
    if is_first:
        office.pay(A, "Other Fees", D("-10"), "USD", broker.at(time(9)))
        office.pay(B, "Broker Interest Paid", D("-3.1"), "EUR", evening)
        office.pay(A, "Broker Interest Received", D("31.07"), "USD", evening)
    if is_first and session.month in DIVIDEND_MONTHS:
        for security, amount in ((AAPL, "0.26"), (MSFT, "0.83")):
            _pay_dividend(broker, A, security, amount)
        _pay_dividend(broker, B, SAP, "0.55")
    if session.day in (15, 16) and session.weekday() < 2:
        office.accrue(A, "interestAccruals", D("8.25"))
        office.accrue(B, "dividendAccruals", D("12.4"))


def _pay_dividend(broker: Broker, account: str, security: Security, amount: str) -> None:
    held = broker.office.held(account, security)
    gross = (held * D(amount)).quantize(D("0.01"))
    if not gross:
        return

    evening = broker.at(time(20, 20))
    currency = security.currency
    broker.office.pay(account, "Dividends", gross, currency, evening, security=security)
    tax = (gross * D("-0.15")).quantize(D("0.01"))
    broker.office.pay(account, "Withholding Tax", tax, currency, evening, security=security)


def _trade_on_holidays(broker: Broker) -> None:
    """Trade in Frankfurt on the days before this session on which New York was closed."""
    before = broker.previous_session()
    day = before + timedelta(days=1)
    while day < broker.session and broker.has_closed(before):
        if frankfurt_trades(day):
            price = broker.market.price(SAP) + D("0.2")
            at = broker.at(time(5), day=day)
            broker.office.trade(B, SAP, D(10), price, at, commission=D(3))
        day += timedelta(days=1)


# -- nights ---------------------------------------------------------------------------------------


def night_after(session: date, seed: int) -> Night:
    """Return what the night after a session is like; nothing odd follows itself."""
    if LATE_DAY <= session <= LATE_UNTIL:
        return Night.USUAL
    if _drawn(_before(session), seed) is Night.USUAL:
        return _drawn(session, seed)

    return Night.USUAL


def _before(session: date) -> date:
    return session - timedelta(days=3 if session.weekday() == 0 else 1)


def _drawn(session: date, seed: int) -> Night:
    chance = random.Random(f"{seed}:{session}:night").random()
    if session <= FIRST + timedelta(days=1):
        return Night.USUAL
    for night, bound in ((Night.LATE, 0.07), (Night.WRONG, 0.14), (Night.AGAIN, 0.2)):
        if chance < bound:
            return night
    return Night.USUAL


def delivered(broker: Broker, seed: int) -> list[Delivery]:
    """Return the files that arrive in the night after the present session."""
    session = broker.session
    before = broker.previous_session()
    night = night_after(session, seed)
    files: list[Delivery] = []
    night_before = Night.USUAL
    if broker.has_closed(before):
        night_before = night_after(before, seed)

    if night_before is Night.LATE:
        files += broker.statements(before, days_later=2)
    if session == LATE_UNTIL and broker.has_passed(LATE_DAY):
        files += broker.statements(LATE_DAY, days_later=8)
    if night_before is Night.WRONG:
        files.append(broker.statement(A, before, days_later=2))

    if night is Night.LATE or session == LATE_DAY:
        return files
    if night is Night.WRONG:
        wrong = wrong_books(broker.books(A, session))
        return [*files, broker.statement(A, session, books=[wrong]), broker.statement(B, session)]
    if night is Night.AGAIN and broker.has_closed(before):
        again = broker.statement(A, before, session, query=SECOND_QUERY, days_later=1.02)
        files.append(again)
    return [*files, *broker.statements(session)]


def is_told(session: date, by: date) -> bool:
    """Return whether the statements that a session needs arrive by the night after a day."""
    return not LATE_DAY <= session <= by < LATE_UNTIL


def is_explained_next_morning(session: date, seed: int) -> bool:
    """Return whether the statements of a session arrive in the night after it, and are right."""
    return session != LATE_DAY and night_after(session, seed) in (Night.USUAL, Night.AGAIN)


def wrong_books(books: ClosedBooks) -> ClosedBooks:
    """Return books as the first statement of a day had them: a price is wrong, a trade invented."""
    entries = [_wrong(entry, number) for number, entry in enumerate(books.entries)]
    trades = [entry for entry in entries if isinstance(entry, TradeEntry)]
    invented = [
        replace(entry, number=entry.number + 1_000_000, quantity=D(3)) for entry in trades[:1]
    ]
    return replace(books, entries=(*entries, *invented))


def _wrong(entry: object, number: int) -> object:
    if isinstance(entry, CashEntry):
        return replace(entry, amount=entry.amount + D("7.5"))
    if isinstance(entry, TradeEntry) and number == 0:
        return replace(entry, price=entry.price + 2)
    return entry


# -- gaps -----------------------------------------------------------------------------------------


def downtime(first: date, session: date) -> Sequence[date]:
    """Return the sessions, from this one on, in which the program does not run.

    Once in seven weeks it is down for a day, once in a quarter for three weeks.
    """
    weeks = (session - first).days // 7
    if session.weekday() == 2 and weeks % 7 == 5:
        return [session]
    if session.weekday() == 0 and weeks % 13 == 7:
        days = [session]
        while (session_after(days[-1]) - session).days < 19:
            days.append(session_after(days[-1]))
        return days
    return []
