"""Cases that users of this broker reported in public, as statements of made-up accounts.

Each has an account of its own. What should come of it was worked out by hand from the statements.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from tests.support.booked_days import Booked, booked, held, paid, traded
from tests.support.flex_files import element

MON, TUE, WED, THU, FRI = (date(2026, 3, day) for day in range(2, 7))
APRIL = date(2026, 4, 17)

Contract = dict[str, str]


def stock(conid: int, symbol: str, **more: str) -> Contract:
    return {"assetCategory": "STK", "symbol": symbol, "conid": f"{conid}", "currency": "USD"} | more


def option(conid: int, symbol: str, right: str, strike: int, expiry: date) -> Contract:
    return stock(conid, f"{symbol} {strike}{right}", assetCategory="OPT", multiplier="100") | {
        "underlyingSymbol": symbol, "underlyingConid": "9999", "putCall": right,
        "strike": f"{strike}", "expiry": f"{expiry:%Y%m%d}",
    }  # fmt: skip


def bought(contract: Contract, quantity: float, price: float, day: date, **more: str) -> str:
    """Return a trade with a commission of 1."""
    return traded(contract, quantity, price, day, **{"ibCommission": "-1"} | more)


def acted(
    contract: Contract, quantity: float, cash: float, day: date, kind: str, **more: str
) -> str:
    """Return a row of a corporate action in the evening of a day; `actionID` is one of `more`."""
    amounts = {"quantity": f"{quantity:g}", "proceeds": f"{cash:g}", "amount": f"{-cash:g}"}
    named = f"{contract['conid']}-{quantity:g}-{cash:g}-{day}"
    of_row = {
        "type": kind, "dateTime": f"{day:%Y%m%d};202500", "reportDate": f"{day:%Y%m%d}",
        "transactionID": f"a{named}", "levelOfDetail": "DETAIL",
    }  # fmt: skip
    return element("CorporateAction", contract | amounts | of_row | more)


def moved(contract: Contract, quantity: float, value: float, day: date, **more: str) -> str:
    """Return a transfer in the evening of a day."""
    amounts = {"quantity": f"{quantity:g}", "positionAmount": f"{value:g}"}
    of_row = {
        "type": "INTERNAL", "direction": "IN" if quantity > 0 else "OUT",
        "dateTime": f"{day:%Y%m%d};202500", "reportDate": f"{day:%Y%m%d}",
        "transactionID": f"m{contract['conid']}-{quantity:g}-{day}", "levelOfDetail": "TRANSFER",
    }  # fmt: skip
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


def days_of(*of_days: tuple[date, dict[str, Any]], account: str = "") -> Any:
    """Return a statement for each day, with its sections of actions and transfers."""
    return [
        (day, day, Booked(**{"actions": (), "transfers": ()} | sections), account)
        for day, sections in of_days
    ]


A, B, X, Y = stock(101, "AAA"), stock(102, "BBB"), stock(103, "XXX"), stock(104, "YYY")
BUYS = {"trades": [bought(A, 100, 10, MON), bought(B, 100, 15, MON)]}
SALES = {"trades": [bought(X, -100, 12, FRI), bought(Y, -50, 40, FRI)]}
BUY_A = (MON, {"trades": [bought(A, 100, 10, MON)]})
SELL_A = (MON, {"trades": [bought(A, -100, 10, MON)]})
TWO = {101: "s-a", 102: "s-b"}
BOTH_LOTS = (
    Lot(conid=103, quantity=100, cost=1001, proceeds=1199, profit=198),
    Lot(conid=104, quantity=50, cost=1501, proceeds=1999, profit=498),
)


def _mergers(*names: tuple[str, str]) -> list[str]:
    """Return two mergers of one day, with the ids and the words of their actions."""
    (first, words), (second, others) = names
    ended = ("(AAA, AAA INC, US1)", "(XXX, XXX INC, US3)", "(BBB, B INC, US2)", "(YYY, Y INC, US4)")
    words_of = [text and text + ended[place] for place, text in enumerate((words,) * 2)]
    words_of += [text and text + ended[place + 2] for place, text in enumerate((others,) * 2)]
    rows = ((A, -100, first), (X, 100, first), (B, -100, second), (Y, 50, second))
    return [
        acted(contract, quantity, 0, WED, "TC", actionID=action, description=text)
        for (contract, quantity, action), text in zip(rows, words_of, strict=True)
    ]


BY_WORDS = (("", "AAA(US1) MERGED WITH US3 1 FOR 1 "), ("", "BBB(US2) MERGED WITH US4 1 FOR 2 "))
RIGHTS, NEW = stock(201, "TPHS.RTS"), stock(202, "TPHS.EX")
GRANTED = (MON, {"actions": [acted(RIGHTS, 3839, 0, MON, "RI", actionID="41")]})


def _subscribed(quantity: float, paid_with_it: float) -> list[str]:
    return [
        acted(RIGHTS, -quantity, paid_with_it, WED, "SR", actionID="42"),
        acted(NEW, quantity, 0, WED, "SR", actionID="42"),
    ]


SUBSCRIBED = Lot(conid=202, quantity=3839, cost=23034, proceeds=None)
BOND = stock(301, "WMIH", assetCategory="BOND", multiplier="1")
ELECTED = {"actions": [
    acted(A, -60, 1200, WED, "TC", actionID="11"), acted(A, -40, 0, WED, "TC", actionID="11"),
    acted(X, 40, 0, WED, "TC", actionID="11"),
]}  # fmt: skip
ELECTED_LOTS = (
    Lot(conid=101, quantity=60, cost=600.60, proceeds=1200, profit=599.40),
    Lot(conid=103, quantity=40, cost=400.40, proceeds=None),
)
TENDERED = stock(105, "AAA.TEN")
FUTURE = stock(401, "ESH6", assetCategory="FUT", multiplier="50") | {
    "underlyingSymbol": "ES", "expiry": "20260306",
}  # fmt: skip
PUT_ON_IT = FUTURE | {
    "assetCategory": "FOP", "symbol": "E P5000", "conid": "402", "underlyingConid": "401",
    "strike": "5000", "putCall": "P", "expiry": "20260304",
}  # fmt: skip
PFE, VTRS = stock(501, "PFE"), stock(502, "VTRS")
SPUN = acted(
    VTRS, 12.4079, 0, WED, "SO", actionID="71",
    description="PFE(US7170811035) SPINOFF 124079 FOR 1000000 (VTRS, VIATRIS INC)",
)  # fmt: skip
COVERED = option(602, "AAA", "C", 12, date(2026, 3, 20))
SHORT_PUT = option(701, "ABC", "P", 50, date(2026, 3, 20))
LATER_PUT = option(702, "ABC", "P", 48, APRIL)
BITCOIN = stock(801, "BTC", assetCategory="CRYPTO", multiplier="1")
EXPIRED = (APRIL, {"trades": [booked(LATER_PUT, 1, 0, APRIL, "Ep;C")]})


def _migrated(left: date, came: date) -> Any:
    """Return shares and a call that go to another account, and are closed there."""
    opened = [bought(A, 60, 10, MON), bought(A, 40, 11, MON), bought(COVERED, -1, 0.8, MON)]
    out = [moved(A, -100, -1100, left), moved(COVERED, 1, 70, left)]
    into = [moved(A, 100, 1100, came), moved(COVERED, -1, -70, came)]
    closed = [bought(A, -100, 11.5, FRI), bought(COVERED, 1, 0.5, FRI)]
    return [
        *days_of((MON, {"trades": opened}), (left, {"transfers": out})),
        *days_of((came, {"transfers": into}), (FRI, {"trades": closed}), account="2"),
    ]


MIGRATED = (
    Lot(conid=101, quantity=60, cost=601, proceeds=689.40, profit=88.40),
    Lot(conid=101, quantity=40, cost=441, proceeds=459.60, profit=18.60),
    Lot(conid=602, quantity=-1, cost=51, proceeds=79, profit=28),
)


CASES = {
    "two mergers of one day, each known by its id": PublicCase(
        statements=days_of(
            (MON, BUYS), (WED, {"actions": _mergers(("11", ""), ("12", ""))}), (FRI, SALES)
        ),
        legs=TWO,
        campaigns={"s-a": 198, "s-b": 498},
        lots=BOTH_LOTS,
    ),
    "two mergers of one day, each known by its words, in reversed order": PublicCase(
        statements=days_of(
            (MON, BUYS), (WED, {"actions": _mergers(*BY_WORDS)[::-1]}), (FRI, SALES)
        ),
        legs=TWO,
        campaigns={"s-a": 198, "s-b": 498},
        lots=BOTH_LOTS,
    ),
    "two mergers of one day that nothing tells apart": PublicCase(
        statements=days_of(
            (MON, BUYS), (WED, {"actions": _mergers(("", ""), ("", ""))}), (FRI, SALES)
        ),
        legs=TWO,
        campaigns={
            "s-a": "what AAA became by a corporate action is not known",
            "s-b": "what BBB became by a corporate action is not known",
        },
        lots=(
            Lot(conid=101, quantity=0, cost=0, proceeds=None, opened=None),
            Lot(conid=102, quantity=0, cost=0, proceeds=None, opened=None),
            Lot(conid=103, quantity=100, cost=None, proceeds=1199, opened=WED),
            Lot(conid=104, quantity=50, cost=None, proceeds=1999, opened=WED),
        ),
    ),
    "a cash merger beside a merger, and none has an id": PublicCase(
        statements=days_of(
            (MON, BUYS),
            (WED, {"actions": [acted(B, -100, 2000, WED, "TC"), *_mergers(*BY_WORDS)[:2]]}),
            (FRI, {"trades": [bought(X, -100, 12, FRI)]}),
        ),
        legs=TWO,
        campaigns={"s-a": 198, "s-b": 499},
        lots=(
            Lot(conid=102, quantity=100, cost=1501, proceeds=2000, profit=499),
            BOTH_LOTS[0],
        ),
    ),
    "rights that are exercised for cash": PublicCase(
        statements=days_of(GRANTED, (WED, {"actions": _subscribed(3839, -23034)})),
        lots=(SUBSCRIBED,),
    ),
    "rights that are paid days later, in a row of quantity 0 of what came": PublicCase(
        statements=days_of(
            GRANTED,
            (WED, {"actions": _subscribed(3839, 0)[::-1]}),
            (FRI, {"actions": [acted(NEW, 0, -23034, FRI, "SR", actionID="42")]}),
        ),
        lots=(SUBSCRIBED,),
    ),
    "rights that are paid before, in a row of quantity 0 of the rights": PublicCase(
        statements=days_of(
            GRANTED,
            (TUE, {"actions": [acted(RIGHTS, 0, -23034, TUE, "SR")]}),
            (WED, {"actions": _subscribed(3839, 0)}),
        ),
        lots=(SUBSCRIBED,),
    ),
    "some rights are exercised, and the others end without value": PublicCase(
        statements=days_of(
            GRANTED,
            (WED, {"actions": _subscribed(2000, -12000)}),
            (FRI, {"actions": [acted(RIGHTS, -1839, 0, FRI, "DW", actionID="43")]}),
        ),
        lots=(
            Lot(conid=201, quantity=1839, cost=0, proceeds=0, profit=0),
            Lot(conid=202, quantity=2000, cost=12000, proceeds=None),
        ),
    ),
    "a bond that is called in part": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(BOND, 1000, 80, MON)]}),
            (WED, {"actions": [acted(BOND, -3, 3, WED, "BM")]}),
        ),
        lots=(
            Lot(conid=301, quantity=3, cost=2.403, proceeds=3, profit=0.597),
            Lot(conid=301, quantity=997, cost=798.597, proceeds=None),
        ),
    ),
    "a bond that was sold short is called in part": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(BOND, -1000, 80, MON)]}),
            (WED, {"actions": [acted(BOND, 3, -3, WED, "BM")]}),
        ),
        lots=(
            Lot(conid=301, quantity=-3, cost=3, proceeds=2.397, profit=-0.603),
            Lot(conid=301, quantity=-997, cost=None, proceeds=796.603),
        ),
    ),
    "an election in two rows of one holding": PublicCase(
        statements=days_of(BUY_A, (WED, ELECTED)), lots=ELECTED_LOTS
    ),
    "an election in two rows, in reversed order": PublicCase(
        statements=days_of(
            BUY_A,
            (
                WED,
                {
                    "actions": [
                        acted(X, 40, 0, WED, "TC", actionID="11"),
                        acted(A, -40, 0, WED, "TC", actionID="11", transactionID="1"),
                        acted(A, -60, 1200, WED, "TC", actionID="11", transactionID="2"),
                    ]
                },
            ),
        ),
        lots=ELECTED_LOTS,
    ),
    "an election of what was sold short": PublicCase(
        statements=days_of(
            SELL_A,
            (
                WED,
                {
                    "actions": [
                        acted(A, 60, -1200, WED, "TC", actionID="11"),
                        acted(A, 40, 0, WED, "TC", actionID="11"),
                        acted(X, -40, 0, WED, "TC", actionID="11"),
                    ]
                },
            ),
        ),
        lots=(
            Lot(conid=101, quantity=-60, cost=1200, proceeds=599.40, profit=-600.60),
            Lot(conid=103, quantity=-40, cost=None, proceeds=399.60),
        ),
    ),
    "a part that is tendered, and paid two days later": PublicCase(
        statements=days_of(
            BUY_A,
            (
                WED,
                {
                    "actions": [
                        acted(A, -60, 0, WED, "TO", actionID="11"),
                        acted(TENDERED, 60, 0, WED, "TO", actionID="11"),
                    ]
                },
            ),
            (
                FRI,
                {
                    "trades": [bought(A, -40, 11, FRI)],
                    "actions": [acted(TENDERED, -60, 900, FRI, "TC", actionID="12")],
                },
            ),
        ),
        legs={101: "s-a"},
        campaigns={"s-a": 338},
        lots=(
            Lot(conid=101, quantity=40, cost=400.40, proceeds=439, profit=38.60),
            Lot(conid=105, quantity=60, cost=600.60, proceeds=900, profit=299.40),
        ),
    ),
    "what is taken, and nothing came": PublicCase(
        statements=days_of(BUY_A, (WED, {"actions": [acted(A, -100, 0, WED, "TC", actionID="1")]})),
        legs={101: "s-a"},
        campaigns={"s-a": "what AAA became by a corporate action is not known"},
        lots=(Lot(conid=101, quantity=100, cost=1001, proceeds=None),),
    ),
    "what is taken, and paid days later in a row of quantity 0": PublicCase(
        statements=days_of(
            BUY_A,
            (WED, {"actions": [acted(A, -100, 0, WED, "TC", actionID="1")]}),
            (FRI, {"actions": [acted(A, 0, 1200, FRI, "TC", actionID="1")]}),
        ),
        legs={101: "s-a"},
        campaigns={"s-a": 199},
        lots=(Lot(conid=101, quantity=100, cost=1001, proceeds=1200, profit=199),),
    ),
    "a fraction of what came is sold in the action, and what came has two rows": PublicCase(
        statements=days_of(
            BUY_A,
            (
                WED,
                {
                    "actions": [
                        acted(X, -0.5, 15, WED, "TC", actionID="1"),
                        acted(X, 20.5, 0, WED, "TC", actionID="1"),
                        acted(X, 20, 0, WED, "TC", actionID="1"),
                        acted(A, -100, 0, WED, "TC", actionID="1"),
                    ]
                },
            ),
        ),
        lots=(
            Lot(conid=103, quantity=0.5, cost=12.358, proceeds=15, profit=2.642),
            Lot(conid=103, quantity=20, cost=494.321, proceeds=None),
            Lot(conid=103, quantity=20, cost=494.321, proceeds=None),
        ),
    ),
    "a reverse split in two rows of one contract": PublicCase(
        statements=days_of(
            BUY_A,
            (
                WED,
                {
                    "actions": [
                        acted(A, 10, 0, WED, "RS", actionID="1"),
                        acted(A, -100, 0, WED, "RS", actionID="1"),
                    ]
                },
            ),
            (FRI, {"trades": [bought(A, -10, 120, FRI)]}),
        ),
        legs={101: "s-a"},
        campaigns={"s-a": 198},
        lots=(Lot(conid=101, quantity=10, cost=1001, proceeds=1199, profit=198),),
    ),
    "a future that settles in cash after an option delivered it": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(PUT_ON_IT, -1, 10, MON, ibCommission="-1.5")]}),
            (
                WED,
                {
                    "trades": [
                        booked(PUT_ON_IT, 1, 0, WED, "A;C"),
                        booked(FUTURE, 1, 5000, WED, "A;O"),
                    ]
                },
            ),
            (FRI, {"trades": [booked(FUTURE, -1, 4980, FRI, "Ep;C")]}),
        ),
        campaigns={"UNATTRIBUTED": -501.50},
        lots=(
            Lot(conid=401, quantity=1, cost=250000, proceeds=249000, profit=-1000, opened=WED),
            Lot(conid=402, quantity=-1, cost=0, proceeds=498.50, profit=498.50),
        ),
    ),
    "a future that settles in cash in the minute in which an option delivered it": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(PUT_ON_IT, -1, 10, MON, ibCommission="-1.5")]}),
            (
                WED,
                {
                    "trades": [
                        booked(PUT_ON_IT, 1, 0, WED, "A;C"),
                        booked(FUTURE, 1, 5000, WED, "A;O"),
                        booked(FUTURE, -1, 4980, WED, "Ep;C"),
                    ]
                },
            ),
        ),
        campaigns={"UNATTRIBUTED": -501.50},
        lots=(
            Lot(conid=401, quantity=1, cost=250000, proceeds=249000, profit=-1000, opened=WED),
            Lot(conid=402, quantity=-1, cost=0, proceeds=498.50, profit=498.50),
        ),
    ),
    "a spin-off of what a strategy holds": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(PFE, 100, 35, MON)]}),
            (WED, {"actions": [SPUN]}),
            (
                FRI,
                {
                    "trades": [
                        bought(PFE, -100, 34, FRI),
                        bought(VTRS, -12, 16, FRI),
                        traded(VTRS, -0.4079, 16, FRI),
                    ]
                },
            ),
        ),
        legs={501: "s-p"},
        campaigns={"s-p": 95.53},  # -3501 + 3399 + 191 + 6.5264
        lots=(
            Lot(conid=501, quantity=100, cost=3501, proceeds=3399, profit=-102),
            Lot(conid=502, quantity=0.4079, cost=None, proceeds=6.5264, opened=WED),
            Lot(conid=502, quantity=12, cost=None, proceeds=191, opened=WED),
        ),
    ),
    "a spin-off that is still held keeps the campaign open": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(PFE, 100, 35, MON)]}),
            (WED, {"actions": [SPUN]}),
            (FRI, {"trades": [bought(PFE, -100, 34, FRI)]}),
        ),
        legs={501: "s-p"},
        lots=(
            Lot(conid=501, quantity=100, cost=3501, proceeds=3399, profit=-102),
            Lot(conid=502, quantity=12.4079, cost=None, proceeds=None, opened=WED),
        ),
    ),
    "an account that is migrated": PublicCase(
        statements=_migrated(WED, WED),
        campaigns={"UNATTRIBUTED": 9 + 19},
        lots=MIGRATED,
    ),
    "an account that is migrated over two days": PublicCase(
        statements=_migrated(THU, WED),
        campaigns={"UNATTRIBUTED": 9 + 19},
        lots=MIGRATED,
    ),
    "a commission that is adjusted a day later": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(SHORT_PUT, -2, 1.5, MON, ibCommission="-1.4")]}),
            (TUE, {"trades": [bought(SHORT_PUT, 2, 0.5, TUE, ibCommission="-1.4")]}),
            (WED, {"cash": [paid("Commission Adjustments", 0.27, WED, **SHORT_PUT)]}),
        ),
        campaigns={"UNATTRIBUTED": 197.47},
        lots=(
            Lot(conid=701, quantity=-2, cost=101.40, proceeds=298.60, profit=197.20),
            Lot(conid=701, quantity=0, cost=0, proceeds=0.27, profit=0.27, opened=None),
        ),
    ),
    "eight decimals of a cryptocurrency": PublicCase(
        statements=days_of(
            (MON, {"trades": [traded(BITCOIN, 0.00025289, 79085.75, MON)]}),
            (TUE, {"trades": [traded(BITCOIN, -0.0002526, 79080.5, TUE)]}),
        ),
        lots=(
            Lot(conid=801, quantity=0.0002526, cost=19.97706, proceeds=19.97573, profit=-0.00133),
            Lot(conid=801, quantity=0.00000029, cost=0.02293, proceeds=None),
        ),
    ),
    "a put that is rolled by two orders": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(SHORT_PUT, -1, 1.5, MON)]}),
            (WED, {"trades": [bought(SHORT_PUT, 1, 2.5, WED), bought(LATER_PUT, -1, 3, WED)]}),
            EXPIRED,
        ),
        campaigns={"UNATTRIBUTED": 197},  # 149 - 251 + 299
        rolls=1,
        lots=(
            Lot(conid=701, quantity=-1, cost=251, proceeds=149, profit=-102),
            Lot(conid=702, quantity=-1, cost=0, proceeds=299, profit=299, opened=WED),
        ),
    ),
    "a put that is closed, and another that is sold a day later": PublicCase(
        statements=days_of(
            (MON, {"trades": [bought(SHORT_PUT, -1, 1.5, MON)]}),
            (TUE, {"trades": [bought(SHORT_PUT, 1, 2.5, TUE)]}),
            (WED, {"trades": [bought(LATER_PUT, -1, 3, WED)]}),
            EXPIRED,
        ),
        campaigns={"UNATTRIBUTED": -102 + 299},
        lots=(
            Lot(conid=701, quantity=-1, cost=251, proceeds=149, profit=-102),
            Lot(conid=702, quantity=-1, cost=0, proceeds=299, profit=299, opened=WED),
        ),
    ),
}

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
