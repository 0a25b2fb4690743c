"""Campaigns of movements: whose each one is, when a campaign is over, and what is not known."""

import re
import shlex
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from position_sync_dagster.domain.holding import grouped
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.money.campaigns.campaigns import (
    CampaignMoney,
    Contract,
    TradedCampaign,
    capital_at_risk,
    closed_campaigns,
    end_of,
    money_of,
    open_campaigns,
    rolls_in,
    states_of,
)
from position_sync_dagster.money.campaigns.closed_campaign import CampaignEnd
from position_sync_dagster.money.campaigns.closed_campaigns import contract_of
from position_sync_dagster.money.campaigns.lots import lots_of
from position_sync_dagster.money.campaigns.strategy_money import live_money
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
)
from position_sync_dagster.money.past.opening import Opening
from position_sync_dagster.money.past.postings import Posting
from position_sync_dagster.money.past.structures import is_between_accounts
from position_sync_dagster.money.past.unexplained import Held
from position_sync_dagster.money.profit.structure_days import stands_at

A = "U1"
MONDAY = date(2026, 3, 2)
EXPIRY = date(2026, 3, 20)
PUT = 11
CALL = 12
SHARES = 99
OTHER = 13
NEW_CALL = 14
NEW_SHARES = 98
CONIDS = {
    "PUT": PUT, "CALL": CALL, "OTHER": OTHER, "SHARES": SHARES,
    "NEW_CALL": NEW_CALL, "NEW_SHARES": NEW_SHARES,
}  # fmt: skip
TERMS: dict[int, dict[str, Any]] = {
    PUT: {"sec_type": "OPT", "right": "PUT", "strike": 50.0},
    CALL: {"sec_type": "OPT", "right": "CALL", "strike": 60.0},
    OTHER: {"sec_type": "OPT", "right": "PUT", "strike": 45.0},
    SHARES: {"sec_type": "STK", "multiplier": 1.0, "expiry": None},
    NEW_CALL: {"sec_type": "OPT", "right": "CALL", "strike": 30.0},
    NEW_SHARES: {"sec_type": "STK", "multiplier": 1.0, "expiry": None, "symbol": "NEW"},
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
    ids = {
        "movement_id": f"{conid}:{day}:{quantity}:{price}:{len(more)}", "conid": conid,
        "underlying_conid": SHARES if conid != SHARES else None,
    }  # fmt: skip
    trade: dict[str, Any] = {
        "kind": MovementKind.TRADE, "section": Section.TRADES, "source": MovementSource.STATEMENT,
        "day": at, "session_date": at, "at": datetime(2026, 3, day, 17, tzinfo=UTC),
    }  # fmt: skip
    values: dict[str, Any] = {
        "account": A, "symbol": "XYZ", "quantity": quantity, "price": price,
        "currency": "USD", "cash": cash, "fee": -1.0, "fee_currency": "USD",
    }  # fmt: skip
    return Movement(**ids | trade | values | terms | more)


def booked(
    conid: int, quantity: float, price: float, day: int, kind: MovementKind, **more: Any
) -> Movement:
    """Return what the broker booked: an end of an option, or what it delivered."""
    return moved(conid, quantity, price, day, kind=kind, fee=0.0, at=None, **more)


def acted(conid: int, quantity: float, day: int, **more: Any) -> Movement:
    """Return what a corporate action took or brought, without cash if nothing else."""
    action = {"kind": MovementKind.CORPORATE_ACTION, "section": Section.CORPORATE_ACTIONS}
    cash: dict[str, Any] = {"cash": 0.0, "fee": 0.0, "type": "FS"}
    return moved(conid, quantity, None, day, **action | cash | more)


ENDS = frozenset({"ASSIGNMENT", "EXERCISE", "EXPIRATION", "CASH_SETTLEMENT"})
NUMBERS = frozenset({"cash", "fee", "multiplier", "strike", "value"})


def movement_in(line: str) -> Movement:
    """Return a movement that is written as `2 trade -1 PUT at 1.5 order_id=7`."""
    parts = re.fullmatch(r"(\d+) +(\w+) +(\S+) +(\w+)(?: +at +(\S+))?(.*)", line)
    assert parts, line
    day, kind, size, contract, stated_price, values = parts.groups()
    more: dict[str, Any] = dict(value.split("=") for value in shlex.split(values))
    more |= {name: float(more[name]) for name in NUMBERS & more.keys()}

    conid = int(contract) if contract.isdigit() else CONIDS[contract]
    quantity = None if size == "-" else float(size)
    price = float(stated_price) if stated_price else None
    if kind == "action":
        return acted(conid, float(size), int(day), **more)
    if kind.upper() in ENDS:
        ended = MovementKind(kind.upper())
        return booked(conid, float(size), float(stated_price), int(day), ended, **more)
    if kind != "trade":
        more["kind"] = MovementKind(kind.upper())
    return moved(conid, quantity, price, int(day), **more)


def movements_in(text: str) -> list[Movement]:
    """Return movements, one a line or with semicolons between."""
    lines = text.replace(";", "\n").strip().splitlines()
    return [movement_in(line.strip()) for line in lines]


def leg(conid: int, strategy: str = "s", **more: Any) -> ActiveContract:
    terms = TERMS[conid]
    right = None
    if "right" in terms:
        right = Right(terms["right"])

    given = {"added_at": datetime(2026, 9, 1, tzinfo=UTC), "since": date(2026, 1, 1)} | more
    return ActiveContract(
        conid, "XYZ", right, terms.get("strike"), date(2026, 3, 20), strategy_id=strategy, **given
    )


def parts_of(movements: list[Movement], *legs: ActiveContract, **before: float) -> list[Posting]:
    openings = {}
    for conid, quantity in before.items():
        openings[A, int(conid[1:])] = Opening(quantity=quantity)
    return attributed(movements, legs, openings)


def over(
    movements: list[Movement], *legs: ActiveContract, **before: float
) -> dict[str, CampaignMoney]:
    """Return the money of each campaign that is over, by its owner."""
    campaigns = closed_campaigns(parts_of(movements, *legs, **before))
    return {campaign.strategy_id: money_of(campaign.parts, "USD") for campaign in campaigns}


SOLD = moved(PUT, -1.0, 2.0, 2)
BOUGHT = moved(PUT, 1.0, 0.5, 4)


def test_a_campaign_is_over_at_the_first_close_at_which_nothing_is_left():
    again = movements_in("5 trade -1 PUT at 3; 5 trade 1 PUT at 1; 5 trade -1 CALL at 3")
    [campaign] = closed_campaigns(parts_of([SOLD, BOUGHT, *again], leg(PUT), leg(CALL)))
    assert campaign.opened == MONDAY
    assert campaign.closed == date(2026, 3, 4)
    assert money_of(campaign.parts, "USD").profit == 200 - 50 - 2


def test_shares_that_an_assignment_left_belong_to_the_strategy_until_they_are_sold():
    movements = movements_in("""
        2 trade       -1 PUT    at 2
        6 assignment   1 PUT    at 0
        6 assignment 100 SHARES at 50
        9 trade      -60 SHARES at 49
    """)
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
    movements = movements_in("""
        2 trade      100 SHARES at 40
        2 trade       -1 PUT    at 2
        2 trade       -1 OTHER  at 1
        6 assignment   1 PUT    at 0
        6 assignment   1 OTHER  at 0
        6 assignment 100 SHARES at 50
        6 assignment 100 SHARES at 45
    """)
    legs = (leg(PUT, "a"), leg(OTHER, "b"))

    sold = over([*movements, moved(SHARES, -300.0, 48.0, 9)], *legs)
    assert sold["a"].profit == pytest.approx(200 - 200 - 1 - 1 / 3)
    assert sold["b"].profit == pytest.approx(100 + 300 - 1 - 1 / 3)

    in_parts = movements_in("9 trade -100 SHARES at 48; 10 trade -200 SHARES at 48")
    unclear = over([*movements, *in_parts], *legs)
    assert unclear["a"].profit is None
    assert unclear["b"].profit is None
    assert unclear["a"].unknown == "it is not known whose XYZ closed on 2026-03-09"


def test_an_assignment_whose_shares_no_source_names_has_no_profit():
    end = booked(PUT, 1.0, 0.0, 6, MovementKind.ASSIGNMENT)
    [money] = over([SOLD, end], leg(PUT)).values()
    assert money.profit is None
    assert money.unknown == "what XYZ 50P 20Mar26 delivered is not known"


def test_strategies_share_a_contract_by_the_quantities_that_they_claim():
    movements = movements_in("2 trade -3 PUT at 2; 4 trade 3 PUT at 1")
    shared = over(movements, leg(PUT, "a", quantity=-1.0), leg(PUT, "b", quantity=-2.0))
    assert shared["a"].profit == pytest.approx(100 - 2 / 3)
    assert shared["b"].profit == pytest.approx(200 - 4 / 3)

    part = over(movements, leg(PUT, "a", quantity=-1.0))
    assert part["a"].profit == pytest.approx(100 - 2 / 3)
    assert part[UNATTRIBUTED].profit == pytest.approx(200 - 4 / 3)


def test_trades_before_the_first_day_of_a_leg_belong_to_nobody():
    late = leg(PUT, since=date(2026, 3, 5))
    again = movements_in("5 trade -1 PUT at 3; 6 trade 1 PUT at 1")
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


def test_a_fee_in_another_currency_is_no_cost_in_the_one_of_its_contract_and_a_cost_in_its_own():
    movements = [SOLD, replace(BOUGHT, fee_currency="EUR")]
    [campaign] = closed_campaigns(parts_of(movements, leg(PUT)))
    assert campaign.currencies == ["USD", "EUR"]
    moneys = {currency: money_of(campaign.parts, currency) for currency in campaign.currencies}
    assert moneys["USD"].profit == 200 - 50 - 1
    assert moneys["USD"].fees == 1
    assert moneys["EUR"].profit == (-1)
    assert moneys["EUR"].fees == 1


def test_a_fee_of_which_nothing_is_known_makes_the_currency_of_its_contract_unknown():
    """200 - 50 USD and 300 - 100 EUR; of one of the four fees nothing is known."""
    in_euros = {"currency": "EUR", "fee_currency": "EUR"}
    sold = moved(CALL, -1.0, 3.0, 2, **in_euros)
    lacking = moved(CALL, 1.0, 1.0, 4, **in_euros | {"fee": None, "fee_currency": None})
    legs = (leg(PUT), leg(CALL))
    [campaign] = closed_campaigns(parts_of([SOLD, BOUGHT, sold, lacking], *legs))
    why = "the fee of XYZ 60C 20Mar26 of 2026-03-04 is not known"
    usd, eur = (money_of(campaign.parts, currency) for currency in ("USD", "EUR"))

    assert eur.profit is None
    assert eur.fees is None
    assert eur.unknown == why
    assert usd.profit == 200 - 50 - 2
    assert usd.fees == 2
    assert usd.unknown is None
    assert campaign.fees_beside("USD") == [why]
    assert campaign.fees_beside("EUR") == []

    in_one = replace(lacking, fee_currency="EUR")
    [campaign] = closed_campaigns(parts_of([SOLD, BOUGHT, sold, in_one], *legs))
    assert money_of(campaign.parts, "USD").profit == 200 - 50 - 2
    assert money_of(campaign.parts, "EUR").profit is None
    assert campaign.fees_beside("USD") == []

    stated = replace(lacking, fee=-1.0, fee_currency="EUR")
    [campaign] = closed_campaigns(parts_of([SOLD, BOUGHT, sold, stated], *legs))
    assert money_of(campaign.parts, "USD").profit == 200 - 50 - 2
    assert money_of(campaign.parts, "EUR").profit == 300 - 100 - 2


CLOSING = {"open_close": "C"}


@pytest.mark.parametrize(
    ("movements", "held", "reason"),
    [
        ([replace(SOLD, fee=None), BOUGHT], 0.0, "the fee of XYZ 50P 20Mar26 of 2026-03-02"),
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
            movements_in("6 expiration 1 PUT at 0"),
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
    movements = movements_in("""
         2 trade               -1 PUT    at 2
         6 assignment           1 PUT    at 0
         6 assignment         100 SHARES at 50
         9 corporate_action   100 SHARES       cash=0 fee=0
        10 dividend             - SHARES       cash=30 fee=0
        11 trade             -200 SHARES at 26
        12 withholding          - SHARES       cash=-4 fee=0
    """)
    [money] = over(movements, leg(PUT)).values()
    assert money.profit == 200 + 200 + 30 - 4 - 2


def test_what_is_in_no_strategy_is_one_structure_if_one_order_traded_it():
    def traded_by(order: str) -> list[TradedCampaign]:
        movements = movements_in(f"""
            2 trade -1 PUT  at 2   order_id=1
            2 trade -1 CALL at 2   order_id={order}
            4 trade  1 PUT  at 0.5
            6 trade  1 CALL at 1
        """)
        return closed_campaigns(parts_of(movements))

    assert [len(campaign.conids) for campaign in traded_by("1")] == [2]
    assert [len(campaign.conids) for campaign in traded_by("2")] == [1, 1]


def test_an_order_that_closes_options_and_opens_others_is_a_roll():
    movements = movements_in("""
        2 trade -1 PUT   at 2
        4 trade  1 PUT   at 0.5 order_id=7
        4 trade -1 OTHER at 1   order_id=7
        6 trade  1 OTHER at 0.2
    """)
    [campaign] = closed_campaigns(parts_of(movements, leg(PUT), leg(OTHER)))
    contracts = {conid: contract_of([moved(conid, 1.0, 1.0, 2)], None) for conid in (PUT, OTHER)}
    [roll] = rolls_in(campaign, contracts)
    assert roll.closed == ("XYZ 50P 20Mar26",)
    assert roll.opened == ("XYZ 45P 20Mar26",)


def test_orders_of_one_day_are_a_roll_if_what_they_trade_is_on_the_same_underlying():
    """A share and a future are called ES: no option on one takes the place of one on the other."""

    def rolled(sec_type: str) -> list[list[str]]:
        movements = movements_in(f"""
            2 trade -1 PUT   at 2   sec_type=FOP
            4 trade  1 PUT   at 0.5 sec_type=FOP order_id=7
            4 trade -1 OTHER at 1   sec_type={sec_type} order_id=8
            6 trade  1 OTHER at 0.2 sec_type={sec_type}
        """)
        campaigns = closed_campaigns(parts_of(movements))
        return [[part.movement.sec_type for part in campaign.parts] for campaign in campaigns]

    assert rolled("FOP") == [["FOP"] * 4]
    assert rolled("OPT") == [["FOP"] * 2, ["OPT"] * 2]


# ---- corporate actions

ADJUSTED = movements_in("""
     2 trade  -2 CALL     at 2.2 strike=82
     6 action  2 CALL
     6 action -2 NEW_CALL        strike=79
    10 trade   2 NEW_CALL at 0.8 strike=79 fee=-3
""")
TWO_FOR_ONE = movements_in("""
     2 trade   100 SHARES   at 50  order_id=1
     2 trade    -1 CALL     at 1.4 order_id=1
     6 action  100 SHARES
     6 action    1 CALL
     6 action   -2 NEW_CALL
    10 trade     2 NEW_CALL at 0.4 fee=-2
    10 trade  -200 SHARES   at 25
""")
THREE_FOR_TWO = movements_in("""
     2 trade   100 SHARES   at 60  order_id=1
     2 trade    -1 CALL     at 2   order_id=1
     6 action   50 SHARES
     6 action    1 CALL
     6 action   -1 NEW_CALL
    10 trade     1 NEW_CALL at 0.2 multiplier=150 cash=-30 fee=-2
    10 trade  -150 SHARES   at 40  fee=-3
""")
RENAMED = movements_in("""
     2 trade       100 SHARES     at 30    order_id=1
     2 trade        -1 CALL       at 1.03  order_id=1
     6 action        1 CALL                type=IC
     6 action       -1 NEW_CALL            type=IC symbol=NEW
     6 action     -100 SHARES              type=IC
     6 action      100 NEW_SHARES          type=IC
    20 expiration    1 NEW_CALL   at 0     symbol=NEW
    23 trade      -100 NEW_SHARES at 30.51
""")
MERGED = movements_in("""
    2 trade   100 SHARES at 30  fee=-0.5 order_id=1
    2 trade    -1 CALL   at 0.8 fee=-0.5 order_id=1
    6 action -100 SHARES        type=TC cash=3200
    6 trade     1 CALL   at 1
""")
ACTIONS = {
    "adjusted strike": (ADJUSTED, 440 - 160 - 4),
    "two for one": (TWO_FOR_ONE, 140 - 80 - 5),
    "three for two": (THREE_FOR_TWO, 200 - 30 - 7),
    "another ticker": (RENAMED, 103 + 51 - 3),
    "merger for cash": (MERGED, -3000 + 80 + 3200 - 100 - 2),
}
of_actions = pytest.mark.parametrize(("movements", "profit"), ACTIONS.values(), ids=ACTIONS)
COVERED_CALL = (leg(CALL), leg(SHARES))


@of_actions
@pytest.mark.parametrize("legs", [COVERED_CALL, ()], ids=["of a strategy", "in no strategy"])
def test_a_campaign_stays_known_through_a_corporate_action(movements, profit, legs):
    [money] = over(movements, *legs).values()
    assert money.profit == pytest.approx(profit)


@of_actions
@pytest.mark.parametrize("missing", ["cash", "fee", "row"])
def test_what_no_source_names_of_a_corporate_action_or_a_trade_is_unknown(
    movements, profit, missing
):
    for place, movement in enumerate(movements):
        incomplete = [*movements[:place], *movements[place + 1 :]]
        is_split = movement.kind is MovementKind.CORPORATE_ACTION and movement.quantity > 0
        if missing == "row" and (movement.kind is MovementKind.TRADE or is_split):
            continue  # then what is left is open, or was held before
        if missing != "row":
            incomplete.append(replace(movement, **{missing: None}))
        for money in over(incomplete, *COVERED_CALL).values():
            assert money.profit is None


def test_what_an_action_brings_for_nothing_has_an_unknown_cost():
    movements = movements_in("""
        2 trade   100 SHARES     at 30
        6 action   10 NEW_SHARES       type=SO
        9 trade  -100 SHARES     at 29
        9 trade   -10 NEW_SHARES at 12
    """)
    [money] = over(movements, leg(SHARES), leg(NEW_SHARES)).values()
    assert money.profit is None
    assert money.unknown == "what NEW cost is not known: a corporate action brought it"


def test_what_an_action_takes_belongs_to_those_who_have_what_it_brings():
    """Two strategies had one call each: of the two that came each has one."""
    movements = movements_in("""
         2 trade  -2 CALL     at 2   fee=-2
         6 action  2 CALL
         6 action -2 NEW_CALL
        10 trade   2 NEW_CALL at 0.5 fee=-2
    """)
    legs = (leg(CALL, "a", quantity=-1.0), leg(CALL, "b", quantity=-1.0))
    moneys = over(movements, *legs)
    assert moneys.keys() == {"a", "b"}
    assert moneys["a"].profit == 200 - 50 - 2
    assert moneys["b"].profit == 200 - 50 - 2


# ---- what options deliver in no strategy


def test_two_puts_in_no_strategy_and_the_shares_that_they_deliver_are_one_structure():
    movements = movements_in("""
         2 trade        -1 PUT    at 2
         3 trade        -1 OTHER  at 1
        20 assignment    1 PUT    at 0
        20 assignment    1 OTHER  at 0
        20 assignment  100 SHARES at 50
        20 assignment  100 SHARES at 45
        23 trade      -200 SHARES at 40
    """)
    [campaign] = closed_campaigns(parts_of(movements))
    assert money_of(campaign.parts, "USD").profit == 200 - 1000 + 100 - 500 - 3

    for place, lacking in product(range(len(movements)), ("cash", "fee")):
        incomplete = [*movements]
        incomplete[place] = replace(movements[place], **{lacking: None})
        [unknown] = closed_campaigns(parts_of(incomplete))
        assert money_of(unknown.parts, "USD").profit is None


def test_what_the_broker_adjusts_of_a_commission_belongs_to_the_campaign_of_its_contract():
    adjusted = moved(PUT, None, None, 5, kind=MovementKind.FEE, cash=-0.25, fee=0.0)
    assert over([SOLD, BOUGHT, adjusted], leg(PUT))["s"].profit == 148 - 0.25
    unknown = replace(adjusted, cash=None)
    assert over([SOLD, BOUGHT, unknown], leg(PUT))["s"].profit is None


# ---- the greatest loss that was possible, given what the campaign had brought


def option(
    conid: int, quantity: float, price: float, day: int, right: str, strike: float, **more: Any
) -> Movement:
    TERMS.setdefault(conid, {"sec_type": "OPT"})
    return moved(conid, quantity, price, day, right=right, strike=strike, **more)


def spread(first: int, quantity: float, credit: float, day: int, right: str) -> list[Movement]:
    """Return the trades of a spread of five points, sold for a credit by one order."""
    strikes = (60.0, 65.0)
    if right == "PUT":
        strikes = (50.0, 45.0)

    order = {"order_id": f"{day}"}
    sold = option(first, -quantity, credit + 1, day, right, strikes[0], **order)
    bought = option(first + 1, quantity, 1.0, day, right, strikes[1], **order)
    return [sold, bought]


def rolled(first: int, day: int, debit: float, credit: float) -> list[Movement]:
    """Return the roll of a spread of puts to the next two contracts."""
    closing = spread(first, -1.0, debit, day, "PUT")
    return closing + spread(first + 2, 1.0, credit, day, "PUT")


LATER = date(2026, 4, 17)
AT_RISK = {}
AT_RISK["a put spread rolled twice"] = (
    [
        *spread(20, 1.0, 1.0, 2, "PUT"),
        *rolled(20, 4, 1.5, 1.3),
        *rolled(22, 9, 1.5, 1.3),
        *spread(24, -1.0, 0.4, 11, "PUT"),
    ],
    500 - 100 + 20 + 20,
)
AT_RISK["a condor with one side rolled twice"] = (
    [
        *spread(20, 1.0, 0.9, 2, "PUT"),
        *spread(30, 1.0, 0.5, 2, "CALL"),
        *rolled(20, 4, 1.2, 0.6),
        *rolled(22, 9, 1.2, 0.6),
        *spread(24, -1.0, 0.4, 11, "PUT"),
        *spread(30, -1.0, 0.1, 11, "CALL"),
    ],
    500 - 140 + 60 + 60,
)
EXERCISED: dict[str, Any] = {"kind": MovementKind.EXERCISE, "fee": 0.0}
AT_RISK["a call that was exercised"] = (
    [
        option(20, 1.0, 10.6, 2, "CALL", 70.0),
        option(20, -1.0, 0.0, 20, "CALL", 70.0, **EXERCISED),
        *movements_in("20 exercise 100 SHARES at 70; 23 trade -100 SHARES at 75"),
    ],
    1060 + 7000,
)
EXPIRED: dict[str, Any] = {"kind": MovementKind.EXPIRATION, "fee": 0.0}
AT_RISK["a calendar whose front expired"] = (
    [
        option(20, -1.0, 2.4, 2, "PUT", 50.0),
        option(21, 1.0, 5.2, 2, "PUT", 50.0, expiry=LATER),
        option(20, 1.0, 0.0, 20, "PUT", 50.0, **EXPIRED),
        option(21, -1.0, 3.5, 23, "PUT", 50.0, expiry=LATER),
    ],
    520 - 240,
)
AT_RISK["a wheel"] = (
    [
        option(20, -1.0, 2.15, 2, "PUT", 98.0),
        option(20, 1.0, 0.0, 6, "PUT", 98.0, kind=MovementKind.ASSIGNMENT, fee=0.0),
        *movements_in("6 assignment 100 SHARES at 98; 9 trade -100 SHARES at 99"),
    ],
    9800 - 215,
)
of_risks = pytest.mark.parametrize(("movements", "risk"), AT_RISK.values(), ids=AT_RISK)


def contracts_of(movements: list[Movement]) -> dict[int, Contract]:
    """Return the contracts that movements moved, by their ids."""
    by_conid = grouped(lambda movement: movement.conid, movements)
    return {conid: contract_of(moves, None) for conid, moves in by_conid.items()}


def risk_of(movements: list[Movement]) -> float | None:
    legs = [leg(conid) for conid in {movement.conid for movement in movements} - {SHARES}]
    [campaign] = closed_campaigns(parts_of(movements, *legs))
    assert set(campaign.conids) == contracts_of(movements).keys()
    risk, _why = capital_at_risk(states_of(campaign, "USD"), contracts_of(movements), "USD")
    return risk


@of_risks
def test_capital_at_risk_counts_what_the_campaign_had_brought(movements, risk):
    assert risk_of(movements) == pytest.approx(risk)


@of_risks
def test_capital_at_risk_is_unknown_without_the_price_of_an_opening_trade(movements, risk):
    for place, movement in enumerate(movements[:2]):
        if movement.kind is MovementKind.TRADE:
            unpriced = [*movements]
            unpriced[place] = replace(movement, cash=None)
            assert risk_of(unpriced) is None


@pytest.mark.parametrize(("paid", "risk"), [(0.0, 3000.0), (None, None)])
def test_capital_at_risk_is_unknown_after_an_action_whose_cost_is(paid, risk):
    bought, taken, brought, sold = movements_in("""
        2 trade   100 SHARES     at 30
        6 action -100 SHARES           type=TC
        6 action   50 NEW_SHARES       type=TC
        9 trade   -50 NEW_SHARES at 70
    """)
    taken = replace(taken, cash=paid)
    movements = [bought, taken, brought, sold]
    contracts = contracts_of(movements)
    [campaign] = closed_campaigns(parts_of(movements, leg(SHARES)))
    assert capital_at_risk(states_of(campaign, "USD"), contracts, "USD")[0] == risk


# ---- what was held before, and is gone without a cause

HELD_PUT = Opening(quantity=-1.0, cost=250.0, contract=moved(PUT, -1.0, 2.5, 2, fee=0.0))
HELD_CALL = Opening(quantity=-1.0, cost=140.0)
OF_BOTH = {(A, PUT): HELD_PUT, (A, CALL): HELD_CALL}
CALL_EXPIRED = booked(CALL, 1.0, 0.0, 6, MovementKind.EXPIRATION)


# The gateway shows that the put is gone, and no cause is known.
GONE_AT = datetime(2026, 3, 6, 22, tzinfo=UTC)
GONE = {(A, PUT): [Held(quantity=0.0, at=GONE_AT, until=GONE_AT)]}


def test_a_campaign_with_a_leg_that_is_gone_without_a_cause_has_an_unknown_profit_until_then():
    legs = (leg(PUT), leg(CALL))
    [campaign] = closed_campaigns(attributed([CALL_EXPIRED], legs, OF_BOTH, GONE))
    money = money_of(campaign.parts, "USD")
    assert campaign.conids == [PUT, CALL]
    assert money.profit is None
    assert money.unknown == "how XYZ 50P 20Mar26 of 2026-03-06 ended is not known"

    # A statement names the end: it counts, whether the close is judged again or not.
    stated = booked(PUT, 1.0, 0.0, 6, MovementKind.EXPIRATION)
    for seen in ({}, GONE):
        [campaign] = closed_campaigns(attributed([CALL_EXPIRED, stated], legs, OF_BOTH, seen))
        assert money_of(campaign.parts, "USD").profit == 250 + 140


def test_a_leg_that_no_movement_moved_keeps_its_campaign_open():
    assert closed_campaigns(attributed([CALL_EXPIRED], (leg(PUT), leg(CALL)), OF_BOTH)) == []


def test_only_what_was_held_can_be_gone_without_a_cause():
    assert attributed([], [leg(PUT)], {}, GONE) == []


def test_a_contract_of_two_strategies_is_divided_by_the_orders_that_closed_their_other_legs():
    """Each closes its call with its own put, on two days and at other prices."""
    of_both = [leg(CALL, strategy, quantity=-1.0) for strategy in ("a", "b")]
    legs = (*of_both, leg(PUT, "a"), leg(OTHER, "b"))
    movements = movements_in("""
        2 trade -2 CALL  at 2   fee=0
        2 trade -1 PUT   at 1   fee=0
        2 trade -1 OTHER at 1   fee=0
        4 trade  1 CALL  at 0.5 fee=0 order_id="of b"
        4 trade  1 OTHER at 0.1 fee=0 order_id="of b"
        5 trade  1 CALL  at 1.5 fee=0 order_id="of a"
        5 trade  1 PUT   at 0.3 fee=0 order_id="of a"
    """)
    moneys = over(movements, *legs)
    assert moneys.keys() == {"a", "b"}
    assert moneys["a"].profit == pytest.approx(200 - 150 + 100 - 30)
    assert moneys["b"].profit == pytest.approx(200 - 50 + 100 - 10)


def test_shares_of_a_warrant_that_was_exercised_belong_to_its_strategy():
    movements = movements_in("""
        2 trade       1 CALL   at 2  sec_type=WAR
        6 exercise   -1 CALL   at 0  sec_type=WAR
        6 exercise  100 SHARES at 60
        9 trade    -100 SHARES at 66
    """)
    assert over(movements, leg(CALL))["s"].profit == -200 - 6000 + 6600 - 2


@pytest.mark.parametrize(
    ("terms", "cash", "risk"),
    [
        ({"sec_type": "FOP", "multiplier": 50.0}, 100.0, 50 * 50 - 100.0),
        ({"currency": "GBP"}, 200.0, 100 * 50 - 200.0),
        ({"currency": "GBP"}, 2.0, None),  # the price is in pence
    ],
)
def test_capital_at_risk_is_known_where_a_statement_has_price_and_strike_in_one_unit(
    terms, cash, risk
):
    sold = moved(PUT, -1.0, 2.0, 2, **terms) if terms else SOLD
    sold = replace(sold, cash=cash, fee=0.0)
    bought = moved(PUT, 1.0, 1.0, 4, **terms)
    [campaign] = closed_campaigns(parts_of([sold, bought], leg(PUT)))
    contracts = {PUT: contract_of([sold], None)}
    at_risk, _why = capital_at_risk(states_of(campaign, sold.currency), contracts, sold.currency)
    assert at_risk == risk


def test_what_was_held_before_all_movements_is_in_its_campaign_from_when_it_was_seen():
    """The put was seen on Monday, and moves after the call is gone."""
    seen_at = datetime(2026, 3, 2, 21, tzinfo=UTC)
    openings = {(A, PUT): Opening(quantity=-1.0, cost=250.0, seen_at=seen_at)}
    movements = movements_in("3 trade -1 CALL at 2; 4 trade 1 CALL at 1; 9 trade 1 PUT at 0.5")
    [campaign] = closed_campaigns(attributed(movements, (leg(PUT), leg(CALL)), openings))
    assert campaign.closed == date(2026, 3, 9)
    assert money_of(campaign.parts, "USD").profit == 250 + 200 - 100 - 50 - 3


MOVED = """
    2 trade     30 SHARES at 50 fee=-1
    4 transfer -20 SHARES       fee=-4 cash=0 {}
    4 transfer  20 SHARES       fee=0 cash=0 {} account=U2
    6 trade    -20 SHARES at 60 fee=-2 account=U2
    9 trade    -10 SHARES at 40 fee=-3
"""


@pytest.mark.parametrize(("left", "came"), [("value=-2000", "value=2000"), ("", "")])
def test_a_campaign_goes_along_with_what_a_transfer_takes_to_another_own_account(left, came):
    """It is one until nothing is left in any account, whatever value is stated."""
    movements = movements_in(MOVED.format(left, came))
    parts = parts_of(movements, leg(SHARES, account=A))
    [campaign] = closed_campaigns(parts)
    assert campaign.campaign_id == "s:U1:2026-03-02"
    assert campaign.accounts == ["U1", "U2"]
    assert campaign.opened == date(2026, 3, 2)
    assert campaign.closed == date(2026, 3, 9)
    assert end_of(campaign) is CampaignEnd.CLOSED
    profit = -30 * 50 + 20 * 60 + 10 * 40 - 1 - 4 - 2 - 3
    assert money_of(campaign.parts, "USD").profit == profit
    assert live_money(parts)["s", "USD"].realised == pytest.approx(profit)

    [still_open] = open_campaigns(parts_of(movements[:-1], leg(SHARES, account=A)))
    assert still_open.opened == date(2026, 3, 2)
    assert money_of(still_open.parts, "USD").profit == -30 * 50 + 20 * 60 - 1 - 4 - 2


def test_campaigns_of_two_accounts_between_which_nothing_went_are_two():
    movements = movements_in("""
        2 trade  30 SHARES at 50
        2 trade  30 SHARES at 50 account=U2
        4 trade -30 SHARES at 60
        4 trade -30 SHARES at 60 account=U2
    """)
    campaigns = closed_campaigns(parts_of(movements, leg(SHARES)))
    assert [campaign.accounts for campaign in campaigns] == [["U1"], ["U2"]]


def test_a_structure_of_no_strategy_goes_along_too():
    movements = movements_in("""
        2 trade    -1 PUT at 2.0 order_id=7 fee=-1
        2 trade     1 OTHER at 0.5 order_id=7 fee=-1
        4 transfer  1 PUT fee=0 cash=0
        4 transfer -1 PUT fee=0 cash=0 account=U2
        6 trade     1 PUT at 0.5 fee=-1 account=U2
        9 trade    -1 OTHER at 0.2 fee=-1
    """)
    [structure] = closed_campaigns(parts_of(movements))
    assert structure.accounts == ["U1", "U2"]
    assert structure.closed == date(2026, 3, 9)
    assert money_of(structure.parts, "USD").profit == 200 - 50 - 50 + 20 - 4


def test_how_a_structure_stood_is_not_known_while_a_part_is_on_the_way():
    """At the close of the 4th the put is in no account."""
    movements = movements_in("""
        2 trade    -1 PUT at 2.0 fee=-1
        4 transfer  1 PUT fee=0 cash=0
        5 transfer -1 PUT fee=0 cash=0 account=U2
        6 trade     1 PUT at 0.5 fee=-1 account=U2
    """)
    [structure] = closed_campaigns(parts_of(movements))
    days = [date(2026, 3, day) for day in (3, 4, 5, 6)]
    worth = {(A, PUT, days[0]): 170.0, ("U2", PUT, days[2]): 120.0}
    stood = [stands_at(structure, "USD", day, worth) for day in days]
    assert stood == [199 - 170, None, 199 - 120, 199 - 51]


@pytest.mark.parametrize("went", [30, 20])
def test_what_went_to_another_account_and_came_back_is_of_one_campaign(went):
    """All of it goes, or a part; then it goes once more, and is sold there."""
    movements = movements_in(f"""
        2 trade     30 SHARES at 50
        4 transfer -{went} SHARES fee=0 cash=0
        4 transfer  {went} SHARES fee=0 cash=0 account=U2
        6 transfer -{went} SHARES fee=0 cash=0 account=U2
        6 transfer  {went} SHARES fee=0 cash=0
        9 trade    -10 SHARES at 60
        10 transfer -20 SHARES fee=0 cash=0
        10 transfer  20 SHARES fee=0 cash=0 account=U2
        11 trade   -20 SHARES at 40 account=U2
    """)
    parts = parts_of(movements, leg(SHARES))
    [campaign] = closed_campaigns(parts)
    assert campaign.accounts == ["U1", "U2"]
    assert campaign.opened == date(2026, 3, 2)
    assert campaign.closed == date(2026, 3, 11)
    profit = -30 * 50 + 10 * 60 + 20 * 40 - 3
    assert money_of(campaign.parts, "USD").profit == profit
    assert live_money(parts)["s", "USD"].realised == pytest.approx(profit)
    lots = [(lot.account, lot.opened.day, lot.quantity, lot.profit) for lot in lots_of(parts)]
    assert lots == [
        ("U1", 2, 10, pytest.approx(10 * (60 - 50) - 1 / 3 - 1)),
        ("U2", 2, 20, pytest.approx(20 * (40 - 50) - 2 / 3 - 1)),
    ]


SHORT_PUT_MOVED = """
    2 trade    -1 PUT at 3
    6 transfer  1 PUT fee=0
    6 transfer -1 PUT fee=0 account=U2
"""


def test_a_campaign_that_went_to_an_account_lasts_until_its_strategy_has_nothing_there():
    """The strategy trades again in the account that it left: its days are of both."""
    movements = movements_in(SHORT_PUT_MOVED)
    again = movements_in("""
        6 trade -1 CALL at 2; 9 trade 1 CALL at 1
        10 trade 1 PUT at 1 account=U2
    """)
    legs = [leg(PUT), leg(CALL)]
    [campaign] = closed_campaigns(parts_of([*movements, *again], *legs))
    assert campaign.accounts == [A, "U2"]
    assert campaign.closed == date(2026, 3, 10)
    assert money_of(campaign.parts, "USD").profit == 300 + 200 - 100 - 100 - 4

    # Nothing of it is left in the first account: what begins there later is another one.
    later = movements_in("9 trade 1 PUT at 1 account=U2; 10 trade -1 CALL at 2")
    parts = parts_of([*movements, *later], *legs)
    assert len(closed_campaigns(parts)) == len(open_campaigns(parts)) == 1


def test_a_day_on_which_something_is_between_two_accounts_is_no_state():
    """The long leg leaves on the 4th, and comes on the 6th."""
    movements = movements_in("""
        2 trade    -1 PUT at 3
        2 trade     1 CALL at 1
        4 transfer -1 CALL fee=0
        6 transfer  1 CALL fee=0 account=U2
        9 trade     1 PUT at 1
        9 trade    -1 CALL at 2 account=U2
    """)
    [campaign] = closed_campaigns(parts_of(movements, leg(PUT), leg(CALL)))
    assert [(state.session.day, dict(state.lots)) for state in states_of(campaign, "USD")] == [
        (2, {PUT: -1.0, CALL: 1.0}),
        (6, {PUT: -1.0, CALL: 1.0}),
        (9, {}),
    ]
    days = [date(2026, 3, day) for day in range(2, 8)]
    between = [day.day for day in days if is_between_accounts(campaign.parts, day)]
    assert between == [4, 5]


def test_what_is_not_known_of_a_quantity_goes_along_to_another_account():
    """An action of unknown quantity: what the owner closes later is unknown, wherever it is."""
    action = replace(acted(PUT, 0.0, 4), quantity=None, cash=None)
    moves = movements_in(SHORT_PUT_MOVED.replace("2 trade", "5 trade"))
    bought = movements_in("9 trade 1 PUT at 1 account=U2")
    *_acted, campaign = closed_campaigns(parts_of([action, *moves, *bought], leg(PUT)))
    assert campaign.accounts == [A, "U2"]
    assert money_of(campaign.parts, "USD").profit is None
