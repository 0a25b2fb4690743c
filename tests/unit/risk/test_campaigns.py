"""What strategies have earned since their first leg, through rolls and assignments."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.closes import Cause, Closure, Execution
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.schema import CLOSURES, EXECUTIONS, POSITION_CHANGES, frame_of
from position_sync_dagster.sync.reports.closes import Closes
from position_sync_dagster.sync.reports.money_sums import Campaign
from tests.support.legs import ADDED_AT, leg
from tests.support.money_rows import book_of, row
from tests.unit.domain import test_causes as cases

PUT, NEXT, SHARES = 1, 2, 10
ACCOUNT = "DU1"
HOUR = timedelta(hours=1)
ASSIGNED_AT = ADDED_AT + 30 * HOUR
(TRADED,) = cases.CASES["sold on its day"].found()


def closed(number: int, conid: int, quantity: float, **values: Any) -> Closure:
    usual = {"account": ACCOUNT, "closed_at": ADDED_AT + number * HOUR, "executions": f"x{number}"}
    return replace(TRADED, change_id=f"c{number}", conid=conid, quantity=quantity, **usual | values)


def assigned(number: int = 30, **values: Any) -> Closure:
    usual = {"cause": Cause.ASSIGNED, "right": Right.PUT, "strike": 500.0, "counter_conid": SHARES}
    return closed(number, PUT, -1.0, **usual | {"executions": None, "realized_pnl": 0.0} | values)


def shares_sold(number: int, quantity: float, price: float, **values: Any) -> Closure:
    usual = {"right": None, "strike": None, "expiry": None, "sec_type": "STK", "price": price}
    return closed(number, SHARES, quantity, **usual | values)


def changed(one: Closure, before: float, cost: float | None = None) -> dict[str, Any]:
    is_share = one.conid == SHARES
    change = cases.change(one.conid, before, before - one.quantity, one.closed_at)
    more = {"change_id": one.change_id, "account": ACCOUNT, "average_cost": cost}
    return asdict(replace(change, multiplier=1.0 if is_share else 100.0, **more))


def filled(name: str, conid: int, quantity: float, number: float = 0, **values: Any) -> Execution:
    usual = {"commission": 1.5, "commission_currency": "USD", "account": ACCOUNT}
    one = cases.fill(conid, quantity, ADDED_AT + number * HOUR)
    return replace(one, execution_id=name, **usual | values)


def campaign(
    closes: list[tuple[Closure, float, float | None]],
    held: list[Any],
    *,
    fills: Sequence[Execution] = (),
    legs: list[Any] | None = None,
    more: Sequence[dict[str, Any]] = (),
) -> Campaign:
    """Return the campaign of the wheel; a close comes with the quantity before and its cost."""
    legs = legs or [leg(PUT, "wheel"), leg(NEXT, "wheel")]
    changes = [*more, *(changed(*one) for one in closes)]
    known = Closes(
        rows=frame_of(CLOSURES, [asdict(one) for one, _before, _cost in closes]),
        since=ADDED_AT,
        legs=schema.leg_rows(legs),
        before=frame_of(POSITION_CHANGES, changes),
        executions=frame_of(EXECUTIONS, map(asdict, fills)),
    )
    active = [one for one in legs if one.removed_at is None]
    gone = {one.conid for one in legs} - {one.conid for one in held}
    rows = [replace(one, account=ACCOUNT) for one in held]
    rows += [row(conid, position=0.0, account=ACCOUNT) for conid in gone]
    money = book_of(rows, active, closes=known)
    sums = {(one.name, one.currency): one for one in money.strategies}
    found = sums["wheel", "USD"].campaign
    assert found is not None
    return found


def put(conid: int = NEXT, **values: Any) -> Any:
    return row(conid, position=-1.0, market_value=-150.0, unrealized_pnl=70.0, **values)


def shares(quantity: float, price: float, unrealized: float = -777.0) -> Any:
    return row(
        SHARES, position=quantity, market_value=quantity * price, unrealized_pnl=unrealized,
        right=None, strike=None, expiry=None, sec_type="STK", multiplier=1.0,
    )  # fmt: skip


def test_a_roll_keeps_the_profit_of_the_leg_that_is_gone() -> None:
    rolled = closed(5, PUT, -1.0, realized_pnl=-80.0)
    legs = [leg(PUT, "wheel", removed_at=ADDED_AT + 6 * HOUR),
            leg(NEXT, "wheel", added_at=ADDED_AT + 6 * HOUR, rolled_from="1")]  # fmt: skip
    fills = [filled("x0", PUT, -1.0, 0), filled("x5", PUT, 1.0, 5), filled("y", NEXT, -1.0, 5)]
    opened = [changed(closed(n, conid, 1.0), 0.0) for n, conid in ((0, PUT), (5, NEXT))]
    opened[1]["change_id"] = "opened"
    found = campaign([(rolled, -1.0, 300.0)], [put()], fills=fills, legs=legs, more=opened)
    assert (found.realised, found.open, found.profit) == (-80.0, 70.0, -10.0)
    assert found.fees == 4.5  # also of the fills from before the leg was added


def test_an_assignment_leaves_its_shares_at_the_strike_and_keeps_the_premium() -> None:
    both = [put(), shares(100, 490.0)]
    found = campaign([(assigned(), -1.0, 250.0)], both)
    # Whatever the broker has as the cost of the shares, and as the profit of the option.
    assert (found.realised, found.open) == (250.0, 70.0 + 100 * (490 - 500))
    adjusted = [put(), shares(100, 490.0, unrealized=-750.0)]
    assert campaign([(assigned(realized_pnl=250.0), -1.0, 250.0)], adjusted) == found


def test_shares_that_are_sold_or_called_away_are_realised_once() -> None:
    sale = shares_sold(40, 100.0, 505.0, realized_pnl=750.0)
    found = campaign(
        [(assigned(), -1.0, 250.0), (sale, 100.0, 497.5)], [put()],
        fills=[filled("x40", SHARES, -100.0, 40)],
    )  # fmt: skip
    assert (found.realised, found.open, found.fees) == (250.0 + 500.0 - 1.5, 70.0, 1.5)
    call = replace(assigned(50), conid=NEXT, right=Right.CALL, strike=510.0)
    gone = shares_sold(51, 100.0, 510.0, cause=Cause.ASSIGNED, counter_conid=NEXT)
    away = [(assigned(), -1.0, 250.0), (call, -1.0, 90.0), (gone, 100.0, 497.5)]
    found = campaign(away, [])
    assert (found.realised, found.open) == (250.0 + 90.0 + 1000.0, 0.0)


def test_shares_that_are_a_leg_too_count_once() -> None:
    legs = [leg(PUT, "wheel"), leg(SHARES, "wheel", right=None, strike=None, expiry=None)]
    came = changed(shares_sold(30, -100.0, 0.0), 0.0)
    kept = [(assigned(), -1.0, 250.0)]
    found = campaign(kept, [shares(100, 490.0)], legs=legs, more=[came | {"change_id": "s"}])
    assert (found.realised, found.open) == (250.0, -1000.0)
    # A covered call: the shares were bought at 480, and are called away.
    call = assigned(right=Right.CALL)
    gone = shares_sold(31, 100.0, 500.0, cause=Cause.ASSIGNED, realized_pnl=2250.0)
    found = campaign([(call, -1.0, 250.0), (gone, 100.0, 480.0)], [], legs=legs)
    assert (found.realised, found.open, found.profit) == (2250.0, 0.0, 2250.0)


@pytest.mark.parametrize(
    ("closes", "held"),
    [
        ([(assigned(), -1.0, None)], [shares(100, 490.0)]),
        ([(assigned(counter_conid=None), -1.0, 250.0)], [shares(100, 490.0)]),
        ([(assigned(), -1.0, 250.0)], [shares(60, 490.0)]),
        ([(assigned(), -1.0, 250.0)], []),
        # Of 300 shares 50 were sold: it is not known whose.
        ([(assigned(), -1.0, 250.0), (shares_sold(40, 50.0, 505.0), 300.0, 1.0)],
         [shares(250, 490.0)]),
        ([(closed(5, PUT, -1.0, realized_pnl=None), -1.0, 300.0)], []),
    ],
)  # fmt: skip
def test_a_part_that_is_not_known_leaves_the_profit_unknown(closes, held) -> None:
    assert campaign(closes, held).profit is None


def test_fees_are_unknown_where_a_fill_has_none_or_two_strategies_have_the_contract() -> None:
    fills = [filled("a", NEXT, -1.0), filled("b", NEXT, 1.0, 1, commission=None)]
    assert campaign([], [put()], fills=fills[:1]).fees == 1.5
    assert campaign([], [put()], fills=fills).fees is None
    legs = [leg(NEXT, "wheel"), leg(NEXT, "other")]
    assert campaign([], [put()], fills=fills[:1], legs=legs).fees is None
