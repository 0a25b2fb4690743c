"""Cases that users of this broker reported in public, as statements of made-up accounts.

Each has an account of its own. What should come of it was worked out by hand from the statements.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from tests.support.booked_days import Booked, booked, held, paid, traded
from tests.support.flex_files import element

MON, TUE, WED, THU, FRI = (date(2026, 3, day) for day in range(2, 7))
APRIL = date(2026, 4, 17)

Contract = dict[str, str]


def stock(conid: int, symbol: str, **more: str) -> Contract:
    return dict(assetCategory="STK", symbol=symbol, conid=f"{conid}", currency="USD") | more


def option(conid: int, symbol: str, right: str, strike: int, expiry: date) -> Contract:
    return stock(conid, f"{symbol} {strike}{right}", assetCategory="OPT", multiplier="100") | dict(
        underlyingSymbol=symbol, underlyingConid="9999", putCall=right,
        strike=f"{strike}", expiry=f"{expiry:%Y%m%d}",
    )  # fmt: skip


def bought(contract: Contract, quantity: float, price: float, day: date, **more: str) -> str:
    """Return a trade with a commission of 1."""
    return traded(contract, quantity, price, day, **{"ibCommission": "-1"} | more)


def acted(
    contract: Contract, quantity: float, cash: float, day: date, kind: str, **more: str
) -> str:
    """Return a row of a corporate action in the evening of a day; `actionID` is one of `more`."""
    # Not -cash, which is -0 for 0.0.
    amounts = {"quantity": f"{quantity:g}", "proceeds": f"{cash:g}", "amount": f"{0 - cash:g}"}
    named = f"{contract['conid']}-{quantity:g}-{cash:g}-{day}"
    of_row = dict(
        type=kind, dateTime=f"{day:%Y%m%d};202500", reportDate=f"{day:%Y%m%d}",
        transactionID=f"a{named}", levelOfDetail="DETAIL",
    )  # fmt: skip
    return element("CorporateAction", contract | amounts | of_row | more)


def moved(contract: Contract, quantity: float, value: float, day: date, **more: str) -> str:
    """Return a transfer in the evening of a day."""
    amounts = {"quantity": f"{quantity:g}", "positionAmount": f"{value:g}"}
    of_row = dict(
        type="INTERNAL", direction="IN" if quantity > 0 else "OUT",
        dateTime=f"{day:%Y%m%d};202500", reportDate=f"{day:%Y%m%d}",
        transactionID=f"m{contract['conid']}-{quantity:g}-{day}", levelOfDetail="TRANSFER",
    )  # fmt: skip
    return element("Transfer", contract | amounts | of_row | more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What `export lots` says; None where it is not known."""

    conid: int
    quantity: float
    cost: float | None
    proceeds: float | None
    profit: float | None = None
    opened: date | None = MON


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicCase:
    """Statements, and what follows from them.

    Attributes:
        statements: First and last day, what is booked, and at the end of the account's name.
        legs: Contracts of strategies since the beginning of the year.
        campaigns: The profits of those that are over, by strategy; a text: why it is not known.
        rolls: How many rolls they have.
        lots: All of them.
    """

    statements: Sequence[tuple[date, date, Booked, str]]
    legs: dict[int, str] = field(default_factory=dict)
    campaigns: dict[str, float | str] = field(default_factory=dict)
    rolls: int = 0
    lots: Sequence[Lot] = ()

    def files(self, account: str) -> Iterable[str]:
        """Yield the statements, each made in the night after its last day."""
        for first, last, booked_days, of_account in self.statements:
            made = f"{last + timedelta(days=1):%Y%m%d};010000"
            yield booked_days.xml(first, last, made, account + of_account)


FUTURE = stock(401, "ESH6", assetCategory="FUT", multiplier="50") | {
    "underlyingSymbol": "ES", "expiry": "20260306",
}  # fmt: skip
PUT_ON_IT = FUTURE | dict(
    assetCategory="FOP", symbol="E P5000", conid="402", underlyingConid="401",
    strike="5000", putCall="P", expiry="20260304",
)  # fmt: skip
_SHARES = """
    101 AAA    102 BBB    103 XXX    104 YYY    105 AAA.TEN
    201 TPHS.RTS    202 TPHS.EX    501 PFE    502 VTRS
"""
CONTRACTS = [
    *(stock(int(conid), symbol) for conid, symbol in re.findall(r"(\d+) (\S+)", _SHARES)),
    stock(301, "WMIH", assetCategory="BOND", multiplier="1"),
    stock(801, "BTC", assetCategory="CRYPTO", multiplier="1"),
    option(602, "AAA", "C", 12, date(2026, 3, 20)),
    option(701, "ABC", "P", 50, date(2026, 3, 20)),
    option(702, "ABC", "P", 48, APRIL),
    FUTURE,
    PUT_ON_IT,
]
CONTRACT_OF = {contract["symbol"]: contract for contract in CONTRACTS}
DAY_OF = {"Mon": MON, "Tue": TUE, "Wed": WED, "Thu": THU, "Fri": FRI, "April": APRIL}


def paid_for(contract: Contract, amount: float, day: date, kind: str) -> str:
    """Return a cash transaction of a contract."""
    return paid(kind, amount, day, **contract)


# What a line of a case can say was booked, and the section of the statement that has it.
ROWS: Mapping[str, tuple[str, Callable[..., str]]] = {
    "bought": ("trades", bought),
    "traded": ("trades", traded),
    "booked": ("trades", booked),
    "paid": ("cash", paid_for),
    "acted": ("actions", acted),
    "moved": ("transfers", moved),
}


def read_cases(text: str) -> dict[str, PublicCase]:
    """Read cases, each a paragraph: its name, what is booked on each day, and what follows.

    A line has columns with two spaces between them. A day, with the name of a function of this
    module and its arguments, is a row of that day's statement; those after `other account` are of
    another account. `lot` has the fields of `Lot`, `?` for None. The rest of a line after # is how
    its number was worked out.
    """
    cases = {}
    for paragraph in text.strip().split("\n\n"):
        name, *lines = paragraph.replace("\n        ", "  ").splitlines()
        uncommented = [line.partition("  # ")[0].strip() for line in lines]
        cases[name] = _read_case([re.split(" {2,}", line) for line in uncommented])

    return cases


def _read_case(lines: Iterable[Sequence[str]]) -> PublicCase:
    booked_days: dict[tuple[str, date], dict[str, list[str]]] = {}
    legs: dict[int, str] = {}
    campaigns: dict[str, float | str] = {}
    rolls = 0
    lots: list[Lot] = []
    of_account = ""

    for what, *columns in lines:
        match what:
            case "other account":
                of_account = "2"
            case "leg":
                strategy, symbol = columns
                legs[int(CONTRACT_OF[symbol]["conid"])] = strategy

            case "campaign":
                strategy, profit = columns
                campaigns[strategy] = profit if profit.endswith("is not known") else float(profit)
            case "rolls":
                rolls = int(columns[0])

            case "lot":
                lots.append(_read_lot(*columns))
            case _:
                day = DAY_OF[what]
                sections = booked_days.setdefault((of_account, day), {})
                section, row = _read_row(day, *columns)
                sections.setdefault(section, []).append(row)

    statements = [
        (day, day, _booked_day(sections), account)
        for (account, day), sections in booked_days.items()
    ]
    return PublicCase(statements=statements, legs=legs, campaigns=campaigns, rolls=rolls, lots=lots)


def _read_row(day: date, verb: str, symbol: str, *columns: str) -> tuple[str, str]:
    """Return the section of a row, and the row; attributes are `name=text`."""
    section, make_row = ROWS[verb]
    numbers = [float(column) for column in columns if _is_number(column)]
    words = [column for column in columns if not _is_number(column) and "=" not in column]
    attributes = dict(column.split("=", 1) for column in columns if "=" in column)
    row = make_row(CONTRACT_OF[symbol], *numbers, day, *words, **attributes)
    return section, row


def _is_number(column: str) -> bool:
    return re.fullmatch(r"-?[\d.]+", column) is not None


def _read_lot(symbol: str, quantity: str, *columns: str) -> Lot:
    cost, proceeds, profit = (None if text == "?" else float(text) for text in columns[:3])
    return Lot(
        conid=int(CONTRACT_OF[symbol]["conid"]),
        quantity=float(quantity),
        cost=cost,
        proceeds=proceeds,
        profit=profit,
        opened=DAY_OF.get(columns[3]),
    )


def _booked_day(sections: Mapping[str, Sequence[str]]) -> Booked:
    """Return the statement of a day, which has sections of actions and transfers always."""
    return Booked(
        trades=sections.get("trades", ()),
        cash=sections.get("cash"),
        actions=sections.get("actions", ()),
        transfers=sections.get("transfers", ()),
    )


CASES = read_cases("""
two mergers of one day, each known by its id
    Mon  bought  AAA   100  10
    Mon  bought  BBB   100  15
    Wed  acted   AAA  -100   0  TC  actionID=11  description=
    Wed  acted   XXX   100   0  TC  actionID=11  description=
    Wed  acted   BBB  -100   0  TC  actionID=12  description=
    Wed  acted   YYY    50   0  TC  actionID=12  description=
    Fri  bought  XXX  -100  12
    Fri  bought  YYY   -50  40
    leg       s-a  AAA
    leg       s-b  BBB
    campaign  s-a  198
    campaign  s-b  498
    lot  XXX  100  1001  1199  198  Mon
    lot  YYY   50  1501  1999  498  Mon

two mergers of one day, each known by its words, in reversed order
    Mon  bought  AAA   100  10
    Mon  bought  BBB   100  15
    Wed  acted   YYY    50   0  TC  actionID=
        description=BBB(US2) MERGED WITH US4 1 FOR 2 (YYY, Y INC, US4)
    Wed  acted   BBB  -100   0  TC  actionID=
        description=BBB(US2) MERGED WITH US4 1 FOR 2 (BBB, B INC, US2)
    Wed  acted   XXX   100   0  TC  actionID=
        description=AAA(US1) MERGED WITH US3 1 FOR 1 (XXX, XXX INC, US3)
    Wed  acted   AAA  -100   0  TC  actionID=
        description=AAA(US1) MERGED WITH US3 1 FOR 1 (AAA, AAA INC, US1)
    Fri  bought  XXX  -100  12
    Fri  bought  YYY   -50  40
    leg       s-a  AAA
    leg       s-b  BBB
    campaign  s-a  198
    campaign  s-b  498
    lot  XXX  100  1001  1199  198  Mon
    lot  YYY   50  1501  1999  498  Mon

two mergers of one day that nothing tells apart
    Mon  bought  AAA   100  10
    Mon  bought  BBB   100  15
    Wed  acted   AAA  -100   0  TC  actionID=  description=
    Wed  acted   XXX   100   0  TC  actionID=  description=
    Wed  acted   BBB  -100   0  TC  actionID=  description=
    Wed  acted   YYY    50   0  TC  actionID=  description=
    Fri  bought  XXX  -100  12
    Fri  bought  YYY   -50  40
    leg       s-a  AAA
    leg       s-b  BBB
    campaign  s-a  what AAA became by a corporate action is not known
    campaign  s-b  what BBB became by a corporate action is not known
    lot  AAA    0  0     ?  ?    ?
    lot  BBB    0  0     ?  ?    ?
    lot  XXX  100  ?  1199  ?  Wed
    lot  YYY   50  ?  1999  ?  Wed

a cash merger beside a merger, and none has an id
    Mon  bought  AAA   100    10
    Mon  bought  BBB   100    15
    Wed  acted   BBB  -100  2000  TC
    Wed  acted   AAA  -100     0  TC  actionID=
        description=AAA(US1) MERGED WITH US3 1 FOR 1 (AAA, AAA INC, US1)
    Wed  acted   XXX   100     0  TC  actionID=
        description=AAA(US1) MERGED WITH US3 1 FOR 1 (XXX, XXX INC, US3)
    Fri  bought  XXX  -100    12
    leg       s-a  AAA
    leg       s-b  BBB
    campaign  s-a  198
    campaign  s-b  499
    lot  BBB  100  1501  2000  499  Mon
    lot  XXX  100  1001  1199  198  Mon

rights that are exercised for cash
    Mon  acted  TPHS.RTS   3839       0  RI  actionID=41
    Wed  acted  TPHS.RTS  -3839  -23034  SR  actionID=42
    Wed  acted  TPHS.EX    3839       0  SR  actionID=42
    lot  TPHS.EX  3839  23034  ?  ?  Mon

rights that are paid days later, in a row of quantity 0 of what came
    Mon  acted  TPHS.RTS   3839       0  RI  actionID=41
    Wed  acted  TPHS.EX    3839       0  SR  actionID=42
    Wed  acted  TPHS.RTS  -3839       0  SR  actionID=42
    Fri  acted  TPHS.EX       0  -23034  SR  actionID=42
    lot  TPHS.EX  3839  23034  ?  ?  Mon

rights that are paid before, in a row of quantity 0 of the rights
    Mon  acted  TPHS.RTS   3839       0  RI  actionID=41
    Tue  acted  TPHS.RTS      0  -23034  SR
    Wed  acted  TPHS.RTS  -3839       0  SR  actionID=42
    Wed  acted  TPHS.EX    3839       0  SR  actionID=42
    lot  TPHS.EX  3839  23034  ?  ?  Mon

some rights are exercised, and the others end without value
    Mon  acted  TPHS.RTS   3839       0  RI  actionID=41
    Wed  acted  TPHS.RTS  -2000  -12000  SR  actionID=42
    Wed  acted  TPHS.EX    2000       0  SR  actionID=42
    Fri  acted  TPHS.RTS  -1839       0  DW  actionID=43
    lot  TPHS.RTS  1839      0  0  0  Mon
    lot  TPHS.EX   2000  12000  ?  ?  Mon

a bond that is called in part
    Mon  bought  WMIH  1000  80
    Wed  acted   WMIH    -3   3  BM
    lot  WMIH    3    2.403  3  0.597  Mon
    lot  WMIH  997  798.597  ?      ?  Mon

a bond that was sold short is called in part
    Mon  bought  WMIH  -1000  80
    Wed  acted   WMIH      3  -3  BM
    lot  WMIH    -3  3    2.397  -0.603  Mon
    lot  WMIH  -997  ?  796.603       ?  Mon

an election in two rows of one holding
    Mon  bought  AAA  100    10
    Wed  acted   AAA  -60  1200  TC  actionID=11
    Wed  acted   AAA  -40     0  TC  actionID=11
    Wed  acted   XXX   40     0  TC  actionID=11
    lot  AAA  60  600.6  1200  599.4  Mon
    lot  XXX  40  400.4     ?      ?  Mon

an election in two rows, in reversed order
    Mon  bought  AAA  100    10
    Wed  acted   XXX   40     0  TC  actionID=11
    Wed  acted   AAA  -40     0  TC  actionID=11  transactionID=1
    Wed  acted   AAA  -60  1200  TC  actionID=11  transactionID=2
    lot  AAA  60  600.6  1200  599.4  Mon
    lot  XXX  40  400.4     ?      ?  Mon

an election of what was sold short
    Mon  bought  AAA  -100     10
    Wed  acted   AAA    60  -1200  TC  actionID=11
    Wed  acted   AAA    40      0  TC  actionID=11
    Wed  acted   XXX   -40      0  TC  actionID=11
    lot  AAA  -60  1200  599.4  -600.6  Mon
    lot  XXX  -40     ?  399.6       ?  Mon

a part that is tendered, and paid two days later
    Mon  bought  AAA      100   10
    Wed  acted   AAA      -60    0  TO  actionID=11
    Wed  acted   AAA.TEN   60    0  TO  actionID=11
    Fri  bought  AAA      -40   11
    Fri  acted   AAA.TEN  -60  900  TC  actionID=12
    leg       s-a  AAA
    campaign  s-a  338
    lot  AAA      40  400.4  439   38.6  Mon
    lot  AAA.TEN  60  600.6  900  299.4  Mon

what is taken, and nothing came
    Mon  bought  AAA   100  10
    Wed  acted   AAA  -100   0  TC  actionID=1
    leg       s-a  AAA
    campaign  s-a  what AAA became by a corporate action is not known
    lot  AAA  100  1001  ?  ?  Mon

what is taken, and paid days later in a row of quantity 0
    Mon  bought  AAA   100    10
    Wed  acted   AAA  -100     0  TC  actionID=1
    Fri  acted   AAA     0  1200  TC  actionID=1
    leg       s-a  AAA
    campaign  s-a  199
    lot  AAA  100  1001  1200  199  Mon

a fraction of what came is sold in the action, and what came has two rows
    Mon  bought  AAA   100  10
    Wed  acted   XXX  -0.5  15  TC  actionID=1
    Wed  acted   XXX  20.5   0  TC  actionID=1
    Wed  acted   XXX    20   0  TC  actionID=1
    Wed  acted   AAA  -100   0  TC  actionID=1
    lot  XXX  0.5   12.358  15  2.642  Mon
    lot  XXX   20  494.321   ?      ?  Mon
    lot  XXX   20  494.321   ?      ?  Mon

a reverse split in two rows of one contract
    Mon  bought  AAA   100   10
    Wed  acted   AAA    10    0  RS  actionID=1
    Wed  acted   AAA  -100    0  RS  actionID=1
    Fri  bought  AAA   -10  120
    leg       s-a  AAA
    campaign  s-a  198
    lot  AAA  10  1001  1199  198  Mon

a future that settles in cash after an option delivered it
    Mon  bought  E P5000  -1    10  ibCommission=-1.5
    Wed  booked  E P5000   1     0  A;C
    Wed  booked  ESH6      1  5000  A;O
    Fri  booked  ESH6     -1  4980  Ep;C
    campaign  UNATTRIBUTED  -501.5
    lot  ESH6      1  250000  249000  -1000  Wed
    lot  E P5000  -1       0   498.5  498.5  Mon

a future that settles in cash in the minute in which an option delivered it
    Mon  bought  E P5000  -1    10  ibCommission=-1.5
    Wed  booked  E P5000   1     0  A;C
    Wed  booked  ESH6      1  5000  A;O
    Wed  booked  ESH6     -1  4980  Ep;C
    campaign  UNATTRIBUTED  -501.5
    lot  ESH6      1  250000  249000  -1000  Wed
    lot  E P5000  -1       0   498.5  498.5  Mon

a spin-off of what a strategy holds
    Mon  bought  PFE       100  35
    Wed  acted   VTRS  12.4079   0  SO  actionID=71
        description=PFE(US7170811035) SPINOFF 124079 FOR 1000000 (VTRS, VIATRIS INC)
    Fri  bought  PFE      -100  34
    Fri  bought  VTRS      -12  16
    Fri  traded  VTRS  -0.4079  16
    leg       s-p  PFE
    campaign  s-p  95.53  # -3501 + 3399 + 191 + 6.5264
    lot  PFE      100  3501    3399  -102  Mon
    lot  VTRS  0.4079     ?  6.5264     ?  Wed
    lot  VTRS      12     ?     191     ?  Wed

a spin-off that is still held keeps the campaign open
    Mon  bought  PFE       100  35
    Wed  acted   VTRS  12.4079   0  SO  actionID=71
        description=PFE(US7170811035) SPINOFF 124079 FOR 1000000 (VTRS, VIATRIS INC)
    Fri  bought  PFE      -100  34
    leg  s-p  PFE
    lot  PFE       100  3501  3399  -102  Mon
    lot  VTRS  12.4079     ?     ?     ?  Wed

an account that is migrated
    Mon  bought  AAA        60     10
    Mon  bought  AAA        40     11
    Mon  bought  AAA 12C    -1    0.8
    Wed  moved   AAA      -100  -1100
    Wed  moved   AAA 12C     1     70
    other account
    Wed  moved   AAA       100   1100
    Wed  moved   AAA 12C    -1    -70
    Fri  bought  AAA      -100   11.5
    Fri  bought  AAA 12C     1    0.5
    campaign  UNATTRIBUTED  28  # 9 + 19
    lot  AAA      60  601  689.4  88.4  Mon
    lot  AAA      40  441  459.6  18.6  Mon
    lot  AAA 12C  -1   51     79    28  Mon

an account that is migrated over two days
    Mon  bought  AAA        60     10
    Mon  bought  AAA        40     11
    Mon  bought  AAA 12C    -1    0.8
    Thu  moved   AAA      -100  -1100
    Thu  moved   AAA 12C     1     70
    other account
    Wed  moved   AAA       100   1100
    Wed  moved   AAA 12C    -1    -70
    Fri  bought  AAA      -100   11.5
    Fri  bought  AAA 12C     1    0.5
    campaign  UNATTRIBUTED  28  # 9 + 19
    lot  AAA      60  601  689.4  88.4  Mon
    lot  AAA      40  441  459.6  18.6  Mon
    lot  AAA 12C  -1   51     79    28  Mon

a commission that is adjusted a day later
    Mon  bought  ABC 50P    -2  1.5  ibCommission=-1.4
    Tue  bought  ABC 50P     2  0.5  ibCommission=-1.4
    Wed  paid    ABC 50P  0.27  Commission Adjustments
    campaign  UNATTRIBUTED  197.47
    lot  ABC 50P  -2  101.4  298.6  197.2  Mon
    lot  ABC 50P   0      0   0.27   0.27    ?

eight decimals of a cryptocurrency
    Mon  traded  BTC  0.00025289  79085.75
    Tue  traded  BTC  -0.0002526   79080.5
    lot  BTC   0.0002526  19.97706  19.97573  -0.00133  Mon
    lot  BTC  0.00000029   0.02293         ?         ?  Mon

a put that is rolled by two orders
    Mon    bought  ABC 50P  -1  1.5
    Wed    bought  ABC 50P   1  2.5
    Wed    bought  ABC 48P  -1    3
    April  booked  ABC 48P   1    0  Ep;C
    campaign  UNATTRIBUTED  197  # 149 - 251 + 299
    rolls  1
    lot  ABC 50P  -1  251  149  -102  Mon
    lot  ABC 48P  -1    0  299   299  Wed

a put that is closed, and another that is sold a day later
    Mon    bought  ABC 50P  -1  1.5
    Tue    bought  ABC 50P   1  2.5
    Wed    bought  ABC 48P  -1    3
    April  booked  ABC 48P   1    0  Ep;C
    campaign  UNATTRIBUTED  197  # -102 + 299
    lot  ABC 50P  -1  251  149  -102  Mon
    lot  ABC 48P  -1    0  299   299  Wed
""")

# Held at the ends of three days, in an account in USD: its value is notional, and its open profit
# is what the account has of it.
CFD = stock(901, "VODn", assetCategory="CFD", currency="EUR", multiplier="1")
CFD_DAYS = [
    (day, day, Booked(
        held=[held(CFD, 100, mark, fifoPnlUnrealized=f"{open_profit:g}")],
        worth={"total": worth, "cash": 10000.0},
        balances={"USD": 10000.0, "EUR": 0.0},
        rates={"EUR": rate},
    ), "")
    for day, mark, open_profit, rate, worth in (
        (MON, 50, 0, 1.1, 10000.0),
        (TUE, 51, 100, 1.2, 10120.0),
        (WED, 51, 100, 1.3, 10130.0),
    )
]  # fmt: skip
