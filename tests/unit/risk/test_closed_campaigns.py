"""Campaigns of movements: whose each one is, when a campaign is over, and what is not known."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from position_sync_dagster.domain.attribution import OwnedPart, attributed
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.risk.closed_campaigns import (
    CampaignMoney,
    Openings,
    TradedCampaign,
    closed_campaigns,
    end_of,
    money_of,
)

A = "U1"
MONDAY = date(2026, 3, 2)
EXPIRY = date(2026, 3, 20)
PUT, CALL, SHARES, OTHER = 11, 12, 99, 13
TERMS: dict[int, dict[str, Any]] = {
    PUT: {"sec_type": "OPT", "right": "PUT", "strike": 50.0},
    CALL: {"sec_type": "OPT", "right": "CALL", "strike": 60.0},
    OTHER: {"sec_type": "OPT", "right": "PUT", "strike": 45.0},
    SHARES: {"sec_type": "STK", "multiplier": 1.0, "expiry": None},
}


def moved(
    conid: int, quantity: float | None, price: float | None, day: int, **more: Any
) -> Movement:
    """Return what moved a contract on a day of March 2026, a trade at noon if nothing else."""
    at = date(2026, 3, day)
    terms = {"multiplier": 100.0, "expiry": EXPIRY} | TERMS[conid]
    cash = None
    if None not in (quantity, price, terms["multiplier"]):
        cash = -quantity * price * terms["multiplier"]
    fields = terms | {
        "movement_id": f"{conid}:{day}:{quantity}:{len(more)}",
        "kind": MovementKind.TRADE,
        "section": Section.TRADES,
        "account": A,
        "day": at,
        "session_date": at,
        "at": datetime(2026, 3, day, 17, tzinfo=UTC),
        "conid": conid,
        "symbol": "XYZ",
        "quantity": quantity,
        "price": price,
        "currency": "USD",
        "cash": cash,
        "fee": -1.0,
        "fee_currency": "USD",
        "source": MovementSource.STATEMENT,
        "underlying_conid": SHARES if conid != SHARES else None,
    }
    return Movement(**fields | more)


def booked(conid: int, quantity: float, price: float, day: int, kind: MovementKind) -> Movement:
    """Return what the broker booked: an end of an option, or what it delivered."""
    return moved(conid, quantity, price, day, kind=kind, fee=0.0, at=None)


def leg(conid: int, strategy: str = "s", **more: Any) -> ActiveContract:
    terms = TERMS[conid]
    right = Right(terms["right"]) if "right" in terms else None
    given = {"added_at": datetime(2026, 9, 1, tzinfo=UTC), "since": date(2026, 1, 1)} | more
    return ActiveContract(
        conid, "XYZ", right, terms.get("strike"), date(2026, 3, 20), strategy_id=strategy, **given
    )


def parts_of(movements: list[Movement], *legs: ActiveContract, **before: float) -> list[OwnedPart]:
    held = {(A, int(conid[1:])): quantity for conid, quantity in before.items()}
    return attributed(movements, legs, held)


def over(
    movements: list[Movement], *legs: ActiveContract, **before: float
) -> dict[str, CampaignMoney]:
    """Return the money of each campaign that is over, by its owner."""
    campaigns = closed_campaigns(parts_of(movements, *legs, **before))
    return {campaign.strategy_id: money_of(campaign.parts) for campaign in campaigns}


SOLD = moved(PUT, -1.0, 2.0, 2)
BOUGHT = moved(PUT, 1.0, 0.5, 4)


def test_a_campaign_is_over_at_the_first_close_at_which_nothing_is_left():
    again = [moved(PUT, -1.0, 3.0, 5), moved(PUT, 1.0, 1.0, 5), moved(CALL, -1.0, 3.0, 5)]
    campaigns = closed_campaigns(parts_of([SOLD, BOUGHT, *again], leg(PUT), leg(CALL)))
    assert [(one.opened, one.closed) for one in campaigns] == [(MONDAY, date(2026, 3, 4))]
    assert money_of(campaigns[0].parts).profit == 200 - 50 - 2


def test_shares_that_an_assignment_left_belong_to_the_strategy_until_they_are_sold():
    movements = [
        SOLD,
        booked(PUT, 1.0, 0.0, 6, MovementKind.ASSIGNMENT),
        booked(SHARES, 100.0, 50.0, 6, MovementKind.ASSIGNMENT),
        moved(SHARES, -60.0, 49.0, 9),
    ]
    assert over(movements, leg(PUT)) == {}
    [profit] = over([*movements, moved(SHARES, -40.0, 51.0, 10)], leg(PUT)).values()
    assert profit.profit == 200 - 60 + 40 - 3


@pytest.mark.parametrize("first", ["before", "without"])
def test_the_cash_of_a_settlement_is_no_close_of_what_is_still_held(first):
    """The rows of one settlement have one time: their ids order them."""
    settled = booked(PUT, 0.0, 0.0, 20, MovementKind.CASH_SETTLEMENT)
    settled = replace(settled, cash=-350.0, movement_id=first)
    end = booked(PUT, 1.0, 0.0, 20, MovementKind.CASH_SETTLEMENT)
    end = replace(end, movement_id="of the end")
    assert over([SOLD, settled, end], leg(PUT))["s"].profit == 200 - 350 - 1


def test_shares_of_two_strategies_and_of_nobody_are_told_apart_while_that_is_possible():
    own = moved(SHARES, 100.0, 40.0, 2)
    ends = [
        booked(PUT, 1.0, 0.0, 6, MovementKind.ASSIGNMENT),
        booked(OTHER, 1.0, 0.0, 6, MovementKind.ASSIGNMENT),
        booked(SHARES, 100.0, 50.0, 6, MovementKind.ASSIGNMENT),
        booked(SHARES, 100.0, 45.0, 6, MovementKind.ASSIGNMENT),
    ]
    movements = [own, SOLD, moved(OTHER, -1.0, 1.0, 2), *ends]
    legs = (leg(PUT, "a"), leg(OTHER, "b"))

    sold = over([*movements, moved(SHARES, -300.0, 48.0, 9)], *legs)
    assert sold["a"].profit == pytest.approx(200 - 200 - 1 - 1 / 3)
    assert sold["b"].profit == pytest.approx(100 + 300 - 1 - 1 / 3)

    in_parts = [moved(SHARES, -100.0, 48.0, 9), moved(SHARES, -200.0, 48.0, 10)]
    unclear = over([*movements, *in_parts], *legs)
    assert unclear["a"].profit is unclear["b"].profit is None
    assert unclear["a"].unknown == "it is not known whose XYZ closed on 2026-03-09"


def test_an_assignment_whose_shares_no_source_names_has_no_profit():
    end = booked(PUT, 1.0, 0.0, 6, MovementKind.ASSIGNMENT)
    [money] = over([SOLD, end], leg(PUT)).values()
    assert money.profit is None
    assert money.unknown == "what XYZ 50P 20Mar26 delivered is not known"


def test_strategies_share_a_contract_by_the_quantities_that_they_claim():
    movements = [moved(PUT, -3.0, 2.0, 2), moved(PUT, 3.0, 1.0, 4)]
    shared = over(movements, leg(PUT, "a", quantity=-1.0), leg(PUT, "b", quantity=-2.0))
    assert shared["a"].profit == pytest.approx(100 - 2 / 3)
    assert shared["b"].profit == pytest.approx(200 - 4 / 3)

    part = over(movements, leg(PUT, "a", quantity=-1.0))
    assert part["a"].profit == pytest.approx(100 - 2 / 3)
    assert part[UNATTRIBUTED].profit == pytest.approx(200 - 4 / 3)


def test_trades_before_the_first_day_of_a_leg_belong_to_nobody():
    late = leg(PUT, since=date(2026, 3, 5))
    again = [moved(PUT, -1.0, 3.0, 5), moved(PUT, 1.0, 1.0, 6)]
    found = over([SOLD, BOUGHT, *again], late, leg(CALL))
    assert found[UNATTRIBUTED].profit == 148
    assert found["s"].profit == 198


def test_a_leg_without_a_first_day_has_what_was_held_when_it_was_added_from_its_opening():
    added = leg(PUT, since=None, added_at=SOLD.at + timedelta(days=1))
    assert over([SOLD, BOUGHT], added).keys() == {"s"}
    too_late = leg(PUT, since=None, added_at=BOUGHT.at + timedelta(days=1))
    assert over([SOLD, BOUGHT], too_late).keys() == {UNATTRIBUTED}


def test_a_leg_that_moved_to_another_strategy_takes_its_history_along():
    moved_at = SOLD.at + timedelta(days=1)
    old = leg(PUT, "old", since=None, added_at=SOLD.at, removed_at=moved_at)
    new = leg(PUT, "new", since=None, added_at=moved_at)
    assert over([SOLD, BOUGHT], old, new).keys() == {"new"}


CLOSING = {"open_close": "C"}


@pytest.mark.parametrize(
    ("movements", "held", "reason"),
    [
        ([replace(SOLD, fee=None), BOUGHT], 0.0, "the fee of XYZ 50P 20Mar26 of 2026-03-02"),
        (
            [SOLD, replace(BOUGHT, fee_currency="EUR")],
            0.0,
            "the fee of XYZ 50P 20Mar26 of 2026-03-04 was charged in EUR",
        ),
        (
            [SOLD, replace(BOUGHT, fee_currency=None)],
            0.0,
            "the fee of XYZ 50P 20Mar26 of 2026-03-04 was charged in an unknown currency",
        ),
        (
            [replace(SOLD, cash=None, multiplier=None), BOUGHT],
            0.0,
            "the multiplier of XYZ 50P 20Mar26 of 2026-03-02 is not known",
        ),
        (
            [SOLD, replace(BOUGHT, cash=None, price=None)],
            0.0,
            "the price of XYZ 50P 20Mar26 of 2026-03-04 is not known",
        ),
        ([BOUGHT], -1.0, "what XYZ 50P 20Mar26 cost is not known: it was held before"),
        ([replace(BOUGHT, **CLOSING)], 0.0, "what XYZ 50P 20Mar26 cost is not known"),
        (
            [booked(PUT, 1.0, 0.0, 6, MovementKind.EXPIRATION)],
            0.0,
            "what XYZ 50P 20Mar26 cost is not known",
        ),
        (
            [SOLD, replace(BOUGHT, kind=MovementKind.TRANSFER, cash=0.0)],
            0.0,
            "what was transferred with XYZ 50P 20Mar26 of 2026-03-04 had no stated value",
        ),
        (
            [SOLD, replace(BOUGHT, kind=MovementKind.CORPORATE_ACTION, cash=0.0)],
            0.0,
            "what XYZ 50P 20Mar26 became by a corporate action is not known",
        ),
        (
            [SOLD, replace(BOUGHT, quantity=None, day=date(2026, 3, 3)), BOUGHT],
            0.0,
            "the quantity of XYZ 50P 20Mar26 of 2026-03-03 is not known",
        ),
    ],
)
def test_what_is_not_known_of_one_movement_makes_the_profit_unknown(movements, held, reason):
    found = over(movements, leg(PUT), **{f"c{PUT}": held} if held else {})
    money = found["s"]
    assert money.profit is None
    assert money.unknown is not None
    assert reason in money.unknown


def test_a_split_changes_no_profit_and_a_dividend_is_part_of_it():
    movements = [
        SOLD,
        booked(PUT, 1.0, 0.0, 6, MovementKind.ASSIGNMENT),
        booked(SHARES, 100.0, 50.0, 6, MovementKind.ASSIGNMENT),
        moved(SHARES, 100.0, None, 9, kind=MovementKind.CORPORATE_ACTION, cash=0.0, fee=0.0),
        moved(SHARES, None, None, 10, kind=MovementKind.DIVIDEND, cash=30.0, fee=0.0),
        moved(SHARES, -200.0, 26.0, 11),
        moved(SHARES, None, None, 12, kind=MovementKind.WITHHOLDING, cash=-4.0, fee=0.0),
    ]
    [money] = over(movements, leg(PUT)).values()
    assert money.profit == 200 + 200 + 30 - 4 - 2


def test_a_contract_that_one_order_replaces_by_one_of_nobody_was_rolled_away():
    bought = replace(BOUGHT, order_id="7")
    parts = parts_of([SOLD, bought, moved(OTHER, -1.0, 2.0, 4, order_id="7")], leg(PUT))
    [campaign] = closed_campaigns(parts)
    assert end_of(campaign, Openings(parts)) == "rolled away"
    alone = parts_of([SOLD, bought], leg(PUT))
    [campaign] = closed_campaigns(alone)
    assert end_of(campaign, Openings(alone)) == "closed"


def test_what_is_in_no_strategy_is_one_structure_if_one_order_or_one_minute_opened_it():
    def near(seconds: int) -> list[TradedCampaign]:
        at = datetime(2026, 3, 2, 17, tzinfo=UTC) + timedelta(seconds=seconds)
        movements = [SOLD, moved(CALL, -1.0, 2.0, 2, at=at), BOUGHT, moved(CALL, 1.0, 1.0, 6)]
        return closed_campaigns(parts_of(movements))

    assert [len(campaign.conids) for campaign in near(50)] == [2]
    assert [len(campaign.conids) for campaign in near(90)] == [1, 1]
