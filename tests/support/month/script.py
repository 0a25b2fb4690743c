"""What happens in the simulated months: a function for each session in which something does.

Two weeks around Christmas and New Year, and one in which New York changes its clocks.
"""

from dataclasses import replace
from datetime import date
from decimal import Decimal

from ib_gateway_simulator.clearing.activity_statement import (
    ALL_SECTIONS,
    CASH,
    EQUITY,
    POSITIONS,
    TRADES,
    FlexQuery,
)
from ib_gateway_simulator.clearing.back_office import ClosedBooks
from ib_gateway_simulator.clearing.entries import CashEntry, TradeEntry
from tests.support.month.broker import A, B, Broker, Delivery, Script
from tests.support.month.market import (
    AAPL,
    BILL,
    CHRISTMAS,
    ES,
    ESTX50,
    EUR_USD,
    FUND,
    GBP_USD,
    MES,
    MSFT,
    NEW,
    OLD,
    SAP,
    SPX,
    SUMMER_TIME,
    TOYOTA,
    TREASURY,
    USD_JPY,
    VOD,
    XYZ,
    D,
    option,
)

# -- December ---------------------------------------------------------------------------------

PUT_220, CALL_215 = option(AAPL, "20251219", "P", 220), option(AAPL, "20251219", "C", 215)
CALL_235, CALL_240 = option(AAPL, "20260102", "C", 235), option(AAPL, "20260109", "C", 240)
PUT_230 = option(AAPL, "20260116", "P", 230)
BEFORE_SPLIT, AFTER_SPLIT = option(XYZ, "20260116", "C", 400), option(XYZ, "20260116", "C", 100)
PM_PUT, PM_LOWER = option(SPX, "20251217", "P", 6850), option(SPX, "20251217", "P", 6600)
AM_CALL, AM_PUT = option(SPX, "20251219", "C", 6700), option(SPX, "20251219", "P", 6500)
SAME_DAY = option(SPX, "20251223", "P", 6700)
EUREX_CALL = option(ESTX50, "20251219", "C", 5600, multiplier=10)
ES_PUT = option(ES, "20251219", "P", 6600)


def _monday_15(broker: Broker) -> None:
    """Open the accounts: money comes in, currencies are bought, and then the book."""
    office, at = broker.office, broker.at
    office.pay(A, "Deposits/Withdrawals", D(900_000), "USD", at(8))
    office.pay(B, "Deposits/Withdrawals", D(400_000), "EUR", at(8))
    broker.trade(A, EUR_USD, 60_000, commission="2", hour=9)
    broker.trade(A, GBP_USD, 30_000, commission="2", hour=9)
    broker.trade(A, USD_JPY, -40_000, commission="2", commission_currency="USD", hour=9)
    broker.trade(B, EUR_USD, -50_000, commission="2", hour=9)

    broker.trade(A, AAPL, 100, above="-0.5")
    broker.trade(A, XYZ, 40, above="1.2")
    broker.trade(A, OLD, 300)
    broker.trade(A, VOD, 5_000, above="-0.0032", commission="6")
    broker.trade(A, TOYOTA, 100, above="12", commission="400")
    broker.trade(A, SAP, 50, above="0.4", commission="3")
    broker.trade(A, TREASURY, 20_000, above="0.15", commission="5")
    broker.trade(A, FUND, 25, commission="0")
    broker.trade(B, SAP, 200, above="-0.9", commission="4.25")

    broker.trade(A, PUT_220, -2, above="0.05", commission="1.3")
    broker.trade(A, CALL_215, 1, commission="0.65")
    broker.trade(A, CALL_235, -1, commission="0.65")
    broker.trade(A, BEFORE_SPLIT, 1, commission="0.65")
    broker.trade(A, PM_PUT, -1, commission="1.1")
    broker.trade(A, PM_LOWER, 1, commission="1.1")
    broker.trade(A, AM_CALL, -2, commission="2.2")
    broker.trade(A, AM_PUT, 1, commission="1.1")
    broker.trade(A, ES_PUT, -1, commission="1.42")
    broker.trade(A, MES, 2, above="-3.25", commission="1.24")
    broker.trade(B, EUREX_CALL, 3, commission="4.5")


def _tuesday_16(broker: Broker) -> None:
    """Buy more; the commissions of account B are in euros, also for a share in dollars."""
    broker.trade(A, AAPL, 10, above="-3")
    broker.trade(B, MSFT, 20, above="1.75", commission="0.93", commission_currency="EUR")
    broker.trade(B, PUT_230, -1, commission="0.6", commission_currency="EUR")
    broker.office.pay(A, "Broker Interest Received", D("31.07"), "USD", broker.at(20, 20))


def _wednesday_17(broker: Broker) -> None:
    """Settle options on an index in the evening, and take over shares from another broker."""
    broker.market.set(SPX, 6812.34)
    for put in (PM_PUT, PM_LOWER):
        broker.office.end_option(A, put, broker.at(16, 20), level=D("6812.34"))
    broker.office.transfer(A, MSFT, D(50), D("24012.50"), broker.at(11))


def _thursday_18(broker: Broker) -> None:
    """Split a share, and the option on it: dated the evening before, reported today."""
    evening = broker.at(20, 25, day=date(2025, 12, 17))
    broker.market.split(XYZ, 4)
    changes = {XYZ: D(120), BEFORE_SPLIT: D(-1), AFTER_SPLIT: D(4)}
    broker.office.act(A, changes, "FS", evening, report_day=broker.session)


def _friday_19(broker: Broker) -> None:
    """End options in every way: at the open, by delivery, by a future, and worthless.

    The broker reports what it assigned in the evening on Monday; what is exercised, today.
    """
    broker.market.set(AAPL, 217.25)
    broker.market.set(ES, 6510.0)
    broker.market.set(MES, 6510.0)
    office, evening = broker.office, broker.at(16, 20)
    for dollars in (AM_CALL, AM_PUT):
        office.end_option(A, dollars, broker.at(9, 35), level=D("6777.77"))
    office.end_option(B, EUREX_CALL, broker.at(12), level=D("5698.4"))
    office.end_option(A, CALL_215, evening, level=D("217.25"))
    office.end_option(A, ES_PUT, evening, level=D(6510))
    office.end_option(A, PUT_220, evening, level=D("217.25"), report_day=date(2025, 12, 22))
    interest = broker.at(0, day=date(2025, 12, 21))
    office.pay(A, "Broker Interest Paid", D("-12.34"), "USD", interest)


def _monday_22(broker: Broker) -> None:
    """Pay a dividend with tax, and take over shares of which no value is stated."""
    office, at = broker.office, broker.at
    office.pay(A, "Dividends", D("120"), "USD", at(20, 20), security=MSFT)
    office.pay(A, "Withholding Tax", D("-18"), "USD", at(20, 20), security=MSFT)
    office.pay(B, "Dividends", D("83.20"), "EUR", at(12), security=SAP)
    office.transfer(A, SAP, D(30), None, at(11))
    broker.trade(A, AAPL, 25, above="0.11")


def _tuesday_23(broker: Broker) -> None:
    """Roll an option, and sell and buy another one within its last day."""
    broker.roll(A, CALL_235, CALL_240, -1)
    broker.trade(A, SAME_DAY, -2, above="1.5", commission="2.2")
    broker.trade(A, SAME_DAY, 2, above="0.2", commission="2.2", hour=14)
    broker.trade(A, ES, -1, above="4.5", commission="2.1")


def _wednesday_24(broker: Broker) -> None:
    """Trade before the early close, and pay for market data."""
    broker.trade(A, AAPL, -35, above="0.4", hour=12)
    broker.office.pay(A, "Other Fees", D("-10"), "USD", broker.at(9))
    broker.office.pay(B, "Other Fees", D("-4.5"), "EUR", broker.at(9))


def _friday_26(broker: Broker) -> None:
    """Buy a bill; the broker converts money by itself."""
    broker.trade(A, BILL, 10_000, commission="5")
    broker.trade(A, EUR_USD, 1_234, commission="0", codes="AFx")
    broker.office.accrue(A, "interestAccruals", D("17.5"))
    broker.office.accrue(A, "dividendAccruals", D("44"))


def _monday_29(broker: Broker) -> None:
    """Move money: the owner brings dollars and takes euros."""
    office, at = broker.office, broker.at
    office.pay(A, "Deposits/Withdrawals", D(25_000), "USD", at(10))
    office.pay(B, "Deposits/Withdrawals", D(-7_500), "EUR", at(10))
    broker.trade(A, AFTER_SPLIT, -2, above="0.1", commission="1.3")


def _tuesday_30(broker: Broker) -> None:
    """Take shares to another broker."""
    value = D(-20) * broker.market.price(MSFT)
    broker.office.transfer(A, MSFT, D(-20), value, broker.at(11))
    broker.trade(B, SAP, -50, above="0.6", commission="4.25")


def _wednesday_31(broker: Broker) -> None:
    """Accrue until the end of the year, and pay on the holiday."""
    office, holiday = broker.office, date(2026, 1, 1)
    office.accrue(A, "interestAccruals", D("8.25"))
    office.accrue(B, "interestAccruals", D("-3.1"))
    office.pay(A, "Bond Interest Received", D("425"), "USD", broker.at(8, day=holiday))


# -- January ----------------------------------------------------------------------------------


def _friday_2(broker: Broker) -> None:
    """Pay the dividend that was accrued."""
    broker.office.pay(A, "Dividends", D("44"), "USD", broker.at(20, 20), security=AAPL)
    broker.office.accrue(A, "dividendAccruals", D(-44))
    broker.trade(A, MES, 1, above="-5", commission="0.62")


def _monday_5(broker: Broker) -> None:
    """Assign a put before its end, and pay the interest that was accrued."""
    office, at = broker.office, broker.at
    broker.market.set(AAPL, 221.4)
    office.end_option(B, PUT_230, at(20, 25), level=D("221.4"))
    for account, amount in ((A, "25.75"), (B, "-3.1")):
        kind = "Received" if amount[0] != "-" else "Paid"
        currency = "USD" if account == A else "EUR"
        office.pay(account, f"Broker Interest {kind}", D(amount), currency, at(20, 20))
        office.accrue(account, "interestAccruals", -D(amount))


def _tuesday_6(broker: Broker) -> None:
    """Merge a company: shares become cash and other shares."""
    changes = {OLD: D(-300), NEW: D(60)}
    broker.office.act(A, changes, "TC", broker.at(9), proceeds=D("8700"))


def _wednesday_7(broker: Broker) -> None:
    """Sell the bond and a part of the fund, and correct a commission."""
    broker.trade(A, TREASURY, -20_000, above="-0.05", commission="5")
    broker.trade(A, FUND, -10, commission="14.95")
    broker.office.pay(A, "Commission Adjustments", D("0.35"), "USD", broker.at(18))


def _thursday_8(broker: Broker) -> None:
    """Sell in London and Tokyo."""
    broker.trade(A, VOD, -2_000, above="0.0011", commission="6")
    broker.trade(A, TOYOTA, -100, above="-4", commission="400")


def _friday_9(broker: Broker) -> None:
    """Let an option end worthless."""
    broker.market.set(AAPL, 225.0)
    broker.office.end_option(A, CALL_240, broker.at(16, 20), level=D(225))


def _wrong_books(books: ClosedBooks) -> ClosedBooks:
    """Return books as the first statement of a day had them: an amount and a trade are wrong."""
    entries = []
    for entry in books.entries:
        told = entry
        if isinstance(entry, CashEntry) and entry.amount == 120:
            told = replace(entry, amount=D("112.5"))
        elif isinstance(entry, TradeEntry) and entry.quantity == 25:
            told = replace(entry, price=entry.price + 2)
        entries.append(told)
    named_once = next(entry for entry in entries if isinstance(entry, TradeEntry))
    never_made = replace(named_once, number=named_once.number + 1_000_000, quantity=D(3))
    return replace(books, entries=(*entries, never_made))


def _wrong_first(broker: Broker) -> list[Delivery]:
    session = broker.session
    wrong = _wrong_books(broker.books(A, session))
    return [broker.statement(A, session, books=[wrong]), broker.statement(B, session)]


def _corrected(broker: Broker) -> list[Delivery]:
    """Return the statements of a session, and the corrected one of the session before."""
    before = broker.books(A, broker.session).previous
    assert before is not None
    corrected = broker.statement(A, before, days_later=2)
    return [corrected, *(broker.statement(account, broker.session) for account in (A, B))]


def _nothing(_broker: Broker) -> list[Delivery]:
    return []


def _late(broker: Broker) -> list[Delivery]:
    """Return the statements of a session, and those of the session before, which came late."""
    found: list[Delivery] = []
    for account in (A, B):
        previous = broker.books(account, broker.session).previous
        assert previous is not None
        late = broker.statement(account, previous, days_later=3)
        found += [late, broker.statement(account, broker.session)]
    return found


# A second query of the same account, with fewer sections and other fields.
SECOND_QUERY = FlexQuery(
    name="weekly",
    sections=frozenset({POSITIONS, TRADES, CASH, EQUITY}),
    without=frozenset({"transactionID", "settleDate", "fxRateToBase", "netCash", "taxes"}),
    date_format="%Y-%m-%d",
    futures_at_notional=False,
)
# Without the days in whose statements the entries are, which here are those of their times.
WITHOUT_REPORT_DATE = replace(SECOND_QUERY, name="confirmations", without=frozenset(
    {"reportDate", "transactionID", "tradeID"}), sections=ALL_SECTIONS - {POSITIONS, EQUITY},
)  # fmt: skip


def _again_by_another_query(broker: Broker) -> list[Delivery]:
    """Return the statements of a session, and one of the days since Monday by another query."""
    monday = date(2025, 12, 29)
    usual = [broker.statement(account, broker.session) for account in (A, B)]
    again = broker.statement(A, monday, broker.session, query=SECOND_QUERY, days_later=2)
    return [*usual, again]


def _again_without_report_dates(broker: Broker) -> list[Delivery]:
    usual = [broker.statement(account, broker.session) for account in (A, B)]
    first = date(2026, 1, 6)
    again = broker.statement(A, first, broker.session, query=WITHOUT_REPORT_DATE, days_later=2)
    return [*usual, again]


# -- March ------------------------------------------------------------------------------------

SUMMER_PUT = option(AAPL, "20260313", "P", 210)


def _thursday_5_march(broker: Broker) -> None:
    broker.trade(A, SUMMER_PUT, -1, commission="0.65")


def _friday_6_march(broker: Broker) -> None:
    """Pay interest in the night of the hour that does not exist."""
    sunday = date(2026, 3, 8)
    broker.office.pay(A, "Broker Interest Received", D("9.99"), "USD", broker.at(3, day=sunday))
    broker.trade(B, SAP, 10, above="0.2", commission="3")


def _monday_9_march(broker: Broker) -> None:
    broker.trade(A, AAPL, -50, above="0.7", hour=9)
    broker.trade(B, SAP, -20, above="0.3", commission="3")


def _friday_13_march(broker: Broker) -> None:
    broker.market.set(AAPL, 211.0)
    broker.office.end_option(A, SUMMER_PUT, broker.at(16, 20), level=Decimal(211))


ACTIONS = {
    date(2025, 12, 15): _monday_15, date(2025, 12, 16): _tuesday_16,
    date(2025, 12, 17): _wednesday_17, date(2025, 12, 18): _thursday_18,
    date(2025, 12, 19): _friday_19, date(2025, 12, 22): _monday_22,
    date(2025, 12, 23): _tuesday_23, date(2025, 12, 24): _wednesday_24,
    date(2025, 12, 26): _friday_26, date(2025, 12, 29): _monday_29,
    date(2025, 12, 30): _tuesday_30, date(2025, 12, 31): _wednesday_31,
    date(2026, 1, 2): _friday_2, date(2026, 1, 5): _monday_5, date(2026, 1, 6): _tuesday_6,
    date(2026, 1, 7): _wednesday_7, date(2026, 1, 8): _thursday_8, date(2026, 1, 9): _friday_9,
    date(2026, 3, 5): _thursday_5_march, date(2026, 3, 6): _friday_6_march,
    date(2026, 3, 9): _monday_9_march, date(2026, 3, 13): _friday_13_march,
}  # fmt: skip

DELIVERIES = {
    date(2025, 12, 22): _wrong_first,
    date(2025, 12, 23): _corrected,
    date(2025, 12, 26): _nothing,
    date(2025, 12, 29): _late,
    date(2025, 12, 31): _again_by_another_query,
    date(2026, 1, 8): _again_without_report_dates,
}

WITH_GATEWAY = frozenset({
    date(2025, 12, 16), date(2025, 12, 17), date(2025, 12, 18), date(2025, 12, 23),
    date(2025, 12, 24), date(2026, 1, 2), date(2026, 3, 9), date(2026, 3, 10),
})  # fmt: skip

# The session after two months without any statement.
AFTER_GAPS = frozenset({SUMMER_TIME[0]})

# To the Monday after the first Friday, whose options end in every way.
FIRST_WEEK = Script(
    sessions=CHRISTMAS[:6],
    actions=ACTIONS,
    with_gateway=WITH_GATEWAY,
)
MONTH = Script(
    sessions=[*CHRISTMAS, *SUMMER_TIME],
    actions=ACTIONS,
    deliveries=DELIVERIES,
    with_gateway=WITH_GATEWAY,
    after_gaps=AFTER_GAPS,
)
