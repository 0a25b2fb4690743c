"""What strategies have earned since their first leg, through rolls and assignments."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.closes import Cause, Closure
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.lake import schema
from position_sync_dagster.lake.schema import CLOSURES, MOVEMENTS, POSITION_CHANGES, frame_of
from position_sync_dagster.sync.reports.closes import Closes
from position_sync_dagster.sync.reports.money_sums import Campaign
from tests.support.legs import ADDED_AT, leg
from tests.support.money_rows import book_of, row
from tests.unit.domain import test_causes as cases

PUT, NEXT, SHARES = 1, 2, 10
QUOTED_IN_DOLLARS = dict.fromkeys((PUT, NEXT, SHARES), 1)
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


def filled(name: str, conid: int, quantity: float, number: float = 0, **values: Any) -> Movement:
    """Return a trade, after a fee of 1.50."""
    at = ADDED_AT + number * HOUR
    trade = Movement(
        movement_id=name, kind=MovementKind.TRADE, section=Section.TRADES, account=ACCOUNT,
        day=at.date(), session_date=at.date(), at=at, conid=conid, quantity=quantity, price=1.0,
        multiplier=1.0 if conid == SHARES else 100.0, currency="USD", fee=-1.5,
        fee_currency="USD", source=MovementSource.API, execution_id=name,
    )  # fmt: skip
    return replace(trade, **values)


def ended(option: Closure, **values: Any) -> Movement:
    """Return what follows from the cause of an option that was assigned."""
    usual = {
        "kind": MovementKind.ASSIGNMENT, "price": 0.0, "fee": 0.0, "execution_id": None,
        "change_id": option.change_id, "source": MovementSource.INFERRED,
    }  # fmt: skip
    return filled(option.change_id, option.conid, -option.quantity, **usual | values)


def campaign(
    closes: list[tuple[Closure, float, float | None]],
    held: list[Any],
    *,
    fills: Sequence[Movement] = (),
    legs: list[Any] | None = None,
    more: Sequence[dict[str, Any]] = (),
    magnifiers: Mapping[int, int] = QUOTED_IN_DOLLARS,
) -> Campaign:
    """Return the campaign of the wheel; a close comes with the quantity before and its cost."""
    legs = legs or [leg(PUT, "wheel"), leg(NEXT, "wheel")]
    changes = [*more, *(changed(*one) for one in closes)]
    named = {fill.movement_id for fill in fills}
    movements = list(fills)
    for closure, _before, _cost in closes:
        if closure.executions is None and closure.change_id not in named:
            movements.append(ended(closure))
    known = Closes(
        rows=frame_of(CLOSURES, [asdict(one) for one, _before, _cost in closes]),
        since=ADDED_AT,
        legs=schema.leg_rows(legs),
        before=frame_of(POSITION_CHANGES, changes),
        movements=frame_of(MOVEMENTS, map(asdict, movements)),
        magnifiers=magnifiers,
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
        fills=[filled("x40", SHARES, -100.0, 40, price=505.0)],
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
    fills = [filled("a", NEXT, -1.0), filled("b", NEXT, 1.0, 1, fee=None)]
    assert campaign([], [put()], fills=fills[:1]).fees == 1.5
    assert campaign([], [put()], fills=fills).fees is None
    legs = [leg(NEXT, "wheel"), leg(NEXT, "other")]
    assert campaign([], [put()], fills=fills[:1], legs=legs).fees is None


SOLD_AT_505 = filled("x40", SHARES, -100.0, 40, price=505.0)


def wheel(*fills: Movement, **values: Any) -> Any:
    """Return the campaign of a put that was assigned at 500, whose shares were sold at 505."""
    sale = shares_sold(40, 100.0, 505.0, realized_pnl=750.0)
    closes = [(assigned(), -1.0, 250.0), (sale, 100.0, 497.5)]
    return campaign(closes, [put()], fills=fills, **values)


def test_a_fee_in_another_currency_stays_in_its_own() -> None:
    found = wheel(replace(SOLD_AT_505, fee_currency="EUR"))
    assert (found.realised, found.fees, found.other_fees) == (250.0 + 500.0, 0.0, {"EUR": 1.5})
    charged = filled("a", NEXT, -1.0, fee_currency="EUR")
    found = campaign([], [put()], fills=[charged])
    assert (found.fees, found.other_fees) == (0.0, {"EUR": 1.5})


def test_prices_in_cents_count_in_the_major_unit_once() -> None:
    """The strike is quoted in cents; the price of a movement is in the major unit."""
    in_cents = dict.fromkeys((PUT, NEXT, SHARES), 100)
    found = wheel(replace(SOLD_AT_505, price=5.05), magnifiers=in_cents)
    assert found.realised == pytest.approx(250.0 + 100 * (5.05 - 5.00) - 1.5)


@pytest.mark.parametrize(
    ("fills", "magnifiers"),
    [
        ([SOLD_AT_505, ended(assigned(), multiplier=None)], QUOTED_IN_DOLLARS),
        ([replace(SOLD_AT_505, price=None)], QUOTED_IN_DOLLARS),
        ([replace(SOLD_AT_505, fee=None)], QUOTED_IN_DOLLARS),
        ([], QUOTED_IN_DOLLARS),
        ([SOLD_AT_505], {}),
    ],
)
def test_without_multiplier_price_fee_movement_or_unit_the_profit_is_unknown(
    fills, magnifiers
) -> None:
    assert wheel(SOLD_AT_505).realised == 250.0 + 500.0 - 1.5
    assert wheel(*fills, magnifiers=magnifiers).realised is None


def test_an_assigned_option_on_a_future_leaves_one_future_by_its_own_multiplier() -> None:
    """A short put 6600 on ES is assigned, and the future is sold at 6510: 50 × −90."""
    put_on_future = assigned(sec_type="FOP", strike=6600.0)
    sale = shares_sold(40, 1.0, 6510.0, sec_type="FUT", realized_pnl=-1.0)
    found = campaign(
        [(put_on_future, -1.0, 4750.0), (sale, 1.0, 6600.0)], [put()],
        fills=[
            ended(put_on_future, multiplier=50.0),
            filled("x40", SHARES, -1.0, 40, price=6510.0, multiplier=50.0),
        ],
    )  # fmt: skip
    assert found.realised == 4750.0 + 50 * (6510 - 6600) - 1.5


def test_an_option_that_was_sold_and_bought_within_the_day_belongs_to_its_strategy() -> None:
    bought = closed(5, PUT, -1.0, realized_pnl=47.0)
    legs = [leg(PUT, "wheel", removed_at=ADDED_AT + 6 * HOUR), leg(NEXT, "wheel")]
    opened = changed(closed(1, PUT, 1.0), 0.0)
    fills = [filled("x1", PUT, -1.0, 1), filled("x5", PUT, 1.0, 5)]
    found = campaign([(bought, -1.0, 120.0)], [put()], fills=fills, legs=legs, more=[opened])
    assert (found.realised, found.fees) == (47.0, 3.0)
