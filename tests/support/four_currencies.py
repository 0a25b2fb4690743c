"""Ten statements of two accounts in four currencies, and the profit of each day, done by hand.

The first files state a trade and a dividend wrong, and lack a day; later ones correct them.

| | Mon 2 | Tue 3 | Wed 4 | Thu 5 | Fri 6 | Mon 9 |
|---|---|---|---|---|---|---|
| AAPL, USD | 220 | 225 | 224 | 226 | 227 | 230 |
| SAP, EUR | 200 | 202 | 201 | 203 | 203 | 205 |
| VOD, GBP (in pounds) | 0.73 | 0.735 | 0.74 | 0.742 | 0.7385 | 0.745 |
| Toyota, JPY | 3000 | 3010 | 3005 | 2990 | 3020 | 3050 |
| MSFT, USD | 480 | 481 | 478 | 485 | 490 | 484 |
"""

from collections.abc import Mapping, Sequence
from datetime import date

from tests.support.flex_files import element, statement

A = "DUSIM0001"
B = "DUSIM0002"

DAYS = tuple(date(2026, 3, day) for day in (2, 3, 4, 5, 6, 9))

_SHARES = {
    "AAPL": (265598, "USD"), "SAP": (14204, "EUR"), "VOD": (9921, "GBP"),
    "7203": (9331, "JPY"), "MSFT": (272093, "USD"),
}  # fmt: skip


def _of_days(text: str) -> dict[str, list[str]]:
    """Return what the lines of a table have for each day, by their first word."""
    return {symbol: texts for symbol, *texts in map(str.split, text.strip().splitlines())}


_PRICES = _of_days("""
    AAPL   220    225     224    226     227      230
    SAP    200    202     201    203     203      205
    VOD      0.73   0.735   0.74   0.742   0.7385   0.745
    7203  3000   3010    3005   2990    3020     3050
    MSFT   480    481     478    485     490      484
""")

# What account A holds at the end of each day, and account B on the first two.
_HELD_A = _of_days("""
    AAPL   100   110   110   110   100   100
    SAP     50    50    50    70    70    70
    VOD   2000  2000  7000  7000  7000  7000
    7203   100   100   100   100     0     0
    MSFT     0     0     0    50    50   200
""")
_HELD_B = _of_days("""
    SAP   200  150
    AAPL    0   20
""")

# A split of MSFT, four for one, after the close of Friday: its price is that of a new share.
SPLIT_PRICE = "121"

_Rows = Mapping[str, Sequence[str]]


def _fields(symbol: str) -> dict[str, str]:
    conid, currency = _SHARES[symbol]
    return dict(
        currency=currency, assetCategory="STK", symbol=symbol, conid=str(conid),
        underlyingSymbol=symbol, multiplier="1", strike="", expiry="", putCall="",
    )  # fmt: skip


def _position(account: str, symbol: str, number: int, held: int) -> str:
    price = _PRICES[symbol][number]
    if symbol == "MSFT" and number == 5:
        price = SPLIT_PRICE
    stated = dict(
        reportDate=f"{DAYS[number]:%Y%m%d}", position=str(held), markPrice=price,
        positionValue=f"{held * float(price):.4f}", levelOfDetail="SUMMARY",
    )  # fmt: skip
    return element("OpenPosition", {"accountId": account} | _fields(symbol) | stated)


def _trade(
    number: int, symbol: str, quantity: int, price: str, commission: str, **more: str
) -> str:
    """Return a trade of account A, or of another one, on a day of the table."""
    day = f"{DAYS[number]:%Y%m%d}"
    day_id = f"{DAYS[number]:%d}"
    stated = dict(
        tradeID=f"10{day_id}{abs(quantity)}", transactionID=f"50{day_id}{abs(quantity)}",
        ibExecID=f"0000e{day_id}.{abs(quantity)}.01.01", reportDate=day, tradeDate=day,
        dateTime=f"{day};103000", transactionType="ExchTrade",
        buySell="BUY" if quantity > 0 else "SELL", quantity=str(quantity),
        tradePrice=price, proceeds=f"{-quantity * float(price):.4f}",
        ibCommission=commission, ibCommissionCurrency=_SHARES[symbol][1],
        levelOfDetail="EXECUTION",
    )  # fmt: skip
    return element("Trade", {"accountId": A} | _fields(symbol) | stated | more)


def _conversion(number: int) -> str:
    day = f"{DAYS[number]:%Y%m%d}"
    return element("Trade", dict(
        accountId=A, currency="USD", assetCategory="CASH", symbol="EUR.USD",
        conid="12087792", multiplier="1", tradeID="1099", transactionID="5099",
        ibExecID="0000fx.1.01.01", reportDate=day, tradeDate=day,
        dateTime=f"{day};090000", transactionType="ExchTrade", buySell="BUY",
        quantity="20000", tradePrice="1.08", proceeds="-21600", ibCommission="-2",
        ibCommissionCurrency="USD", levelOfDetail="EXECUTION",
    ))  # fmt: skip


def _cash(number: int, kind: str, amount: str, *, day: str = "", account: str = A) -> str:
    report = f"{DAYS[number]:%Y%m%d}"
    currency = "EUR" if account == B else "USD"
    return element("CashTransaction", dict(
        accountId=account, currency=currency, type=kind, amount=amount,
        dateTime=day or f"{report};202000", reportDate=day or report,
        transactionID=f"60{DAYS[number]:%d}{kind[:2]}", description=kind.upper(),
        levelOfDetail="DETAIL",
    ))  # fmt: skip


def _section(name: str, *rows: str) -> str:
    return f"<{name}>{''.join(rows)}</{name}>"


BOUGHT_10 = _trade(1, "AAPL", 10, "222", "-1")
WRONG_10 = _trade(1, "AAPL", 10, "220", "-1")
NEVER_MADE = _trade(1, "MSFT", 3, "470", "-1")
SOLD_10 = _trade(4, "AAPL", -10, "226.5", "-1")
# Without its proceeds, which follow from the price: pounds, also of what is quoted in pence.
BOUGHT_VOD = _trade(2, "VOD", 5000, "0.7412", "-3", proceeds="")
BOUGHT_SAP = _trade(3, "SAP", 20, "202", "-3")
SOLD_TOYOTA = _trade(4, "7203", -100, "3015", "-400")

TRANSFER = element("Transfer", {"accountId": A} | _fields("MSFT") | dict(
    reportDate="20260305", date="20260305", dateTime="20260305;110000", type="ACATS",
    direction="IN", quantity="50", transferPrice="0", positionAmount="24100",
    cashTransfer="0", transactionID="7001", levelOfDetail="TRANSFER",
))  # fmt: skip
SPLIT = element("CorporateAction", {"accountId": A} | _fields("MSFT") | dict(
    reportDate="20260309", dateTime="20260306;202500", type="FS", quantity="150",
    actionID="8001", transactionID="8002",
    actionDescription="MSFT SPLIT 4 FOR 1", levelOfDetail="DETAIL",
))  # fmt: skip


def _day(number: int, *trades: str, cash: Sequence[str] = (), more: str = "") -> bytes:
    """Return the statement of account A of one day, made in the night after it."""
    return _statement(A, _HELD_A, number, trades, _section("CashTransactions", *cash) + more)


def _day_of_b(number: int, *trades: str, cash: Sequence[str] = ()) -> bytes:
    return _statement(B, _HELD_B, number, trades, _section("CashTransactions", *cash))


def _statement(
    account: str, held: _Rows, number: int, trades: tuple[str, ...], sections: str
) -> bytes:
    sizes = {symbol: int(of_days[number]) for symbol, of_days in held.items()}
    rows = [_position(account, symbol, number, size) for symbol, size in sizes.items() if size]
    day = DAYS[number]
    made = f"{day:%Y%m}{day.day + 1:02};020000"
    return statement(
        *rows, trades=trades, more=sections, account=account, first=f"{day:%Y%m%d}", generated=made
    )


DEPOSIT = _cash(0, "Deposits/Withdrawals", "50000", account=B)
DIVIDEND = _cash(1, "Dividends", "83.20", account=B)
TAX = _cash(1, "Withholding Tax", "-21.94", account=B)
SOLD_SAP = _trade(1, "SAP", -50, "201.5", "-4", accountId=B)
# A share in dollars, whose commission is in euros.
BOUGHT_AAPL = _trade(1, "AAPL", 20, "224", "-0.93", accountId=B, ibCommissionCurrency="EUR")
# Of Sunday.
INTEREST = _cash(5, "Broker Interest Paid", "-12", day="20260308")

FIRST_FILES = {
    "a-02.xml": _day(0),
    # It names a wrong price, and a trade that was never made.
    "a-03.xml": _day(1, WRONG_10, NEVER_MADE),
    "a-05.xml": _day(3, BOUGHT_SAP, more=_section("Transfers", TRANSFER)),
    "a-06.xml": _day(4, SOLD_10, SOLD_TOYOTA),
    "a-09.xml": _day(5, cash=[INTEREST], more=_section("CorporateActions", SPLIT)),
    "b-02.xml": _day_of_b(0, cash=[DEPOSIT]),
    "b-03.xml": _day_of_b(1, SOLD_SAP, BOUGHT_AAPL, cash=[DIVIDEND, TAX]),
}


def _second_query() -> bytes:
    """Return trades and cash of the week by another query: other fields, no ids of bookings."""
    trades = [BOUGHT_10, BOUGHT_VOD, _conversion(2), BOUGHT_SAP, SOLD_10, SOLD_TOYOTA]
    without = [_without(row, "transactionID", "reportDate", "multiplier") for row in trades]
    dividend = _without(_cash(2, "Dividends", "120"), "transactionID", "reportDate")
    text = statement(
        trades=tuple(without), more=_section("CashTransactions", dividend), account=A,
        first="20260302", last="20260306", generated="20260310;020000",
    )  # fmt: skip
    return text.replace(b"<OpenPositions></OpenPositions>", b"")


def _without(row: str, *names: str) -> str:
    for name in names:
        before, _, after = row.partition(f' {name}="')
        row = before + after.partition('"')[2] if after else row
    return row


LATER_FILES = {
    "a-03-corrected.xml": _day(1, BOUGHT_10).replace(b"20260304;020000", b"20260309;020000"),
    "a-04-late.xml": _day(2, BOUGHT_VOD, _conversion(2), cash=[_cash(2, "Dividends", "112.50")]),
    "a-week-by-another-query.xml": _second_query(),
}


Profits = dict[tuple[str, str, str], float]

# By day, account and currency; what is not named is 0. Account B sells 50 of 200 SAP.
FIRST_PROFITS: Profits = {
    ("2026-03-03", A, "EUR"): 100.0,
    ("2026-03-03", A, "GBP"): 10.0,
    ("2026-03-03", A, "JPY"): 1000.0,
    ("2026-03-03", B, "EUR"): 150 * 2 + 50 * 1.5 - 4 - 0.93 + 83.20 - 21.94,
    ("2026-03-03", B, "USD"): 20.0,
    # 100 × 1, 10 × (226.5 − 226), −1; 50 × (490 − 485).
    ("2026-03-06", A, "USD"): 100 + 5 - 1 + 250,
    ("2026-03-06", A, "GBP"): -24.5,
    ("2026-03-06", A, "JPY"): 2500.0 - 400.0,
    # 100 × 3; 200 × 121 − 50 × 490; the interest of Sunday.
    ("2026-03-09", A, "USD"): 300 - 300 - 12,
    ("2026-03-09", A, "EUR"): 140.0,
    ("2026-03-09", A, "GBP"): 45.5,
}

# Accounts and days of which nothing is known, or nothing of the day before.
FIRST_UNKNOWN = {
    *((A, f"2026-03-0{day}") for day in (2, 4, 5)),
    *((B, f"2026-03-0{day}") for day in (2, 4, 5, 6, 9)),
}

LAST_PROFITS: Profits = FIRST_PROFITS | {
    # 100 × 5, 10 × (225 − 222), −1.
    ("2026-03-03", A, "USD"): 500 + 30 - 1,
    # 110 × −1, the dividend as the newest statement has it, and the conversion's commission.
    ("2026-03-04", A, "USD"): -110 + 120 - 2,
    ("2026-03-04", A, "EUR"): -50.0,
    # 2,000 × 0.005; 5,000 × (0.74 − 0.7412), −3.
    ("2026-03-04", A, "GBP"): 10 - 6 - 3,
    ("2026-03-04", A, "JPY"): -500.0,
    # 110 × 2; 50 shares that came as 24,100 are worth 24,250.
    ("2026-03-05", A, "USD"): 220 + 150,
    # 50 × 2, 20 × (203 − 202), −3.
    ("2026-03-05", A, "EUR"): 100 + 20 - 3,
    ("2026-03-05", A, "GBP"): 14.0,
    ("2026-03-05", A, "JPY"): -1500.0,
}

LAST_UNKNOWN = FIRST_UNKNOWN - {(A, "2026-03-04"), (A, "2026-03-05")}
