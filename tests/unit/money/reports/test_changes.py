"""What happened today, a line each, from the records of the tables."""

from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta

import pytest

from position_sync_dagster.domain.gateway_session import GatewaySession, Owner, SessionState
from position_sync_dagster.domain.instrument import Instrument, Right
from position_sync_dagster.domain.position_change import PositionChange
from position_sync_dagster.money.past.closes import Cause, Closure
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementKind,
    MovementSource,
)
from position_sync_dagster.money.reports.changes import (
    ChangeKind,
    Day,
    changes_of,
    realized_of,
)
from position_sync_dagster.money.trading_days import day_began
from tests.support.executions import executed, reported
from tests.unit.money.past import test_causes as cases

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)
CALLS = {
    conid: Instrument(
        conid=conid, symbol="QQQ", sec_type="OPT", currency="USD", multiplier=100.0,
        right=Right.CALL, strike=strike, expiry=date(2028, 12, 15),
    )
    for conid, strike in ((1, 555.0), (2, 600.0))
}  # fmt: skip


def change(conid: int, before: float, after: float, **values) -> PositionChange:
    right, strike = (None, None) if conid == 3 else (Right.CALL, 555.0)
    terms = {"symbol": "QQQ", "right": right, "strike": strike, "expiry": None}
    usual = terms | {"change_id": f"change-{conid}"}
    return cases.change(conid, before, after, NOW, **usual | values)


def trade(
    conid: int,
    quantity: float,
    price: float,
    profit: float | None,
    *,
    at: datetime = NOW,
    commission: float | None = 1.0,
    multiplier: float = 100.0,
) -> Movement:
    """Return a trade of today as the gateway reports it."""
    call = replace(CALLS[conid], multiplier=multiplier)
    execution = executed(
        call, quantity, price, at, account=cases.ACCOUNT, profit=profit, commission=commission
    )
    return reported(execution, [call])


def closure(conid: int, cause: Cause, profit: float | None, **values) -> Closure:
    (sale,) = cases.CASES["sold on its day"].found()
    usual = {"change_id": f"change-{conid}", "conid": conid, "quantity": -1.0, "closed_at": NOW}
    return replace(sale, cause=cause, realized_pnl=profit, **usual | values)


def lines(**values) -> list[str]:
    day = Day(since=day_began("XNYS", NOW), **values)
    return [f"{change.kind} {change.text}" for change in changes_of(day)]


def test_an_order_is_one_line_with_its_contract_price_and_profit():
    sold = trade(1, -1.0, 41.2, 45.0)
    again = replace(sold, movement_id="2", price=41.4, realized_pnl=None)
    assert lines(movements=[sold], changes=[change(1, 1.0, 0.0)]) == [
        "TRADE sold 1 QQQ 555C 15Dec28 at 41.20, +45 USD"
    ]
    assert lines(movements=[sold, again]) == ["TRADE sold 2 QQQ 555C 15Dec28 at 41.30, +45 USD"]


def test_a_trade_has_the_name_that_its_own_contract_says_and_an_older_row_that_of_the_details():
    sold = executed(CALLS[1], -1.0, 41.2, NOW, account=cases.ACCOUNT)
    named = ["TRADE sold 1 QQQ 555C 15Dec28 at 41.20"]
    assert lines(movements=[reported(sold)]) == named
    older = replace(sold, right=None, strike=None, expiry=None)
    assert lines(movements=[reported(older)]) == ["TRADE sold 1 QQQ at 41.20"]
    assert lines(movements=[reported(older, [CALLS[1]])]) == named


@pytest.mark.parametrize(
    ("opened", "text"),
    [
        ({"expiry": date(2029, 1, 19)}, "rolled 5 QQQ 555C 15Dec28 → 19Jan29, +1.43"),
        ({"strike": 560.0}, "rolled 5 QQQ 555C 15Dec28 → 560C, +1.43"),
        (
            {"strike": 560.0, "expiry": date(2029, 1, 19)},
            "rolled 5 QQQ 555C 15Dec28 → 560C 19Jan29, +1.43",
        ),
    ],
    ids=["later", "higher", "both"],
)
def test_a_roll_is_one_line_that_names_what_is_other_and_what_it_brought(opened, text):
    new = replace(CALLS[1], conid=3, **opened)
    of_option = {"sec_type": "OPT", "right": Right.CALL}
    terms = {"expiry": new.expiry, "strike": new.strike}
    day = {
        "changes": [
            change(1, -5.0, 0.0, expiry=CALLS[1].expiry, **of_option),
            change(3, 0.0, -5.0, **of_option | terms),
        ],
        "closures": [closure(1, Cause.TRADED, -45.0)],
    }
    made = [
        reported(executed(contract, quantity, price, NOW, account=cases.ACCOUNT))
        for contract, quantity, price in ((CALLS[1], 5.0, 2.0), (new, -5.0, 3.43))
    ]
    assert lines(movements=made, **day) == [f"TRADE {text}"]

    # Another order that opened as much of the new one is none of it; a leg more is named beside it.
    put = replace(CALLS[2], right=Right.PUT)
    more = reported(executed(put, 1.0, 4.0, NOW, account=cases.ACCOUNT))
    assert lines(movements=[*made, more], **day) == [
        f"TRADE {text}, bought 1 QQQ 600P 15Dec28 at 4.00"
    ]
    apart = [made[0], replace(made[1], order_id="72")]
    assert {line.split()[1] for line in lines(movements=apart, **day)} == {"bought", "sold"}


def test_a_quantity_becomes_its_fill_once_that_is_known_also_without_its_time_or_much_later():
    more = change(1, 3.0, 4.0)
    assert lines(changes=[more]) == ["QUANTITY quantity: QQQ 555C  3 → 4"]
    late = trade(1, 1.0, 41.2, None, at=NOW - timedelta(hours=2))
    stated = replace(late, source=MovementSource.STATEMENT, at=None)
    for bought in (stated, late):
        assert lines(changes=[more], movements=[bought]) == [
            "TRADE bought 1 QQQ 555C 15Dec28 at 41.20"
        ]
        other = replace(bought, quantity=2.0)
        assert "QUANTITY quantity: QQQ 555C  3 → 4" in lines(changes=[more], movements=[other])


def test_many_fractions_of_large_holdings_are_explained_by_the_same_trades_much_later():
    sizes = (9785158.82, 9505555.81)
    changes = [change(3, 0.0, size, change_id=f"change-{size}") for size in sizes]
    much_later = NOW + timedelta(hours=2)
    trades = [
        replace(trade(1, size, 10.0, None, at=much_later), conid=3, movement_id=f"{size}")
        for size in sizes
    ]
    assert [line.split()[0] for line in lines(movements=trades, changes=changes)] == ["TRADE"]


def test_a_combo_is_one_line_by_its_strategy():
    legs = [trade(1, -1.0, 41.2, 45.0), trade(2, 1.0, 20.0, None)]
    strategies = {1: frozenset({"ic-1", "other"}), 2: frozenset({"ic-1"})}
    assert lines(movements=legs, strategies=strategies) == [
        "TRADE ic-1: sold 1 QQQ 555C 15Dec28 at 41.20, bought 1 QQQ 600C 15Dec28 at 20.00, +45 USD"
    ]


def test_an_assignment_has_a_line_of_the_option_and_one_of_its_shares():
    cause = closure(1, Cause.ASSIGNED, -55.0, counter_conid=3)
    both = [change(1, -1.0, 0.0), change(3, 0.0, 100.0)]
    assert lines(changes=both, closures=[cause]) == [
        "CLOSE assigned: QQQ 555C  -1 → 0, -55 USD",
        "QUANTITY quantity: QQQ  0 → 100",
    ]
    # Shares that were held are closed by the assignment.
    gone = [change(1, -1.0, 0.0), change(3, 100.0, 0.0)]
    of_shares = closure(3, Cause.ASSIGNED, 80.0, counter_conid=1, right=None, strike=None)
    assert lines(changes=gone, closures=[cause, of_shares]) == [
        "CLOSE assigned: QQQ 555C  -1 → 0, -55 USD",
        "CLOSE assigned: QQQ  100 → 0, +80 USD",
    ]


@pytest.mark.parametrize(
    ("code", "stated", "amount"),
    [("O", 0.0, None), (None, 0.0, None), ("C", 0.0, 0.0), ("C;O", 4.0, 4.0), (None, 4.0, 4.0)],
)
def test_a_trade_that_opens_has_no_profit(code, stated, amount):
    of_statement = replace(trade(1, -1.0, 41.2, None), realized_pnl=stated, open_close=code)
    day = Day(since=day_began("XNYS", NOW), movements=[of_statement])
    assert [line.amount for line in changes_of(day)] == [amount]


@pytest.mark.parametrize(
    ("after", "causes", "line"),
    [
        (-3.0, [], "QUANTITY quantity: QQQ 555C  -1 → -3"),
        (0.0, [], "CLOSE closed: QQQ 555C  -1 → 0"),
        (0.0, [Cause.UNEXPLAINED], "CLOSE closed: QQQ 555C  -1 → 0"),
        (0.0, [Cause.EXPIRED_WORTHLESS], "CLOSE expired worthless: QQQ 555C  -1 → 0, +112 USD"),
    ],
)
def test_a_change_without_an_execution_has_a_line_of_its_own(after, causes, line):
    closures = [closure(1, cause, 112.0) for cause in causes]
    assert lines(changes=[change(1, -1.0, after)], closures=closures) == [line]


def test_an_outage_that_nobody_watched_is_listed_and_one_that_lasts_says_so():
    known = {"gateway_id": "g", "owner": Owner.STREAM, "session_id": "s", "detail": "1100"}
    times = dict.fromkeys(("started_at", "heartbeat_at", "expires_at", "state_since"), NOW)
    without = dict.fromkeys(field.name for field in fields(GatewaySession))
    session = GatewaySession(**without | known | times | {"state": SessionState.BLIND})
    later = NOW + timedelta(minutes=5)
    back = session.outages_after(SessionState.LIVE, later, later)
    live = replace(session, state=SessionState.LIVE, state_since=later, outages=back)
    ((began, ended, why),) = live.outages_over
    assert began == NOW
    assert ended == later
    assert why == "1100"

    changes = changes_of(Day(since=day_began("XNYS", NOW), sessions=[live]))
    assert {change.kind for change in changes} == {ChangeKind.GATEWAY}
    assert "gateway g: outage of 300 s – 1100" in [change.text for change in changes]
    assert "GATEWAY gateway g: outage, not over yet – 1100" in lines(sessions=[session])
    assert live.outages_after(SessionState.LIVE, later, later) == back, "no second outage"

    def told_at(minutes: float) -> list[str]:
        until = NOW + timedelta(minutes=minutes)
        return lines(sessions=[live], until=until)

    assert "GATEWAY gateway g: outage of 300 s – 1100" in told_at(5)
    assert "GATEWAY gateway g: outage, not over yet – 1100" in told_at(2)
    assert "GATEWAY gateway g: outage of 300 s – 1100" not in told_at(2)
    assert told_at(-1) == []


def test_the_realised_profit_of_a_holding_is_known_once_everything_is_explained():
    sold = trade(1, -1.0, 41.2, 45.0)
    two = change(1, 2.0, 0.0)

    def realized(*movements: Movement):
        day = Day(since=NOW, changes=[two], movements=movements)
        return realized_of(day).get((cases.ACCOUNT, 1), "not yet")

    other = replace(sold, movement_id="2", realized_pnl=5.0)
    assert realized(sold) == "not yet"
    assert realized(sold, replace(other, quantity=None)) == "not yet"
    assert realized(sold, other) == 50.0
    assert realized(sold, replace(other, realized_pnl=None)) is None
    expired = replace(other, kind=MovementKind.EXPIRATION, realized_pnl=-9.0)
    assert realized(sold, expired) == 36.0


def test_the_day_begins_at_midnight_in_new_york():
    assert day_began("XNYS", NOW) == datetime(2026, 3, 9, 4, 0, tzinfo=UTC)
    assert day_began("XNYS", datetime(2026, 1, 5, 4, 59, tzinfo=UTC)).day == 4
