"""The cause of each close, from a table of facts to what it says; never a false one."""

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.domain.exchange_time import NEW_YORK
from position_sync_dagster.domain.execution import FROM_GATEWAY, Execution, Side
from position_sync_dagster.domain.instrument import ContractDetails, Right
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.past import closes
from position_sync_dagster.money.past.causes import closures_of
from position_sync_dagster.money.past.closes import FLEX, Cause, EventKind
from tests.support.facts import facts_of

ACCOUNT = "DU1"
CALL = 1
PUT = 2
OTHER = 3
SHARES = 10
INDEX_CALL = 20
INDEX = 21
NEW_SHARES = 11
FRIDAY = date(2026, 3, 20)
# A quarter past four in New York on the last trading day.
END = datetime(2026, 3, 20, 20, 15, tzinfo=UTC)
NOON = END - timedelta(hours=4)
NIGHT = END + timedelta(hours=9)
HOURS = "20260319:0930-20260319:1600;20260320:0930-20260320:1600;20260321:CLOSED;20260322:CLOSED"


def change(
    conid: int, before: float, after: float, at: datetime = NIGHT, **values: object
) -> PositionChange:
    is_option = conid in (CALL, PUT, OTHER, INDEX_CALL)
    terms: dict[str, object] = {
        "right": (Right.PUT if conid == PUT else Right.CALL) if is_option else None,
        "strike": {CALL: 575.0, OTHER: 580.0, PUT: 560.0, INDEX_CALL: 5800.0}.get(conid),
        "expiry": FRIDAY if is_option else None,
        "sec_type": "OPT" if is_option else "STK",
        "symbol": "SPX" if conid == INDEX_CALL else "SPY",
        "multiplier": 100.0 if is_option else 1.0,
        "since": at - timedelta(minutes=2),
        "market_price": None,
        "average_cost": 112.0,
    }
    return PositionChange(
        **terms  # type: ignore[arg-type]
        | {
            "change_id": f"{conid}:{before:g}:{after:g}",
            "account": ACCOUNT,
            "conid": conid,
            "currency": "USD",
            "before": before,
            "after": after,
            "seen_at": at,
            "gateway_id": "g",
            "snapshot_id": "s",
        }
        | values
    )


def gone(conid: int, before: float, **values: object) -> PositionChange:
    return change(conid, before, 0.0, **values)


# What a gateway says of an execution besides: with a profit it always names the commission.
CHARGED = {"commission": 1.3, "commission_currency": "USD", "multiplier": 100.0}


def fill(
    conid: int, quantity: float, at: datetime = NOON, price: float | None = 1.5, **values: object
) -> Execution:
    row = Execution(
        execution_id=f"e{conid}.{quantity:g}{at:%d%H%M}.01", account=ACCOUNT, conid=conid,
        symbol="SPY", sec_type="OPT", time=at, quantity=abs(quantity), price=price,
        side=Side.BUY if quantity > 0 else Side.SELL, commission=None,
        commission_currency=None, realized_pnl=None, currency="USD", source=FROM_GATEWAY,
        statement="", order_id="71",
    )  # fmt: skip
    return replace(row, **values)  # type: ignore[arg-type]


def booked(
    conid: int, quantity: float, codes: str, at: datetime = END, **values: object
) -> Execution:
    stated: dict[str, object] = {
        "source": FLEX, "statement": "a.xml", "codes": codes, "transaction_type": "BookTrade",
        "realized_pnl": 12.0, "price": 0.0,
    }  # fmt: skip
    return fill(conid, quantity, at, **stated | values)


def event(kind: EventKind, quantity: float | None, **values: object) -> closes.StatementEvent:
    row = closes.StatementEvent(
        event_id=f"{kind}:{quantity}", kind=kind, account=ACCOUNT, day=FRIDAY, attributes="{}",
        source=FLEX, statement="a.xml", conid=CALL, quantity=quantity,
    )  # fmt: skip
    return replace(row, **values)  # type: ignore[arg-type]


def split(conid: int, quantity: float, kind: str = "RS", **values: object) -> closes.StatementEvent:
    """Return what an action of the company changed of a contract."""
    action = EventKind.CORPORATE_ACTION
    return event(action, quantity, type=kind, conid=conid, **values)


def details(conid: int, **values: object) -> ContractDetails:
    row = ContractDetails(
        conid=conid, symbol="SPY", sec_type="OPT", currency="USD", local_symbol="",
        trading_class="", exchange="SMART", under_conid=SHARES, multiplier=100.0,
        price_magnifier=1, right=None, strike=None, last_trade_date=FRIDAY, last_trade_time=None,
        time_zone="US/Eastern", trading_hours=HOURS, seen_at=NOON, under_sec_type="STK",
    )  # fmt: skip
    return replace(row, **values)  # type: ignore[arg-type]


CONTRACTS = {conid: details(conid) for conid in (CALL, PUT, OTHER)} | {
    INDEX_CALL: details(INDEX_CALL, under_conid=INDEX, under_sec_type="IND")
}
AT_THE_OPEN = CONTRACTS | {
    INDEX_CALL: details(
        INDEX_CALL, under_conid=INDEX, under_sec_type="IND",
        last_trade_date=FRIDAY - timedelta(days=1), expires_on=FRIDAY,
    )
}  # fmt: skip
ASKED = {ACCOUNT: (NOON - timedelta(hours=8), NIGHT + timedelta(hours=8))}
EVENING = datetime(2026, 3, 20, 21, tzinfo=NEW_YORK)
THURSDAY = FRIDAY - timedelta(days=1)
P = closes.Stage.PROVISIONAL
S = closes.Stage.STATED


def period(
    first: date = THURSDAY, last: date = FRIDAY, made: datetime = EVENING
) -> closes.StatementEvent:
    """Return the days whose trades a statement has."""
    return event(
        EventKind.PERIOD, None, event_id=f"{first} {last} {made}", conid=None, first_day=first,
        day=last, stated_at=made,
    )  # fmt: skip


GIVEN = ("changes", "executions", "events", "contracts", "asked", "prices")


@dataclass
class Case:
    """The facts, and the cause, stage and quantity of each close."""

    changes: list[PositionChange]
    says: list[tuple[Cause, closes.Stage, float]]
    executions: list[Execution] = field(default_factory=list)
    events: list[closes.StatementEvent] = field(default_factory=list)
    contracts: dict[int, ContractDetails] = field(default_factory=lambda: CONTRACTS)
    asked: dict[str, tuple[datetime, datetime]] = field(default_factory=lambda: ASKED)
    prices: dict[int, float] = field(default_factory=dict)

    def found(self) -> list[closes.Closure]:
        return closures_of(facts_of(**{name: getattr(self, name) for name in GIVEN}))


MIDNIGHT = datetime(2026, 3, 20, tzinfo=NEW_YORK).astimezone(UTC)
SOLD_AT_NOON = change(CALL, 2, 0, NOON + timedelta(seconds=1))
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BEFORE = MIDNIGHT - 15 * MINUTE
RESTARTED = MIDNIGHT + HOUR
TRADED = Cause.TRADED
WORTHLESS = Cause.EXPIRED_WORTHLESS
UNKNOWN = Cause.UNEXPLAINED
ASSIGNED = Cause.ASSIGNED
EXERCISED = Cause.EXERCISED
SALE: dict[str, object] = {"source": FLEX, "codes": "C;P", "transaction_type": "ExchTrade"}
CASES = {}
CASES["sold on its day"] = Case([SOLD_AT_NOON], [(TRADED, P, 2)], [fill(CALL, -2)])
CASES["a short one bought back"] = Case(
    [change(CALL, -3, -1, NOON)], [(TRADED, P, -2)], [fill(CALL, 2)]
)
CASES["two fills of one second, whose effects are seen apart"] = Case(
    [
        change(CALL, 3, 1, NOON + timedelta(seconds=0.4)),
        change(CALL, 1, 0, NOON + timedelta(seconds=0.9), since=NOON + timedelta(seconds=0.4)),
    ],
    [(TRADED, P, 2), (TRADED, P, 1)],
    [fill(CALL, -2, NOON), fill(CALL, -1, NOON)],
)
CASES["two fills, whose effects are seen seconds later, one by one"] = Case(
    [
        change(CALL, 3, 1, NOON + timedelta(seconds=8)),
        change(CALL, 1, 0, NOON + timedelta(seconds=9), since=NOON + timedelta(seconds=8)),
    ],
    [(TRADED, P, 2), (TRADED, P, 1)],
    [fill(CALL, -2, NOON), fill(CALL, -1, NOON + timedelta(seconds=1))],
)
CASES["an option that nothing confirmed ends beside a trade of its underlying"] = Case(
    [gone(CALL, 2, since=None)], [(UNKNOWN, P, 2)], [fill(SHARES, 100, sec_type="STK")]
)
CASES["a sale through zero closes what was held"] = Case(
    [change(CALL, 2, -3, NOON)], [(TRADED, P, 2)], [fill(CALL, -5, NOON)]
)
CASES["a purchase closes nothing"] = Case([change(CALL, 2, 3, NOON)], [], [fill(CALL, 1)])
CASES["an execution of another account explains nothing"] = Case(
    [SOLD_AT_NOON], [(UNKNOWN, P, 2)], [fill(CALL, -2, account="DU2")]
)
CASES["an execution of yesterday explains nothing"] = Case(
    [SOLD_AT_NOON], [(UNKNOWN, P, 2)], [fill(CALL, -2, NOON - DAY)]
)
CASES["an execution of more than was closed explains what was closed"] = Case(
    [SOLD_AT_NOON], [(TRADED, P, 2)], [fill(CALL, -3)]
)
CASES["three fills of one second, and the effect of two of them is seen first"] = Case(
    [
        change(CALL, 3, 1, NOON + timedelta(seconds=0.4)),
        change(CALL, 1, 0, NOON + timedelta(seconds=0.9), since=NOON + timedelta(seconds=0.4)),
    ],
    [(TRADED, P, 2), (TRADED, P, 1)],
    [fill(CALL, -1, NOON, execution_id=f"1.{number}.01") for number in range(3)],
)
CASES["sold and bought back while nobody looked, and transferred"] = Case(
    [change(CALL, 2, 0, NOON + HOUR, since=NOON - HOUR)],
    [(UNKNOWN, P, 2)],
    [fill(CALL, -3), fill(CALL, 3)],
)
CASES["sold as a statement has it"] = Case(
    [SOLD_AT_NOON], [(TRADED, S, 2)], [fill(CALL, -2), fill(CALL, -2, **SALE)]
)
CASES["a statement without codes states no cause"] = Case(
    [SOLD_AT_NOON], [(TRADED, P, 2)], [fill(CALL, -2, source=FLEX)]
)
CASES["a trade with a code that nobody knows is a trade"] = Case(
    [SOLD_AT_NOON],
    [(TRADED, S, 2)],
    [fill(CALL, -2, source=FLEX, codes="C;Qq", transaction_type="ExchTrade")],
)
CASES["a cancelled purchase"] = Case(
    [change(CALL, 0, 2, NOON), change(CALL, 2, 0, NIGHT)],
    [(Cause.CORRECTED, S, 2)],
    [fill(CALL, 2), booked(CALL, -2, "Ca", NOON + 3 * HOUR, transaction_type="TradeCancel")],
)
CASES["expired worthless"] = Case([gone(CALL, 1)], [(WORTHLESS, P, 1)], prices={CALL: 560.0})
CASES["an option near its strike, and after the night nothing came of its underlying"] = Case(
    [gone(CALL, 1)], [(WORTHLESS, P, 1)], prices={CALL: 570.0}
)
CASES["an option near its strike, and the executions of the night are not known"] = Case(
    [gone(CALL, 1)],
    [(UNKNOWN, P, 1)],
    asked={ACCOUNT: (ASKED[ACCOUNT][0], NIGHT + 14 * MINUTE)},
    prices={CALL: 570.0},
)
CASES["an option near its strike that is gone in the evening: the night is not over"] = Case(
    [gone(CALL, 1, at=END + HOUR)],
    [(UNKNOWN, P, 1)],
    asked={ACCOUNT: (ASKED[ACCOUNT][0], END + 7 * HOUR)},
    prices={CALL: 570.0},
)
CASES["a short put and a long call near their strikes, and nothing came"] = Case(
    [gone(PUT, -2), gone(CALL, 1)], [(WORTHLESS, P, -2), (WORTHLESS, P, 1)]
)
CASES["near their strikes, and what they deliver would offset each other"] = Case(
    [gone(PUT, -1), gone(CALL, -1)],
    [(UNKNOWN, P, -1), (UNKNOWN, P, -1)],
    prices={PUT: 562.0, CALL: 572.0},
)
CASES["an option near its strike beside one in the money: only the statement knows"] = Case(
    [gone(CALL, 1), gone(OTHER, 1)],
    [(UNKNOWN, P, 1), (UNKNOWN, P, 1)],
    prices={CALL: 577.0, OTHER: 590.0},
)
CASES["expired, as stated on Friday and gone on Monday"] = Case(
    [gone(CALL, -1, at=END + 3 * DAY, since=END + 2 * HOUR)],
    [(WORTHLESS, S, -1)],
    [booked(CALL, 1, "C;Ep")],
)
CASES["an execution that fits no change: nothing is inferred"] = Case(
    [gone(CALL, 1)], [(UNKNOWN, P, 1)], [fill(CALL, -1, NIGHT + 5 * HOUR)]
)
CASES["the trade that opened an option, before the first list, is no other cause of its end"] = (
    Case(
        [gone(CALL, -1), change(SHARES, 100, 0), gone(PUT, -1)],
        [(ASSIGNED, P, -1), (ASSIGNED, P, 100), (WORTHLESS, P, -1)],
        [fill(CALL, -1), fill(PUT, -1)],
        prices={PUT: 700.0},
    )
)
CASES["half was sold before half expired"] = Case(
    [gone(CALL, 2, since=NOON - HOUR)],
    [(TRADED, S, 1), (WORTHLESS, S, 1)],
    [fill(CALL, -1, **SALE), booked(CALL, -1, "Ep")],
)
CASES["a failed request for executions proves nothing"] = Case(
    [gone(CALL, 1, at=NOON)], [(UNKNOWN, P, 1)], asked={}
)
CASES["before its end it did not expire"] = Case([gone(CALL, 1, at=NOON)], [(UNKNOWN, P, 1)])
CASES["a short put is assigned before its end"] = Case(
    [gone(PUT, -2, at=NOON), change(SHARES, 50, 250, NOON + 3 * MINUTE)],
    [(ASSIGNED, P, -2)],
)
CASES["a covered call is assigned, and the shares go"] = Case(
    [gone(CALL, -1), change(SHARES, 100, 0)], [(ASSIGNED, P, -1), (ASSIGNED, P, 100)]
)
CASES["an option whose strike is not known delivers nothing"] = Case(
    [gone(CALL, -1, strike=None), change(SHARES, 100, 0)], [(UNKNOWN, P, -1), (UNKNOWN, P, 100)]
)
CASES["a long put is exercised, and the shares go"] = Case(
    [gone(PUT, 1), change(SHARES, 100, 0)], [(EXERCISED, P, 1), (EXERCISED, P, 100)]
)
CASES["a long call is exercised"] = Case(
    [gone(CALL, 1), change(SHARES, 0, 100)], [(EXERCISED, P, 1)]
)
CASES["assigned early while the gateway restarted at midnight: nothing traded before it"] = Case(
    [
        change(CALL, -1, 0, RESTARTED, since=BEFORE),
        change(SHARES, 100, 0, RESTARTED, since=BEFORE),
    ],
    [(ASSIGNED, P, -1), (ASSIGNED, P, 100)],
    contracts=CONTRACTS | {SHARES: details(SHARES, sec_type="STK", last_trade_date=None)},
    asked={ACCOUNT: (MIDNIGHT, RESTARTED)},
)
CASES["shares that were bought are no assignment"] = Case(
    [gone(PUT, -1), change(SHARES, 0, 100)],
    [(WORTHLESS, P, -1)],
    [fill(SHARES, 100, NIGHT)],
)
CASES["shares of another number are no assignment"] = Case(
    [gone(PUT, -1), change(SHARES, 0, 150)], [(UNKNOWN, P, -1)]
)
CASES["shares that come an hour later are no assignment"] = Case(
    [gone(PUT, -1), change(SHARES, 0, 100, NIGHT + HOUR)], [(UNKNOWN, P, -1)]
)
CASES["both legs of a spread in the money, and no shares come: only the statement knows"] = Case(
    [gone(CALL, -1), gone(OTHER, 1)], [(UNKNOWN, P, -1), (UNKNOWN, P, 1)]
)
CASES["one leg in the money with its shares, and the others out of it"] = Case(
    [gone(PUT, -1), gone(CALL, -1), gone(OTHER, 1), change(SHARES, 0, 100)],
    [(ASSIGNED, P, -1), (WORTHLESS, P, -1), (WORTHLESS, P, 1)],
    prices=dict.fromkeys((PUT, CALL, OTHER), 520.0),
)
CASES["one leg in the money with its shares, and another one near its strike"] = Case(
    [gone(PUT, -1), gone(CALL, -1), change(SHARES, 0, 100)],
    [(UNKNOWN, P, -1), (UNKNOWN, P, -1)],
)
CASES["two legs in the money with the shares of both: only the statement knows"] = Case(
    [gone(CALL, -1), gone(OTHER, -1), change(SHARES, 200, 0)],
    [(UNKNOWN, P, -1), (UNKNOWN, P, -1), (UNKNOWN, P, 200)],
)
CASES["at their end, one price does not exercise a put and a call with a higher strike"] = Case(
    [gone(PUT, -1), gone(OTHER, 1), change(SHARES, 0, 200)],
    [(UNKNOWN, P, -1), (UNKNOWN, P, 1)],
)
CASES["two options that are transferred, whose shares would offset each other"] = Case(
    [gone(PUT, 1, at=NOON), gone(CALL, 1, at=NOON)], [(UNKNOWN, P, 1), (UNKNOWN, P, 1)]
)
CASES["no assignment turns a short position into a long one"] = Case(
    [change(CALL, -1, 1, NOON), change(SHARES, 100, 0, NOON)],
    [(UNKNOWN, P, -1), (UNKNOWN, P, 100)],
)
CASES["shares that are seen after a gap, of which all executions are known"] = Case(
    [gone(CALL, 1), change(SHARES, 0, 100, NIGHT + 6 * HOUR, since=NIGHT)],
    [(EXERCISED, P, 1)],
)
CASES["shares that are seen after a gap, of which some executions are not known"] = Case(
    [gone(CALL, 1), change(SHARES, 0, 100, NIGHT + 6 * HOUR, since=NIGHT)],
    [(UNKNOWN, P, 1)],
    asked={ACCOUNT: (NIGHT + HOUR, NIGHT + 8 * HOUR)},
)
CASES["an option clearly out of the money does not hide the exercise of another one"] = Case(
    [gone(OTHER, 1), gone(CALL, 1), change(SHARES, 0, 100, NIGHT + 6 * HOUR, since=NIGHT)],
    [(WORTHLESS, P, 1), (EXERCISED, P, 1)],
    prices={OTHER: 570.0, CALL: 585.0},
)
CASES["shares of an option in the money are known after a gap too"] = Case(
    [gone(CALL, 1), change(SHARES, 0, 100, NIGHT + 6 * HOUR, since=NIGHT)],
    [(EXERCISED, P, 1)],
    prices={CALL: 585.0},
)
CASES["shares that came and were traded away during a gap"] = Case(
    [gone(CALL, 1)], [(UNKNOWN, P, 1)], [fill(SHARES, -100, NIGHT + 6 * HOUR)]
)
CASES["a transfer of its day is stated, not an assignment of days before"] = Case(
    [change(SHARES, 100, 0, END + 3 * DAY, since=END + timedelta(days=3, hours=-1))],
    [(Cause.TRANSFERRED, S, 100)],
    [booked(SHARES, -100, "A;C")],
    [event(EventKind.TRANSFER, 100, conid=SHARES, direction="OUT", day=FRIDAY + 3 * DAY)],
)
CASES["shares that come minutes after the second of two options are not overlooked"] = Case(
    [
        gone(CALL, 1),
        gone(OTHER, 1, at=NIGHT + 14 * MINUTE),
        change(SHARES, 0, 100, NIGHT + 16 * MINUTE),
    ],
    [(UNKNOWN, P, 1), (UNKNOWN, P, 1)],
)
CASES["an assignment, as stated, with its shares"] = Case(
    [gone(PUT, -1), change(SHARES, 0, 100)],
    [(ASSIGNED, S, -1)],
    [
        booked(PUT, 1, "A;C", attributes=f'{{"underlyingConid": "{SHARES}"}}'),
        booked(SHARES, 100, "A;O", price=560.0),
    ],
)
CASES["offsetting positions: the short leg is assigned, the long one exercised"] = Case(
    [gone(CALL, -1), gone(OTHER, 1)],
    [(ASSIGNED, S, -1), (EXERCISED, S, 1)],
    [booked(CALL, 1, "C;GEA"), booked(OTHER, -1, "C;GEA")],
)
CASES["an assignment that only the section of events has"] = Case(
    [gone(CALL, -1)],
    [(ASSIGNED, S, -1)],
    events=[event(EventKind.OPTION_EVENT, 1, type="Assignment")],
)
CASES["an index option in the money is settled in cash"] = Case(
    [gone(INDEX_CALL, 1)], [(Cause.CASH_SETTLED, P, 1)], prices={INDEX_CALL: 5920.0}
)
CASES["an index option out of the money"] = Case(
    [gone(INDEX_CALL, 1)], [(WORTHLESS, P, 1)], prices={INDEX_CALL: 5700.0}
)
CASES["an index option near its strike"] = Case(
    [gone(INDEX_CALL, 1)], [(UNKNOWN, P, 1)], prices={INDEX_CALL: 5790.0}
)
CASES["an option far from its strike, as soon as it is gone"] = Case(
    [gone(CALL, 1)],
    [(WORTHLESS, P, 1)],
    asked={ACCOUNT: (ASKED[ACCOUNT][0], NIGHT)},
    prices={CALL: 560.0},
)
CASES["an option near its strike was exercised, as its shares show"] = Case(
    [gone(CALL, 1), change(SHARES, 0, 100)], [(EXERCISED, P, 1)]
)
CASES["settled at the open, and three hundredths from its strike: not known"] = Case(
    [gone(INDEX_CALL, 1)],
    [(UNKNOWN, P, 1)],
    contracts=AT_THE_OPEN,
    prices={INDEX_CALL: 5626.0},
)
CASES["settled in cash, as stated by its price"] = Case(
    [change(INDEX_CALL, 1, 0)],
    [(Cause.CASH_SETTLED, S, 1)],
    [booked(INDEX_CALL, -1, "Ep", price=12.5)],
)
CASES["settled in cash, as the section of events has it"] = Case(
    [change(INDEX_CALL, 1, 0)],
    [(Cause.CASH_SETTLED, S, 1)],
    [booked(INDEX_CALL, -1, "Ex")],
    [event(EventKind.OPTION_EVENT, 1, type="Cash Settlement", conid=INDEX_CALL)],
)
CASES["a reverse split takes shares away"] = Case(
    [change(SHARES, 400, 100)],
    [(Cause.SPLIT, S, 300)],
    events=[split(SHARES, -400), split(SHARES, 100)],
)
CASES["a split into a new contract"] = Case(
    [change(SHARES, 100, 0), change(NEW_SHARES, 0, 33)],
    [(Cause.SPLIT, S, 100)],
    events=[
        split(SHARES, -100, attributes='{"actionID": "5"}'),
        split(NEW_SHARES, 33, attributes='{"actionID": "5"}'),
    ],
)
CASES["a change of the symbol"] = Case(
    [change(SHARES, 100, 0)],
    [(Cause.CORPORATE_ACTION, S, 100)],
    events=[split(SHARES, -100, "IC")],
)
CASES["before the statement a split is unexplained"] = Case(
    [change(SHARES, 100, 0), change(NEW_SHARES, 0, 33)], [(UNKNOWN, P, 100)]
)
CASES["transferred"] = Case(
    [change(SHARES, 100, 0)],
    [(Cause.TRANSFERRED, S, 100)],
    events=[event(EventKind.TRANSFER, 100, type="ACATS", direction="OUT", conid=SHARES)],
)
CASES["a transfer into the account explains no close"] = Case(
    [change(SHARES, 100, 0)],
    [(UNKNOWN, P, 100)],
    events=[event(EventKind.TRANSFER, 100, type="ACATS", direction="IN", conid=SHARES)],
)
CASES["the statements of its days do not name it"] = Case(
    [gone(CALL, 1, at=NOON)], [(UNKNOWN, S, 1)], events=[period()]
)
CASES["the statement of one of its days is missing"] = Case(
    [gone(CALL, 1, at=NOON, since=NOON - DAY)],
    [(UNKNOWN, P, 1)],
    events=[period(FRIDAY)],
)
CASES["a trade of a statement that names its day alone"] = Case(
    [SOLD_AT_NOON],
    [(TRADED, S, 2)],
    [fill(CALL, -2, MIDNIGHT, **SALE)],
    events=[period()],
)
CASES["a day alone explains no change of the day before"] = Case(
    [change(CALL, 2, 0, MIDNIGHT - 8 * HOUR)],
    [(UNKNOWN, P, 2)],
    [fill(CALL, -2, MIDNIGHT, **SALE)],
)
CASES["a newer statement corrects an event"] = Case(
    [gone(CALL, -2)],
    [(ASSIGNED, S, -2)],
    events=[
        event(EventKind.OPTION_EVENT, 2, type=kind, event_id="E9", stated_at=at)
        for kind, at in (("Assignment", END), ("Expiration", END - DAY))
    ],
)
CASES["the statement of its day was made before it"] = Case(
    [gone(CALL, 1, at=NOON)], [(UNKNOWN, P, 1)], events=[period(made=NOON - MINUTE)]
)
CASES["a statement of its day was made again after it"] = Case(
    [gone(CALL, 1, at=NOON)],
    [(UNKNOWN, S, 1)],
    events=[period(made=NOON - MINUTE), period(made=NOON)],
)
CASES["a trade of the evening is in the statement of the next day"] = Case(
    [gone(CALL, 1, at=EVENING - DAY)],
    [(UNKNOWN, P, 1)],
    events=[period(last=THURSDAY)],
)
CASES["a trade of Sunday evening is in the statement of Monday"] = Case(
    [gone(CALL, 1, at=EVENING + 2 * DAY)],
    [(UNKNOWN, S, 1)],
    events=[period(FRIDAY + 3 * DAY, FRIDAY + 3 * DAY, EVENING + 3 * DAY)],
)
CASES["a close that was seen at night was made before the statement of the evening"] = Case(
    [gone(CALL, 1, at=EVENING + 2 * HOUR)], [(UNKNOWN, S, 1)], events=[period()]
)


@pytest.mark.parametrize("name", CASES)
def test_the_cause_follows_from_the_facts(name: str) -> None:
    case = CASES[name]
    judged = [(closure.cause, closure.stage, closure.quantity) for closure in case.found()]
    assert judged == case.says, [one.detail for one in case.found()]


def test_a_day_without_a_session_needs_no_statement() -> None:
    """As Thanksgiving: the broker makes no statement of it."""
    day_between = Case(
        [gone(CALL, 1, at=NOON, since=NOON - 2 * DAY)],
        [],
        events=[period(FRIDAY - 2 * DAY, FRIDAY - 2 * DAY), period(FRIDAY)],
    )
    given = {name: getattr(day_between, name) for name in GIVEN}
    with_session = closures_of(facts_of(**given))
    assert [closure.stage for closure in with_session] == [P]
    days = (FRIDAY - 2 * DAY, FRIDAY)
    without = facts_of(**given, trading_days=lambda first, last: [d for d in days if d <= last])
    assert [closure.stage for closure in closures_of(without)] == [S]


def test_the_parts_of_a_close_add_up_to_it() -> None:
    for name, case in CASES.items():
        found = case.found()
        for change in case.changes:
            parts = [part for part in found if part.change_id == change.change_id]
            assert sum(part.quantity for part in parts) == change.closed, name
            assert all(part.detail for part in parts), name


def test_without_facts_no_cause_is_known() -> None:
    """Missing requests, statements and details never make a cause; a sale alone is evidence."""
    for name, case in CASES.items():
        without = replace(case, executions=[], events=[], contracts={}, asked={})
        known = [closure for closure in without.found() if closure.cause is not Cause.UNEXPLAINED]
        assert not known, (name, [one.detail for one in known])


def test_a_worthless_expiry_has_realized_its_cost() -> None:
    (short,) = Case([gone(CALL, -1)], [], prices={CALL: 560.0}).found()
    (long,) = Case([gone(CALL, 2)], [], prices={CALL: 560.0}).found()
    assert short.realized_pnl == 112.0
    assert long.realized_pnl == (-224.0)
    assert short.price == 0.0


def test_a_trade_has_its_price_its_profit_and_its_evidence() -> None:
    stated = {"source": FLEX, "codes": "C;P", "transaction_type": "ExchTrade", "statement": "a.xml"}
    (difference,) = Case(
        [SOLD_AT_NOON],
        [],
        [
            fill(CALL, -1, NOON, 1.0, realized_pnl=5.0, **stated),
            fill(CALL, -1, NOON - timedelta(minutes=1), 2.0, realized_pnl=7.0, **stated),
        ],
    ).found()
    assert difference.price == 1.5
    assert difference.realized_pnl == 12.0
    assert difference.statement == "a.xml"
    assert difference.order_ids == "71"
    assert difference.executions == ",".join(difference.evidence or ())
    assert len(difference.evidence or ()) == 2
    assert difference.closed_at == NOON


CANCEL: dict[str, object] = {"source": FLEX, "codes": "Ca", "transaction_type": "TradeCancel"}
SOLD_TWICE = [
    fill(CALL, -2, execution_id="a", realized_pnl=100.0, **SALE),
    fill(CALL, 2, execution_id="b", realized_pnl=-100.0, **CANCEL),
]


@pytest.mark.parametrize(
    ("again", "realized"),
    [
        ([fill(CALL, -2, execution_id="c", realized_pnl=100.0, **SALE)], 100.0),
        (
            [
                fill(CALL, -1, execution_id=execution_id, realized_pnl=75.0, **SALE)
                for execution_id in "cd"
            ],
            150.0,
        ),
        ([fill(CALL, -2, execution_id="c", **SALE)], None),
    ],
    ids=["as it was", "in two parts", "without its profit"],
)
def test_a_booking_and_its_cancellation_explain_no_close(again, realized) -> None:
    (closure,) = Case([SOLD_AT_NOON], [], [*SOLD_TWICE, *again]).found()
    assert closure.cause == TRADED
    assert closure.quantity == 2.0
    assert closure.realized_pnl == realized


def test_a_bill_is_counted_in_units_of_a_thousand_of_its_face() -> None:
    matured = fill(SHARES, -5000, sec_type="BILL", realized_pnl=70.0, **SALE)
    held = change(SHARES, 5, 0, NOON + timedelta(seconds=1), sec_type="BILL")
    (closure,) = Case([held], [], [matured]).found()
    assert closure.cause == TRADED
    assert closure.quantity == 5.0
    assert closure.realized_pnl == 70.0


def test_a_trade_with_a_code_that_nobody_knows_names_it() -> None:
    (closure,) = CASES["a trade with a code that nobody knows is a trade"].found()
    assert closure.detail == "traded, with the codes C;Qq"


def test_an_execution_that_closes_two_changes_gives_each_its_part_of_the_profit() -> None:
    seen_apart = [
        change(CALL, 3, 1, NOON + timedelta(seconds=0.4)),
        change(CALL, 1, 0, NOON + timedelta(seconds=0.9), since=NOON + timedelta(seconds=0.4)),
    ]
    first, second = Case(seen_apart, [], [fill(CALL, -3, NOON, 2.0, realized_pnl=30.0)]).found()
    assert first.quantity == 2.0
    assert first.price == 2.0
    assert first.realized_pnl == pytest.approx(20.0)
    assert second.quantity == 1.0
    assert second.price == 2.0
    assert second.realized_pnl == pytest.approx(10.0)


def test_an_assignment_names_the_shares_and_the_shares_name_the_option() -> None:
    option, shares = CASES["a covered call is assigned, and the shares go"].found()
    assert option.counter_conid == SHARES
    assert shares.counter_conid == CALL
    (stated,) = CASES["an assignment, as stated, with its shares"].found()
    assert stated.counter_conid == SHARES


def judged(name: str) -> list[closes.Closure]:
    return CASES[name].found()


@pytest.mark.parametrize(
    ("old", "new", "replaces"),
    [
        ("expired worthless", "the statements of its days do not name it", True),
        ("the statements of its days do not name it", "expired worthless", False),
        ("a failed request for executions proves nothing", "expired worthless", True),
        ("expired worthless", "a failed request for executions proves nothing", False),
        ("sold on its day", "sold as a statement has it", True),
        ("sold on its day", "sold on its day", False),
    ],
)
def test_what_is_stated_replaces_and_what_is_known_is_not_forgotten(old, new, replaces) -> None:
    assert closes.knows_more(judged(new), judged(old)) is replaces


def test_the_order_of_the_facts_does_not_matter() -> None:
    def told(case: Case) -> set[tuple[object, ...]]:
        return {
            (closure.change_id, closure.cause, closure.stage, closure.quantity)
            for closure in case.found()
        }

    for name, case in CASES.items():
        mirrored = replace(
            case,
            changes=case.changes[::-1],
            executions=case.executions[::-1],
            events=case.events[::-1],
        )
        assert told(mirrored) == told(case), name
