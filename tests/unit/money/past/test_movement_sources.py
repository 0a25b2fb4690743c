"""What a statement says of the end of an option, as movements."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import time_machine

from ib_gateway_simulator.clearing.activity_statement import FlexQuery, statement_xml
from ib_gateway_simulator.clearing.back_office import BackOffice
from ib_gateway_simulator.clearing.securities import Category, Security
from position_sync_dagster.money.past.closes import Statement
from position_sync_dagster.money.past.flex import read_statements
from position_sync_dagster.money.past.movement_sources import Terms, completed
from position_sync_dagster.money.past.movements import (
    DELIVERY_KINDS,
    Movement,
    MovementKind,
    Section,
    StatedSection,
    counting_movements,
)
from tests.year.exchanges import NEW_YORK

DAILY = FlexQuery()
TERMS = Terms(session_of=lambda day: day, zone=UTC)
ACCOUNT = "DUSIM0001"
FRIDAY = date(2026, 12, 18)
EVENING = datetime(2026, 12, 18, 16, 20, tzinfo=NEW_YORK)
LATER = datetime(2026, 12, 24, 2, 10, tzinfo=NEW_YORK)
ENDS = DELIVERY_KINDS | {MovementKind.CASH_SETTLEMENT}


@pytest.fixture(autouse=True)
def _friday_is_past() -> Iterator[None]:
    with time_machine.travel(datetime(2026, 12, 25, tzinfo=UTC)):
        yield


FUTURE = Security(
    conid=8, symbol="ESH7", category=Category.FUTURE, currency="USD", multiplier=Decimal(50),
    expiry="20270319",
)  # fmt: skip
INDEX = Security(conid=9, symbol="SPX", category=Category.INDEX, currency="USD")


def movements_of(under: Security, query: FlexQuery = DAILY) -> list[Movement]:
    """Return the movements of an assigned put on a security, as a statement names them."""
    return [*statement_of(under, query).movements]


def statement_of(
    under: Security, query: FlexQuery = DAILY, file: str = "friday.xml", made: datetime = EVENING
) -> Statement:
    """Return a statement of an assigned put on a security."""
    is_of_future = under.category is Category.FUTURE
    put = Security(
        conid=7, symbol="PUT", currency="USD", multiplier=Decimal(50), underlying=under,
        category=Category.FUTURE_OPTION if is_of_future else Category.OPTION,
        strike=Decimal(6775), right="P", expiry="20261218",
    )  # fmt: skip
    office = BackOffice({ACCOUNT: "USD"}, lambda *_pair: Decimal(1))
    office.trade(ACCOUNT, put, Decimal(-2), Decimal(80), EVENING)
    office.end_option(ACCOUNT, put, EVENING, level=Decimal("6602.97"))
    books = office.close(FRIDAY, lambda _security: Decimal("6602.97"))

    content = statement_xml(books, office.securities, made=made, query=query)
    (statement,) = read_statements(content, file)
    return statement


def test_a_future_that_an_option_delivers_is_a_delivery_and_names_its_option():
    of_future = [movement for movement in movements_of(FUTURE) if movement.conid == FUTURE.conid]
    assert {campaign.kind for campaign in of_future} == {MovementKind.ASSIGNMENT}
    assert {one.counter_conid for one in of_future} == {7}


@pytest.mark.parametrize("is_stated", [True, False], ids=["stated", "stated as 0"])
def test_a_future_costs_its_notional_also_where_a_query_states_none(*, is_stated: bool):
    moved = movements_of(FUTURE, replace(DAILY, futures_at_notional=is_stated))
    [read] = [row for row in moved if row.conid == FUTURE.conid and row.section is Section.TRADES]
    traded = completed(read, TERMS)
    assert traded.cash == -2 * 50 * 6775


def test_a_settlement_in_cash_has_the_time_at_which_its_option_ended_and_delivers_nothing():
    counting = [
        stated_movement
        for stated_movement in counting_movements(movements_of(INDEX), [])
        if stated_movement.kind in ENDS
    ]
    [settled] = [end for end in counting if end.cash]
    assert settled.cash == pytest.approx(-2 * 50 * (6775 - 6602.97))
    assert settled.at == EVENING
    assert settled.quantity == 0
    assert {campaign.kind for campaign in counting} == {MovementKind.CASH_SETTLEMENT}
    quantities: list[Any] = [one.quantity for one in counting]
    assert sorted(quantities) == [0, 2]


def test_an_end_that_another_statement_than_that_of_its_settlement_names_delivers_nothing():
    daily = statement_of(INDEX)
    week = statement_of(INDEX, file="week.xml", made=LATER)
    of_week = [movement for movement in week.movements if movement.section is Section.TRADES]
    covered = []
    for section, file, at in (
        (Section.OPTION_EVENTS, "friday.xml", EVENING),
        (Section.TRADES, "friday.xml", EVENING),
        (Section.TRADES, "week.xml", LATER),
    ):
        covered.append(StatedSection(account=ACCOUNT, section=section, first=FRIDAY, last=FRIDAY,
                                     statement=file, stated_at=at))  # fmt: skip

    stated = [*daily.movements, *of_week]
    counting = [
        stated_movement
        for stated_movement in counting_movements(stated, covered)
        if stated_movement.kind in ENDS
    ]
    assert {(campaign.kind, campaign.statement, campaign.quantity) for campaign in counting} == {
        (MovementKind.CASH_SETTLEMENT, "week.xml", 2.0),
        (MovementKind.CASH_SETTLEMENT, "friday.xml", 0.0),
    }
