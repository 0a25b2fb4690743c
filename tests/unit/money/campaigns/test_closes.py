"""What closed of the legs of strategies: how it is said, and its realised profit."""

from dataclasses import asdict, replace
from datetime import date, timedelta
from math import copysign

import pytest

from position_sync_dagster.lake.schema import frame_of
from position_sync_dagster.money.campaigns.closes_of_strategies import (
    NO_CLOSES,
    UNATTRIBUTED,
    Closes,
)
from position_sync_dagster.money.past.attribution import attributed
from position_sync_dagster.money.past.closes import Cause, Closure, end_text
from position_sync_dagster.money.past.movements import (
    Movement,
    MovementKind,
    MovementSource,
    Section,
    movement_of,
)
from position_sync_dagster.money.past.opening import Opening
from position_sync_dagster.money.reports.book import Book
from position_sync_dagster.money.reports.exposure import exposures
from position_sync_dagster.money.reports.money_tables import money_lines, sums_table
from position_sync_dagster.money.tables import CLOSURES
from position_sync_dagster.terminal.output import fitted_table
from tests.support.legs import ADDED_AT, leg
from tests.support.money_rows import NOW, book_of, row, shown
from tests.unit.money.campaigns.test_closed_campaigns import CALL as COVERED
from tests.unit.money.campaigns.test_closed_campaigns import PUT, SHARES, A, moved, movements_in
from tests.unit.money.past.test_causes import CALL, CASES, OTHER

ACCOUNT = "DU1"
LATER = ADDED_AT + timedelta(days=30)
(EXPIRED,) = CASES["expired worthless"].found()
(SOLD,) = CASES["sold on its day"].found()


def end(*causes: Closure):
    return LATER, end_text(causes)


LEGS = (leg(CALL, "condor"), leg(OTHER, "condor", added_at=LATER), leg(OTHER, "other"))


def closes(*current: Closure, legs=LEGS, before: float | None = None, **ends) -> Closes:
    """Return closes with the movements that state them; `before` was held of each contract.

    What that had cost is given; else it follows from the profit that the broker states.
    """
    by_conid = {int(conid[1:]): {ACCOUNT: end} for conid, end in ends.items()}
    movements = [*map(stated, current)]
    openings = {}
    if before is not None:
        openings = {movement.key: Opening(quantity=before, cost=26.33) for movement in movements}
    rows = frame_of(CLOSURES, map(asdict, current))
    parts = attributed(movements, legs, openings)
    return Closes(rows=rows, since=ADDED_AT + timedelta(days=1), ends=by_conid, parts=parts)


def stated(close: Closure) -> Movement:
    amounts = {"quantity": -close.quantity, "cash": copysign(250.0, close.quantity)}
    ids = {
        "movement_id": f"{close.change_id}:{close.conid}",
        "execution_id": next(iter(close.evidence or ()), None),
    }
    return movement_of(
        close, close.closed_at.date(), kind=MovementKind.TRADE, section=Section.TRADES,
        source=MovementSource.API, at=close.closed_at, fee=-1.3, fee_currency="USD",
        open_close="C", **ids, **amounts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("causes", "text"),
    [
        ([EXPIRED], "expired on 2026-03-20"),
        ([replace(EXPIRED, cause=Cause.CASH_SETTLED)], "expired and settled in cash on 2026-03-20"),
        ([SOLD], "traded on 2026-03-20"),
        ([replace(SOLD, cause=Cause.ASSIGNED, closed_at=NOW)], "assigned on 2026-03-09"),
        ([SOLD, replace(SOLD, cause=Cause.ASSIGNED)], "traded and assigned on 2026-03-20"),
        ([SOLD, replace(SOLD, cause=Cause.UNEXPLAINED)], None),
        ([], None),
    ],
)
def test_what_happened_to_a_holding_is_said_only_if_all_of_it_is_known(causes, text) -> None:
    assert end_text(causes) == text


def test_a_leg_that_was_held_before_it_was_added_or_elsewhere_is_not_closed() -> None:
    closed = closes(_1=end(EXPIRED))
    assert closed.end_of(leg(CALL)) == "expired on 2026-03-20"
    assert closed.end_of(leg(CALL, account=ACCOUNT)) == "expired on 2026-03-20"
    assert closed.end_of(leg(CALL, account="DU2")) is None
    assert closed.end_of(leg(CALL, added_at=LATER + timedelta(seconds=1))) is None
    assert closed.end_of(leg(OTHER)) is None
    in_two = replace(closed, ends={CALL: {**closed.ends[CALL], "DU2": end()}})
    assert in_two.end_of(leg(CALL)) is None


def book(closes: Closes, strategy: str | None = None) -> Book:
    legs = [leg(n, "condor") for n in (CALL, 5, 6, 7)]
    rows = [row(5), row(6), row(7), row(CALL, position=0.0)]
    held = book_of(rows, legs, closes=closes)
    of_table = exposures(held.split).row(0, named=True)
    assert of_table["legs"] == 4
    assert of_table["legs_held"] == 3
    assert of_table["legs_closed"] == 1
    assert of_table["closed"] == "one expired on 2026-03-20"
    return held.of_strategy(strategy)


def test_a_strategy_of_which_a_leg_expired_says_so_and_does_not_miss_it() -> None:
    read_book = book(closes(EXPIRED, _1=end(EXPIRED)))
    said = "condor: 3 of 4 legs, one expired on 2026-03-20"
    assert said in money_lines(read_book)
    read_book.strategies[0] = read_book.strategies[0].model_copy(update={"legs": 6})
    assert f"{said.replace('4', '6')}, 2 missing" in money_lines(read_book)


def realized(closes: Closes, name: str | None, account: str | None = None) -> tuple[object, ...]:
    row = closes.realized(name, account, "USD") or {}
    profit = row["realized_pnl"]
    return profit and round(profit, 9), row["closes"], row["closes_without_profit"]


def test_realised_profit_is_summed_by_strategy_each_with_its_part_of_what_several_had() -> None:
    """Two strategies had half of what brought 50 each."""
    elsewhere = replace(SOLD, conid=9, realized_pnl=7.0)
    shared = replace(SOLD, conid=OTHER, closed_at=LATER, realized_pnl=50.0)
    sold = replace(SOLD, realized_pnl=12.0)
    closed = closes(EXPIRED, sold, elsewhere, shared, _1=end(EXPIRED))
    assert realized(closed, "condor") == (-112.0 + 12.0 + 25.0, 3, 0)
    assert realized(closed, "other") == (25.0, 1, 0)
    of_condor = closed.realized("condor", None, "USD") or {}
    assert of_condor["realized_since"] == min(part.at for part in closed.parts)
    assert closed.realized("later", None, "USD")["closes"] == 0

    alone = replace(closed, rows=closed.rows.head(3))
    assert realized(alone, UNATTRIBUTED, ACCOUNT) == (7.0, 1, 0)
    assert realized(closed, None) == (-112.0 + 12.0 + 7.0 + 50.0, 4, 0)
    assert replace(closed, since=None).realized("later", None, "USD") is None
    assert replace(closed, since=None).realized(None, None, "USD") is None
    assert closed.chosen("other", "spy", None) == ([(shared, ["condor", "other"])], 1)
    assert closed.chosen("condor", None, 0) == ([], 3)
    listed, count = closed.chosen(None, None, 2)
    assert [close for close, _strategies in listed] == [shared, elsewhere]
    assert count == 4
    assert NO_CLOSES.chosen(None, None, None) == ([], 0)


@pytest.mark.parametrize(
    ("before", "quantities", "of_condor", "of_rest"),
    [
        (-10.0, [None], 12.0, None),
        (-10.0, [-10.0], 12.0, None),
        (-10.0, [-12.0], 12.0, None),
        (-10.0, [-3.0], 3.6, "unknown"),
        (-10.0, [10.0], None, 12.0),
        (-20.0, [None], 12.0, None),
        (-20.0, [-20.0], 12.0, None),
        (-20.0, [-10.0], None, "unknown"),  # what it leaves is claimed
        (-10.0, [-5.0, -5.0], 6.0, None),
        (-20.0, [-10.0, -10.0], "unknown", None),
        (-20.0, [-5.0, -5.0], None, "unknown"),
        (None, [-3.0], 3.6, "unknown"),
    ],
)
def test_a_strategy_has_its_part_of_the_profit_where_it_is_known_whose_the_close_was(
    before, quantities, of_condor, of_rest
) -> None:
    owned = zip(("condor", "other"), quantities, strict=False)
    legs = [leg(SOLD.conid, name, quantity=quantity) for name, quantity in owned]
    close = replace(SOLD, realized_pnl=12.0, quantity=-10.0)
    of_legs = closes(close, legs=legs, before=before)
    expected = {"unknown": (None, 1, 1), None: (0, 0, 0)}
    for name, profit in ((UNATTRIBUTED, of_rest), ("condor", of_condor)):
        assert realized(of_legs, name) == expected.get(profit, (profit, 1, 0))


def test_shares_that_an_assignment_took_before_its_statement_closed_for_their_strategy() -> None:
    """Their movement follows from the close of the option, and has the change of that.

    5,000 for the shares and 200 for the call, less 4,500 and four fees of 1.
    """
    inferred = {
        "source": MovementSource.INFERRED, "change_id": "of the call",
        "kind": MovementKind.ASSIGNMENT,
    }  # fmt: skip
    taken = replace(moved(SHARES, -100.0, 50.0, 9), counter_conid=COVERED, **inferred)
    ended = replace(moved(COVERED, 1.0, 0.0, 9), **inferred)
    opened = movements_in("2 trade 100 SHARES at 45; 2 trade -1 CALL at 2")
    legs = [leg(conid, "covered", since=date(2026, 1, 1)) for conid in (COVERED, SHARES)]
    close = replace(SOLD, account=A, executions=None, cause=Cause.ASSIGNED, realized_pnl=None)
    of_call = replace(close, change_id="of the call", conid=COVERED, counter_conid=SHARES)
    of_shares = replace(close, change_id="of the shares", conid=SHARES, counter_conid=COVERED)

    rows = frame_of(CLOSURES, map(asdict, [of_call, of_shares]))
    parts = attributed([*opened, ended, taken], legs)
    closed = Closes(rows=rows, since=ADDED_AT, parts=parts)
    assert realized(closed, "covered") == (5000 + 200 - 4500 - 4, 2, 0)
    assert realized(closed, UNATTRIBUTED) == (0, 0, 0)


def test_a_close_finds_its_owner_by_each_row_of_its_evidence() -> None:
    """Also by an id with a comma: evidence is no text that is split."""
    names = ["0001,of a statement", "0002"]
    close = replace(SOLD, evidence=names, executions=",".join(names), realized_pnl=12.0)
    assert realized(closes(close), "condor") == (12.0, 1, 0)


# What happens, and what the broker states of it: average cost and profit are net of commissions,
# and what was got for an option that delivers is in the profit of what it delivers.
KINDS = {
    "sold": ("2 trade 1 PUT at 2; 3 trade -1 PUT at 3", 299.0 - 201.0),
    "bought back": ("2 trade -1 PUT at 2; 3 trade 1 PUT at 1", 199.0 - 101.0),
    "a part, at average cost": (
        "2 trade 1 PUT at 2; 3 trade 1 PUT at 4; 4 trade -1 PUT at 5", 499.0 - (201.0 + 401.0) / 2,
    ),
    "through zero": ("2 trade 1 PUT at 2; 3 trade -2 PUT at 3", 599.0 / 2 - 201.0),
    "expired": ("2 trade -1 PUT at 1.5; 20 expiration 1 PUT at 0", 149.0),
    "settled in cash": ("2 trade 1 PUT at 2; 20 cash_settlement -1 PUT at 3.5", 350.0 - 201.0),
    "assigned, and the shares sold": (
        """
            2 trade        -1 PUT    at 2
           20 assignment    1 PUT    at 0
           20 assignment  100 SHARES at 50
           23 trade      -100 SHARES at 51
        """,
        5099.0 - (5000.0 - 199.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("movements", "stated_profit"), KINDS.values(), ids=KINDS)
def test_what_a_strategy_realised_is_what_the_broker_states_of_its_closes(
    movements, stated_profit
) -> None:
    legs = [leg(conid, "s", since=date(2026, 1, 1)) for conid in (PUT, SHARES)]
    closed = Closes(parts=attributed(movements_in(movements), legs, {}))
    assert realized(closed, "s")[0] == stated_profit


def test_a_strategy_that_is_called_total_has_its_own_profit() -> None:
    legs = [leg(CALL, "total")]
    elsewhere = replace(SOLD, conid=9, realized_pnl=7.0)
    of_accounts = closes(EXPIRED, elsewhere, legs=legs)
    money = book_of([row(CALL)], legs, closes=of_accounts)
    assert [sums.realized_pnl for sums in (*money.strategies, *money.totals)] == [-112.0, -105.0]


def test_realised_profit_is_a_column() -> None:
    read_book = book(closes(EXPIRED, _1=end(EXPIRED)))
    table = fitted_table(*sums_table("strategy", [*read_book.strategies, *read_book.totals]), 160)
    heading, condor, *_rest = shown(table, 160)
    assert "realised" in heading.split()
    assert "-112" in condor.split()
    (of_one,) = book(closes(EXPIRED, _1=end(EXPIRED)), "condor").totals
    assert of_one.realized_pnl == (-112.0)
    assert of_one.closes == 1
