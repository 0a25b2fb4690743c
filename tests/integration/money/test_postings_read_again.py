"""Postings that are read again, or as of a moment: made anew is only what has changed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from position_sync_dagster.domain.execution import Execution
from position_sync_dagster.domain.instrument import Right
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.past import owned_parts
from position_sync_dagster.money.past.closes import Cause, Closure, Stage
from position_sync_dagster.money.past.movement_book import MovementBook
from position_sync_dagster.money.past.movements import MovementKind
from position_sync_dagster.money.past.owned_parts import PostingBook
from position_sync_dagster.money.past.postings import Posting
from tests.support.legs import leg
from tests.unit.money.campaigns.test_closed_campaigns import PUT, moved
from tests.unit.money.past.test_causes import (
    ACCOUNT,
    CALL,
    FRIDAY,
    NOON,
    OTHER,
    change,
    details,
    fill,
)

CALL_TERMS = {"right": Right.CALL, "strike": 575.0, "expiry": FRIDAY}
AN_HOUR = timedelta(hours=1)


def store(lake: MoneyLake, executions: Iterable[Execution]) -> None:
    lake.executions.add(executions)
    MovementBook(lake).update()


def buy(conid: int) -> Execution:
    return fill(conid, 2, order_id=f"{conid}", multiplier=100.0)


def trade(lake: MoneyLake) -> None:
    store(lake, [fill(CALL, -1, order_id="72", multiplier=100.0)])


def correct_trade(lake: MoneyLake) -> None:
    """The broker gives the same execution another price."""
    bought = buy(CALL)
    execution_id = bought.execution_id.replace(".01", ".02")
    store(lake, [replace(bought, execution_id=execution_id, price=1.6)])


def add_leg(lake: MoneyLake) -> None:
    lake.registry.sync.add_many([leg(CALL, "b", quantity=1.0, **CALL_TERMS)])


def learn_contract(lake: MoneyLake) -> None:
    """Its leg is of another contract."""
    lake.contracts.put([details(CALL, symbol="QQQ")])


def see_what_was_held(lake: MoneyLake) -> None:
    lake.position_changes.add([change(CALL, 1.0, 3.0, NOON - AN_HOUR)])


def see_it_gone(lake: MoneyLake) -> None:
    closure = Closure(
        change_id="c", account=ACCOUNT, conid=CALL, symbol="SPY", sec_type="OPT",
        closed_at=NOON + AN_HOUR, quantity=2.0, cause=Cause.UNEXPLAINED,
        stage=Stage.PROVISIONAL, detail="", currency="USD", **CALL_TERMS,
    )  # fmt: skip
    lake.position_changes.add([change(CALL, 2.0, 0.0, NOON + AN_HOUR)])
    lake.closures.add([closure])


CHANGES = [trade, correct_trade, add_leg, learn_contract, see_what_was_held, see_it_gone]


def by_id(postings: list[Posting]) -> Mapping[str, Posting]:
    return {posting.posting_id: posting for posting in postings}


@pytest.mark.parametrize("happens", CHANGES, ids=lambda happens: happens.__name__)
def test_what_changed_is_made_anew_and_nothing_else(
    lake: MoneyLake, happens: Callable[[MoneyLake], None]
) -> None:
    lake.registry.sync.add_many([leg(CALL, "a", **CALL_TERMS), leg(OTHER, "o", strike=580.0)])
    store(lake, [buy(CALL), buy(OTHER)])
    before = by_id(PostingBook(lake).postings())

    happens(lake)
    after = by_id(PostingBook(lake).postings())
    assert after == by_id(PostingBook(MoneyLake(lake.path)).postings())
    assert after != before
    of_other = [name for name, posting in after.items() if posting.key[1] == OTHER]
    assert of_other
    assert all(after[name] is before[name] for name in of_other)


def test_of_groups_that_an_order_joined_only_the_joined_one_is_remembered(lake: MoneyLake) -> None:
    store(lake, [buy(CALL), buy(OTHER)])
    PostingBook(lake).postings()
    assert owned_parts._remembered(lake).keys() == {CALL, OTHER}

    sold = [fill(conid, -1, order_id="72", multiplier=100.0) for conid in (CALL, OTHER)]
    store(lake, sold)
    PostingBook(lake).postings({OTHER})
    assert owned_parts._remembered(lake).keys() == {min(CALL, OTHER)}


@pytest.mark.parametrize(
    ("kind", "until", "is_counted"),
    [
        (MovementKind.TRADE, datetime(2026, 3, 4, 16, tzinfo=UTC), False),
        (MovementKind.TRADE, datetime(2026, 3, 4, 18, tzinfo=UTC), True),
        (MovementKind.CASH_SETTLEMENT, datetime(2026, 3, 5, 2, tzinfo=UTC), False),
        (MovementKind.CASH_SETTLEMENT, datetime(2026, 3, 5, 5, tzinfo=UTC), True),
    ],
)
def test_of_a_past_moment_a_trade_of_a_day_counts_from_noon_and_a_booking_from_its_end(
    lake: MoneyLake, kind: MovementKind, until: datetime, *, is_counted: bool
) -> None:
    """In New York, where only the day is known."""
    lake.movements.derive(lambda: [moved(PUT, -1.0, 2.0, 4, at=None, kind=kind)])
    assert bool(PostingBook(lake, until).postings()) is is_counted
