"""The cause of each close, from a table of facts to what it says; never a false one."""

import re
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

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


STRIKES = {CALL: 575.0, OTHER: 580.0, PUT: 560.0, INDEX_CALL: 5800.0}
SHARE: dict[str, object] = {
    "right": None, "strike": None, "expiry": None, "sec_type": "STK", "multiplier": 1.0,
}  # fmt: skip


def terms_of(conid: int) -> dict[str, object]:
    """Return what a contract is."""
    symbol = "SPX" if conid == INDEX_CALL else "SPY"
    if conid not in STRIKES:
        return SHARE | {"symbol": symbol}
    return {
        "right": Right.PUT if conid == PUT else Right.CALL, "strike": STRIKES[conid],
        "expiry": FRIDAY, "sec_type": "OPT", "multiplier": 100.0, "symbol": symbol,
    }  # fmt: skip


def change(
    conid: int, before: float, after: float, at: datetime = NIGHT, **values: object
) -> PositionChange:
    row = PositionChange(
        change_id=f"{conid}:{before:g}:{after:g}", account=ACCOUNT, conid=conid, symbol="",
        sec_type="", right=None, strike=None, expiry=None, multiplier=None, currency="USD",
        before=before, after=after, seen_at=at, since=at - timedelta(minutes=2),
        market_price=None, average_cost=112.0, gateway_id="g", snapshot_id="s",
    )  # fmt: skip
    return replace(row, **terms_of(conid) | values)  # type: ignore[arg-type]


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


def requested(until: datetime) -> dict[str, tuple[datetime, datetime]]:
    """Return that the executions of the account are known from the morning until a time."""
    first, _last = ASKED[ACCOUNT]
    return {ACCOUNT: (first, until)}


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
SALE: dict[str, object] = {"source": FLEX, "codes": "C;P", "transaction_type": "ExchTrade"}

MOMENTS = {
    "NOON": NOON, "END": END, "EVENING": EVENING, "NIGHT": NIGHT,
    "MIDNIGHT": MIDNIGHT, "BEFORE": BEFORE, "RESTARTED": RESTARTED,
}  # fmt: skip
UNITS = {"s": timedelta(seconds=1), "m": MINUTE, "h": HOUR, "d": DAY}
CONIDS = {
    "CALL": CALL, "PUT": PUT, "OTHER": OTHER,
    "SHARES": SHARES, "NEW_SHARES": NEW_SHARES, "INDEX_CALL": INDEX_CALL,
}  # fmt: skip


def moment(text: str) -> datetime:
    """Return a time that is written as `NOON`, `NIGHT+6h` or `END-0.5s`."""
    parts = re.fullmatch(r"([A-Z]+)(?:([+-][\d.]+)([smhd]))?", text)
    assert parts, text
    name, number, unit = parts.groups()
    if number is None:
        return MOMENTS[name]
    return MOMENTS[name] + float(number) * UNITS[unit]


def changes_in(text: str) -> list[PositionChange]:
    """Return changes that are written as `CALL 2 to 0 at NOON since NOON-1h, PUT 1 to 0`."""
    changes = []
    for written in text.split(", "):
        name, before, _to, after, *times = written.split()
        moments = dict(zip(times[::2], map(moment, times[1::2]), strict=True))
        changes.append(change(CONIDS[name], float(before), float(after), **moments))
    return changes


def judgements_in(text: str) -> list[tuple[Cause, closes.Stage, float]]:
    """Return what closures say, written as `stated: TRADED 1, EXPIRED_WORTHLESS 1`."""
    if not text:
        return []
    stage, causes = text.split(": ")
    words = [cause.split() for cause in causes.split(", ")]
    return [(Cause(cause), closes.Stage(stage.upper()), float(size)) for cause, size in words]


def case(changes: str, says: str, *evidence: Any, **facts: Any) -> Case:
    """Return a case whose changes, and what is said of them, are text."""
    return Case(changes_in(changes), judgements_in(says), *evidence, **facts)


CASES = {}
CASES["sold on its day"] = case("CALL 2 to 0 at NOON+1s", "provisional: TRADED 2", [fill(CALL, -2)])
CASES["a short one bought back"] = case(
    "CALL -3 to -1 at NOON", "provisional: TRADED -2", [fill(CALL, 2)]
)
CASES["two fills of one second, whose effects are seen apart"] = case(
    "CALL 3 to 1 at NOON+0.4s, CALL 1 to 0 at NOON+0.9s since NOON+0.4s",
    "provisional: TRADED 2, TRADED 1",
    [fill(CALL, -2, NOON), fill(CALL, -1, NOON)],
)
CASES["two fills, whose effects are seen seconds later, one by one"] = case(
    "CALL 3 to 1 at NOON+8s, CALL 1 to 0 at NOON+9s since NOON+8s",
    "provisional: TRADED 2, TRADED 1",
    [fill(CALL, -2, NOON), fill(CALL, -1, NOON + timedelta(seconds=1))],
)
CASES["an option that nothing confirmed ends beside a trade of its underlying"] = Case(
    [gone(CALL, 2, since=None)],
    judgements_in("provisional: UNEXPLAINED 2"),
    [fill(SHARES, 100, sec_type="STK")],
)
CASES["a sale through zero closes what was held"] = case(
    "CALL 2 to -3 at NOON", "provisional: TRADED 2", [fill(CALL, -5, NOON)]
)
CASES["a purchase closes nothing"] = case("CALL 2 to 3 at NOON", "", [fill(CALL, 1)])
CASES["an execution of another account explains nothing"] = case(
    "CALL 2 to 0 at NOON+1s", "provisional: UNEXPLAINED 2", [fill(CALL, -2, account="DU2")]
)
CASES["an execution of yesterday explains nothing"] = case(
    "CALL 2 to 0 at NOON+1s", "provisional: UNEXPLAINED 2", [fill(CALL, -2, NOON - DAY)]
)
CASES["an execution of more than was closed explains what was closed"] = case(
    "CALL 2 to 0 at NOON+1s", "provisional: TRADED 2", [fill(CALL, -3)]
)
CASES["three fills of one second, and the effect of two of them is seen first"] = case(
    "CALL 3 to 1 at NOON+0.4s, CALL 1 to 0 at NOON+0.9s since NOON+0.4s",
    "provisional: TRADED 2, TRADED 1",
    [fill(CALL, -1, NOON, execution_id=f"1.{number}.01") for number in range(3)],
)
CASES["sold and bought back while nobody looked, and transferred"] = case(
    "CALL 2 to 0 at NOON+1h since NOON-1h",
    "provisional: UNEXPLAINED 2",
    [fill(CALL, -3), fill(CALL, 3)],
)
CASES["sold as a statement has it"] = case(
    "CALL 2 to 0 at NOON+1s", "stated: TRADED 2", [fill(CALL, -2), fill(CALL, -2, **SALE)]
)
CASES["a statement without codes states no cause"] = case(
    "CALL 2 to 0 at NOON+1s", "provisional: TRADED 2", [fill(CALL, -2, source=FLEX)]
)
CASES["a trade with a code that nobody knows is a trade"] = case(
    "CALL 2 to 0 at NOON+1s",
    "stated: TRADED 2",
    [fill(CALL, -2, source=FLEX, codes="C;Qq", transaction_type="ExchTrade")],
)
CASES["a cancelled purchase"] = case(
    "CALL 0 to 2 at NOON, CALL 2 to 0 at NIGHT",
    "stated: CORRECTED 2",
    [fill(CALL, 2), booked(CALL, -2, "Ca", NOON + 3 * HOUR, transaction_type="TradeCancel")],
)
CASES["expired worthless"] = case(
    "CALL 1 to 0", "provisional: EXPIRED_WORTHLESS 1", prices={CALL: 560.0}
)
CASES["an option near its strike, and after the night nothing came of its underlying"] = case(
    "CALL 1 to 0", "provisional: EXPIRED_WORTHLESS 1", prices={CALL: 570.0}
)
CASES["an option near its strike, and the executions of the night are not known"] = case(
    "CALL 1 to 0",
    "provisional: UNEXPLAINED 1",
    asked=requested(NIGHT + 14 * MINUTE),
    prices={CALL: 570.0},
)
CASES["an option near its strike that is gone in the evening: the night is not over"] = case(
    "CALL 1 to 0 at END+1h",
    "provisional: UNEXPLAINED 1",
    asked=requested(END + 7 * HOUR),
    prices={CALL: 570.0},
)
CASES["a short put and a long call near their strikes, and nothing came"] = case(
    "PUT -2 to 0, CALL 1 to 0", "provisional: EXPIRED_WORTHLESS -2, EXPIRED_WORTHLESS 1"
)
CASES["near their strikes, and what they deliver would offset each other"] = case(
    "PUT -1 to 0, CALL -1 to 0",
    "provisional: UNEXPLAINED -1, UNEXPLAINED -1",
    prices={PUT: 562.0, CALL: 572.0},
)
CASES["an option near its strike beside one in the money: only the statement knows"] = case(
    "CALL 1 to 0, OTHER 1 to 0",
    "provisional: UNEXPLAINED 1, UNEXPLAINED 1",
    prices={CALL: 577.0, OTHER: 590.0},
)
CASES["expired, as stated on Friday and gone on Monday"] = case(
    "CALL -1 to 0 at END+3d since END+2h", "stated: EXPIRED_WORTHLESS -1", [booked(CALL, 1, "C;Ep")]
)
CASES["an execution that fits no change: nothing is inferred"] = case(
    "CALL 1 to 0", "provisional: UNEXPLAINED 1", [fill(CALL, -1, NIGHT + 5 * HOUR)]
)
CASES["the trade that opened an option, before the first list, is no other cause of its end"] = (
    case(
        "CALL -1 to 0, SHARES 100 to 0, PUT -1 to 0",
        "provisional: ASSIGNED -1, ASSIGNED 100, EXPIRED_WORTHLESS -1",
        [fill(CALL, -1), fill(PUT, -1)],
        prices={PUT: 700.0},
    )
)
CASES["half was sold before half expired"] = case(
    "CALL 2 to 0 since NOON-1h",
    "stated: TRADED 1, EXPIRED_WORTHLESS 1",
    [fill(CALL, -1, **SALE), booked(CALL, -1, "Ep")],
)
CASES["a failed request for executions proves nothing"] = case(
    "CALL 1 to 0 at NOON", "provisional: UNEXPLAINED 1", asked={}
)
CASES["before its end it did not expire"] = case(
    "CALL 1 to 0 at NOON", "provisional: UNEXPLAINED 1"
)
CASES["a short put is assigned before its end"] = case(
    "PUT -2 to 0 at NOON, SHARES 50 to 250 at NOON+3m", "provisional: ASSIGNED -2"
)
CASES["a covered call is assigned, and the shares go"] = case(
    "CALL -1 to 0, SHARES 100 to 0", "provisional: ASSIGNED -1, ASSIGNED 100"
)
CASES["an option whose strike is not known delivers nothing"] = Case(
    [gone(CALL, -1, strike=None), change(SHARES, 100, 0)],
    judgements_in("provisional: UNEXPLAINED -1, UNEXPLAINED 100"),
)
CASES["a long put is exercised, and the shares go"] = case(
    "PUT 1 to 0, SHARES 100 to 0", "provisional: EXERCISED 1, EXERCISED 100"
)
CASES["a long call is exercised"] = case("CALL 1 to 0, SHARES 0 to 100", "provisional: EXERCISED 1")
CASES["assigned early while the gateway restarted at midnight: nothing traded before it"] = case(
    "CALL -1 to 0 at RESTARTED since BEFORE, SHARES 100 to 0 at RESTARTED since BEFORE",
    "provisional: ASSIGNED -1, ASSIGNED 100",
    contracts=CONTRACTS | {SHARES: details(SHARES, sec_type="STK", last_trade_date=None)},
    asked={ACCOUNT: (MIDNIGHT, RESTARTED)},
)
CASES["shares that were bought are no assignment"] = case(
    "PUT -1 to 0, SHARES 0 to 100", "provisional: EXPIRED_WORTHLESS -1", [fill(SHARES, 100, NIGHT)]
)
CASES["shares of another number are no assignment"] = case(
    "PUT -1 to 0, SHARES 0 to 150", "provisional: UNEXPLAINED -1"
)
CASES["shares that come an hour later are no assignment"] = case(
    "PUT -1 to 0, SHARES 0 to 100 at NIGHT+1h", "provisional: UNEXPLAINED -1"
)
CASES["both legs of a spread in the money, and no shares come: only the statement knows"] = case(
    "CALL -1 to 0, OTHER 1 to 0", "provisional: UNEXPLAINED -1, UNEXPLAINED 1"
)
CASES["one leg in the money with its shares, and the others out of it"] = case(
    "PUT -1 to 0, CALL -1 to 0, OTHER 1 to 0, SHARES 0 to 100",
    "provisional: ASSIGNED -1, EXPIRED_WORTHLESS -1, EXPIRED_WORTHLESS 1",
    prices=dict.fromkeys((PUT, CALL, OTHER), 520.0),
)
CASES["one leg in the money with its shares, and another one near its strike"] = case(
    "PUT -1 to 0, CALL -1 to 0, SHARES 0 to 100", "provisional: UNEXPLAINED -1, UNEXPLAINED -1"
)
CASES["two legs in the money with the shares of both: only the statement knows"] = case(
    "CALL -1 to 0, OTHER -1 to 0, SHARES 200 to 0",
    "provisional: UNEXPLAINED -1, UNEXPLAINED -1, UNEXPLAINED 200",
)
CASES["at their end, one price does not exercise a put and a call with a higher strike"] = case(
    "PUT -1 to 0, OTHER 1 to 0, SHARES 0 to 200", "provisional: UNEXPLAINED -1, UNEXPLAINED 1"
)
CASES["two options that are transferred, whose shares would offset each other"] = case(
    "PUT 1 to 0 at NOON, CALL 1 to 0 at NOON", "provisional: UNEXPLAINED 1, UNEXPLAINED 1"
)
CASES["no assignment turns a short position into a long one"] = case(
    "CALL -1 to 1 at NOON, SHARES 100 to 0 at NOON", "provisional: UNEXPLAINED -1, UNEXPLAINED 100"
)
CASES["shares that are seen after a gap, of which all executions are known"] = case(
    "CALL 1 to 0, SHARES 0 to 100 at NIGHT+6h since NIGHT", "provisional: EXERCISED 1"
)
CASES["shares that are seen after a gap, of which some executions are not known"] = case(
    "CALL 1 to 0, SHARES 0 to 100 at NIGHT+6h since NIGHT",
    "provisional: UNEXPLAINED 1",
    asked={ACCOUNT: (NIGHT + HOUR, NIGHT + 8 * HOUR)},
)
CASES["an option clearly out of the money does not hide the exercise of another one"] = case(
    "OTHER 1 to 0, CALL 1 to 0, SHARES 0 to 100 at NIGHT+6h since NIGHT",
    "provisional: EXPIRED_WORTHLESS 1, EXERCISED 1",
    prices={OTHER: 570.0, CALL: 585.0},
)
CASES["shares of an option in the money are known after a gap too"] = case(
    "CALL 1 to 0, SHARES 0 to 100 at NIGHT+6h since NIGHT",
    "provisional: EXERCISED 1",
    prices={CALL: 585.0},
)
CASES["shares that came and were traded away during a gap"] = case(
    "CALL 1 to 0", "provisional: UNEXPLAINED 1", [fill(SHARES, -100, NIGHT + 6 * HOUR)]
)
CASES["a transfer of its day is stated, not an assignment of days before"] = case(
    "SHARES 100 to 0 at END+3d since END+71h",
    "stated: TRANSFERRED 100",
    [booked(SHARES, -100, "A;C")],
    [event(EventKind.TRANSFER, 100, conid=SHARES, direction="OUT", day=FRIDAY + 3 * DAY)],
)
CASES["shares that come minutes after the second of two options are not overlooked"] = case(
    "CALL 1 to 0, OTHER 1 to 0 at NIGHT+14m, SHARES 0 to 100 at NIGHT+16m",
    "provisional: UNEXPLAINED 1, UNEXPLAINED 1",
)
CASES["an assignment, as stated, with its shares"] = case(
    "PUT -1 to 0, SHARES 0 to 100",
    "stated: ASSIGNED -1",
    [
        booked(PUT, 1, "A;C", attributes=f'{{"underlyingConid": "{SHARES}"}}'),
        booked(SHARES, 100, "A;O", price=560.0),
    ],
)
CASES["offsetting positions: the short leg is assigned, the long one exercised"] = case(
    "CALL -1 to 0, OTHER 1 to 0",
    "stated: ASSIGNED -1, EXERCISED 1",
    [booked(CALL, 1, "C;GEA"), booked(OTHER, -1, "C;GEA")],
)
CASES["an assignment that only the section of events has"] = case(
    "CALL -1 to 0",
    "stated: ASSIGNED -1",
    events=[event(EventKind.OPTION_EVENT, 1, type="Assignment")],
)
CASES["an index option in the money is settled in cash"] = case(
    "INDEX_CALL 1 to 0", "provisional: CASH_SETTLED 1", prices={INDEX_CALL: 5920.0}
)
CASES["an index option out of the money"] = case(
    "INDEX_CALL 1 to 0", "provisional: EXPIRED_WORTHLESS 1", prices={INDEX_CALL: 5700.0}
)
CASES["an index option near its strike"] = case(
    "INDEX_CALL 1 to 0", "provisional: UNEXPLAINED 1", prices={INDEX_CALL: 5790.0}
)
CASES["an option far from its strike, as soon as it is gone"] = case(
    "CALL 1 to 0", "provisional: EXPIRED_WORTHLESS 1", asked=requested(NIGHT), prices={CALL: 560.0}
)
CASES["an option near its strike was exercised, as its shares show"] = case(
    "CALL 1 to 0, SHARES 0 to 100", "provisional: EXERCISED 1"
)
CASES["settled at the open, and three hundredths from its strike: not known"] = case(
    "INDEX_CALL 1 to 0",
    "provisional: UNEXPLAINED 1",
    contracts=AT_THE_OPEN,
    prices={INDEX_CALL: 5626.0},
)
CASES["settled in cash, as stated by its price"] = case(
    "INDEX_CALL 1 to 0", "stated: CASH_SETTLED 1", [booked(INDEX_CALL, -1, "Ep", price=12.5)]
)
CASES["settled in cash, as the section of events has it"] = case(
    "INDEX_CALL 1 to 0",
    "stated: CASH_SETTLED 1",
    [booked(INDEX_CALL, -1, "Ex")],
    [event(EventKind.OPTION_EVENT, 1, type="Cash Settlement", conid=INDEX_CALL)],
)
CASES["a reverse split takes shares away"] = case(
    "SHARES 400 to 100", "stated: SPLIT 300", events=[split(SHARES, -400), split(SHARES, 100)]
)
OF_ACTION_5 = {"attributes": '{"actionID": "5"}'}
CASES["a split into a new contract"] = case(
    "SHARES 100 to 0, NEW_SHARES 0 to 33",
    "stated: SPLIT 100",
    events=[split(SHARES, -100, **OF_ACTION_5), split(NEW_SHARES, 33, **OF_ACTION_5)],
)
CASES["a change of the symbol"] = case(
    "SHARES 100 to 0", "stated: CORPORATE_ACTION 100", events=[split(SHARES, -100, "IC")]
)
CASES["before the statement a split is unexplained"] = case(
    "SHARES 100 to 0, NEW_SHARES 0 to 33", "provisional: UNEXPLAINED 100"
)
CASES["transferred"] = case(
    "SHARES 100 to 0",
    "stated: TRANSFERRED 100",
    events=[event(EventKind.TRANSFER, 100, type="ACATS", direction="OUT", conid=SHARES)],
)
CASES["a transfer into the account explains no close"] = case(
    "SHARES 100 to 0",
    "provisional: UNEXPLAINED 100",
    events=[event(EventKind.TRANSFER, 100, type="ACATS", direction="IN", conid=SHARES)],
)
CASES["the statements of its days do not name it"] = case(
    "CALL 1 to 0 at NOON", "stated: UNEXPLAINED 1", events=[period()]
)
CASES["the statement of one of its days is missing"] = case(
    "CALL 1 to 0 at NOON since NOON-1d", "provisional: UNEXPLAINED 1", events=[period(FRIDAY)]
)
CASES["a trade of a statement that names its day alone"] = case(
    "CALL 2 to 0 at NOON+1s",
    "stated: TRADED 2",
    [fill(CALL, -2, MIDNIGHT, **SALE)],
    events=[period()],
)
CASES["a day alone explains no change of the day before"] = case(
    "CALL 2 to 0 at MIDNIGHT-8h", "provisional: UNEXPLAINED 2", [fill(CALL, -2, MIDNIGHT, **SALE)]
)
STATED_AGAIN = [
    event(EventKind.OPTION_EVENT, 2, type="Assignment", event_id="E9", stated_at=END),
    event(EventKind.OPTION_EVENT, 2, type="Expiration", event_id="E9", stated_at=END - DAY),
]
CASES["a newer statement corrects an event"] = case(
    "CALL -2 to 0", "stated: ASSIGNED -2", events=STATED_AGAIN
)
CASES["the statement of its day was made before it"] = case(
    "CALL 1 to 0 at NOON", "provisional: UNEXPLAINED 1", events=[period(made=NOON - MINUTE)]
)
CASES["a statement of its day was made again after it"] = case(
    "CALL 1 to 0 at NOON",
    "stated: UNEXPLAINED 1",
    events=[period(made=NOON - MINUTE), period(made=NOON)],
)
CASES["a trade of the evening is in the statement of the next day"] = case(
    "CALL 1 to 0 at EVENING-1d", "provisional: UNEXPLAINED 1", events=[period(last=THURSDAY)]
)
CASES["a trade of Sunday evening is in the statement of Monday"] = case(
    "CALL 1 to 0 at EVENING+2d",
    "stated: UNEXPLAINED 1",
    events=[period(FRIDAY + 3 * DAY, FRIDAY + 3 * DAY, EVENING + 3 * DAY)],
)
CASES["a close that was seen at night was made before the statement of the evening"] = case(
    "CALL 1 to 0 at EVENING+2h", "stated: UNEXPLAINED 1", events=[period()]
)


@pytest.mark.parametrize("name", CASES)
def test_the_cause_follows_from_the_facts(name: str) -> None:
    case = CASES[name]
    judged = [(closure.cause, closure.stage, closure.quantity) for closure in case.found()]
    assert judged == case.says, [one.detail for one in case.found()]


def test_a_day_without_a_session_needs_no_statement() -> None:
    """As Thanksgiving: the broker makes no statement of it."""
    wednesday = FRIDAY - 2 * DAY
    periods = [period(wednesday, wednesday), period(FRIDAY)]
    day_between = Case([gone(CALL, 1, at=NOON, since=NOON - 2 * DAY)], [], events=periods)
    facts = {name: getattr(day_between, name) for name in GIVEN}
    (with_session,) = closures_of(facts_of(**facts))
    assert with_session.stage == closes.Stage.PROVISIONAL

    def trading_days(_first: date, last: date) -> list[date]:
        return [day for day in (wednesday, FRIDAY) if day <= last]

    (without_session,) = closures_of(facts_of(**facts, trading_days=trading_days))
    assert without_session.stage == closes.Stage.STATED


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
    later = fill(CALL, -1, NOON, 1.0, realized_pnl=5.0, **stated)
    earlier = fill(CALL, -1, NOON - MINUTE, 2.0, realized_pnl=7.0, **stated)
    (difference,) = Case([SOLD_AT_NOON], [], [later, earlier]).found()
    assert difference.price == 1.5
    assert difference.realized_pnl == 12.0
    assert difference.statement == "a.xml"
    assert difference.order_ids == "71"
    assert difference.executions == ",".join(difference.evidence or ())
    assert len(difference.evidence or ()) == 2
    assert difference.closed_at == NOON


CANCEL: dict[str, object] = {"source": FLEX, "codes": "Ca", "transaction_type": "TradeCancel"}
CANCELLED = fill(CALL, 2, execution_id="b", realized_pnl=-100.0, **CANCEL)


def sale(execution_id: str, quantity: float, profit: float | None) -> Execution:
    return fill(CALL, -quantity, execution_id=execution_id, realized_pnl=profit, **SALE)


@pytest.mark.parametrize(
    ("again", "realized"),
    [
        ([sale("c", 2, 100.0)], 100.0),
        ([sale("c", 1, 75.0), sale("d", 1, 75.0)], 150.0),
        ([sale("c", 2, None)], None),
    ],
    ids=["as it was", "in two parts", "without its profit"],
)
def test_a_booking_and_its_cancellation_explain_no_close(again, realized) -> None:
    executions = [sale("a", 2, 100.0), CANCELLED, *again]
    (closure,) = Case([SOLD_AT_NOON], [], executions).found()
    assert closure.cause == Cause.TRADED
    assert closure.quantity == 2.0
    assert closure.realized_pnl == realized


def test_a_bill_is_counted_in_units_of_a_thousand_of_its_face() -> None:
    matured = fill(SHARES, -5000, sec_type="BILL", realized_pnl=70.0, **SALE)
    held = change(SHARES, 5, 0, NOON + timedelta(seconds=1), sec_type="BILL")
    (closure,) = Case([held], [], [matured]).found()
    assert closure.cause == Cause.TRADED
    assert closure.quantity == 5.0
    assert closure.realized_pnl == 70.0


def test_a_trade_with_a_code_that_nobody_knows_names_it() -> None:
    (closure,) = CASES["a trade with a code that nobody knows is a trade"].found()
    assert closure.detail == "traded, with the codes C;Qq"


def test_an_execution_that_closes_two_changes_gives_each_its_part_of_the_profit() -> None:
    seen_apart = changes_in("CALL 3 to 1 at NOON+0.4s, CALL 1 to 0 at NOON+0.9s since NOON+0.4s")
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
        lists = {"changes": case.changes, "executions": case.executions, "events": case.events}
        backwards = {name: rows[::-1] for name, rows in lists.items()}
        mirrored = replace(case, **backwards)  # type: ignore[arg-type]
        assert told(mirrored) == told(case), name
