"""How much of its greatest profit a campaign has reached, by numbers by hand."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import pytest

from position_sync_dagster.domain.leg import ActiveContract
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.money.campaigns.campaigns import (
    as_opened,
    closed_campaigns,
    part_reached,
)
from position_sync_dagster.money.campaigns.closed_campaigns import contract_of
from position_sync_dagster.money.campaigns.closes_of_strategies import Closes
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import Movement
from position_sync_dagster.money.past.opening import Opening
from position_sync_dagster.money.reports.money_sums import StrategySum
from tests.support.money_rows import NOW, book_of, row
from tests.unit.money.campaigns.test_closed_campaigns import (
    BOUGHT,
    CALL,
    OTHER,
    PUT,
    SOLD,
    TERMS,
    A,
    leg,
    moved,
    movements_in,
    parts_of,
)
from tests.unit.money.campaigns.test_open_campaigns import ASSIGNED, option, shares

LEGS = (leg(PUT), leg(OTHER), leg(CALL))
HIGH_CALL = 15
LATER = 16
TERMS |= {
    HIGH_CALL: {"sec_type": "OPT", "right": "CALL", "strike": 65.0},
    LATER: {"sec_type": "OPT", "right": "PUT", "strike": 50.0, "expiry": date(2026, 4, 17)},
}

# Credit: 2.00 and 1.50 less 1.00 and 0.50, of 100 each: 200.
CONDOR = movements_in(f"""
    2 trade -1 PUT         at 2
    2 trade  1 OTHER       at 1
    2 trade -1 CALL        at 1.5
    2 trade  1 {HIGH_CALL} at 0.5
""")
OF_CONDOR = (*LEGS, leg(HIGH_CALL))


def reached(
    movements: Sequence[Movement],
    held: Sequence[PositionUpdate],
    legs: Sequence[ActiveContract] = LEGS,
    **openings: Any,
) -> StrategySum:
    """Return the sums of the only strategy."""
    parts = attributed(movements, legs, openings.get("openings", {}))
    closes = Closes(since=NOW, parts=parts)
    gone = {leg.conid for leg in legs} - {holding.conid for holding in held}
    rows = [*held, *(row(conid, account=A, position=0.0) for conid in gone)]
    [sums] = [sums for sums in book_of(rows, legs, closes=closes).strategies if sums.currency]
    return sums


def test_of_a_short_put_it_is_the_part_of_its_credit():
    sums = reached([SOLD], [option(PUT, -1.0, -120.0)])
    promised = {"kind": "short-put", "credit": 200.0, "greatest_profit": 200.0}
    brought = {"profit": 200.0 - 1 - 120, "loss_of_credit": 0.0}
    assert asdict(sums.open_campaign) == promised | brought
    assert sums.profit_reached == pytest.approx(79 / 200)
    assert sums.profit_reached_unknown is None


def test_a_loss_is_a_multiple_of_the_credit():
    sums = reached([SOLD], [option(PUT, -1.0, -600.0)])
    assert sums.profit_reached == pytest.approx(-401 / 200)
    assert sums.open_campaign.loss_of_credit == pytest.approx(401 / 200)


def test_what_an_earlier_campaign_earned_is_not_in_it():
    again = moved(PUT, -1.0, 3.0, 9)
    sums = reached([SOLD, BOUGHT, again], [option(PUT, -1.0, -100.0)])
    assert sums.since_first_leg.realised == 148, "of all campaigns"
    assert sums.open_campaign.profit == 300 - 1 - 100
    assert sums.profit_reached == pytest.approx(199 / 300)


def test_a_roll_goes_on_with_the_promise_of_its_campaign():
    rolled = [SOLD, BOUGHT, moved(OTHER, -1.0, 1.5, 4)]
    sums = reached(rolled, [option(OTHER, -1.0, -120.0)])
    assert sums.profit_reached == pytest.approx((148 + 29) / 200)
    assert sums.open_campaign.kind == "short-put"


def test_shares_of_an_assignment_go_on_with_the_promise_of_the_put():
    sums = reached(ASSIGNED, [shares(100, 49.0)], (leg(PUT),))
    assert sums.profit_reached == pytest.approx((199 - 100) / 200)


def test_of_a_condor_it_is_the_part_of_the_credit_of_all_legs():
    puts = [option(PUT, -1.0, -90.0), option(OTHER, 1.0, 40.0)]
    held = [*puts, option(CALL, -1.0, -60.0), option(HIGH_CALL, 1.0, 14.0)]
    sums = reached(CONDOR, held, OF_CONDOR)
    assert sums.open_campaign.kind == "iron-condor"
    assert sums.open_campaign.greatest_profit == 200
    assert sums.profit_reached == pytest.approx((200 - 4 - 96) / 200)


def test_of_a_debit_spread_it_is_the_part_of_its_width_less_what_it_cost():
    movements = movements_in("2 trade 1 PUT at 2; 2 trade -1 OTHER at 1")
    sums = reached(movements, [option(PUT, 1.0, 350.0), option(OTHER, -1.0, -150.0)])
    assert sums.open_campaign.greatest_profit == 500 - 100
    assert sums.open_campaign.loss_of_credit is None, "it was paid for"
    assert sums.profit_reached == pytest.approx((200 - 100 - 2) / 400)


def test_what_was_held_before_counts_with_the_cost_that_the_broker_says():
    openings = {(A, PUT): Opening(quantity=-2.0, cost=180.0)}
    bought = moved(PUT, 1.0, 0.5, 4)
    sums = reached([bought], [option(PUT, -1.0, -100.0)], openings=openings)
    assert sums.open_campaign.credit == 360
    assert sums.profit_reached == pytest.approx((180 - 51 + 180 - 100) / 360)


def test_what_was_closed_on_the_first_day_leaves_the_promise_of_all_that_was_opened():
    movements = [moved(PUT, -2.0, 2.0, 2), moved(PUT, 1.0, 1.0, 2, at=None)]
    sums = reached(movements, [option(PUT, -1.0, -100.0)])
    assert sums.open_campaign.greatest_profit == 400


@pytest.mark.parametrize(
    ("movements", "held", "why"),
    [
        ([moved(CALL, 1.0, 2.0, 2)], [option(CALL, 1.0, 250.0)], "the profit had no bound, on"),
        (
            [SOLD, moved(LATER, 1.0, 3.0, 2)],
            [option(PUT, -1.0, -90.0), option(LATER, 1.0, 250.0)],
            "an option outlived the next expiry, on 2026-03-02",
        ),
        (
            [replace(SOLD, cash=None)],
            [option(PUT, -1.0, -90.0)],
            "what it had brought until 2026-03-02 is not known",
        ),
        (
            [replace(SOLD, multiplier=None)],
            [option(PUT, -1.0, -90.0)],
            "the terms of XYZ 50P 20Mar26 are not known",
        ),
        ([SOLD], [option(PUT, -1.0, None)], "its profit is not known"),
        ([moved(PUT, -1.0, 0.0, 2)], [option(PUT, -1.0, -1.0)], "it could not bring anything"),
        ([SOLD, BOUGHT], [], "no campaign is open"),
    ],
)
def test_what_is_not_known_is_null_and_says_why(movements, held, why):
    sums = reached(movements, held, (*LEGS, leg(LATER)))
    assert sums.profit_reached is None
    assert sums.profit_reached_unknown is not None
    assert sums.profit_reached_unknown.startswith(why)


def test_of_a_campaign_that_is_over_it_is_the_part_that_it_brought():
    [campaign] = closed_campaigns(parts_of([SOLD, BOUGHT], leg(PUT)))
    contracts = {PUT: contract_of([SOLD], None)}
    entry = as_opened(campaign, contracts, "USD")
    assert part_reached(148.0, entry) == (0.74, "")
    assert part_reached(None, entry) == (None, "its profit is not known")


def test_the_same_structure_in_two_accounts_has_the_promise_of_both():
    other = replace(SOLD, account="U2", movement_id="other", cash=100.0, price=1.0)
    held = [option(PUT, -1.0, -120.0), replace(option(PUT, -1.0, -120.0), account="U2")]
    sums = reached([SOLD, other], held, (leg(PUT),))
    assert sums.open_campaign.greatest_profit == 300
    assert sums.profit_reached == pytest.approx((300 - 2 - 240) / 300)
