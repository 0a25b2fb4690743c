"""What a statement says of the end of an option, as movements."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
import time_machine

from ib_gateway_simulator.clearing.activity_statement import statement_xml
from ib_gateway_simulator.clearing.back_office import BackOffice
from ib_gateway_simulator.clearing.securities import Category, Security
from position_sync_dagster.domain.movements import Movement, MovementKind
from position_sync_dagster.gateway.flex import read_statements
from position_sync_dagster.sync.movement_sources import Terms, stated_movements

ACCOUNT, FRIDAY = "DUSIM0001", date(2026, 12, 18)
EVENING = datetime(2026, 12, 18, 21, 20, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _friday_is_past() -> Iterator[None]:
    with time_machine.travel(datetime(2026, 12, 20, tzinfo=UTC)):
        yield


def movements_of(under: Security) -> list[Movement]:
    """Return the movements of an assigned put on a security."""
    put = Security(
        conid=7, symbol="PUT", category=Category.FUTURE_OPTION, currency="USD",
        multiplier=Decimal(50), underlying=under, strike=Decimal(6775), right="P",
        expiry="20261218",
    )  # fmt: skip
    office = BackOffice({ACCOUNT: "USD"}, lambda *_pair: Decimal(1))
    office.trade(ACCOUNT, put, Decimal(-2), Decimal(80), EVENING)
    office.end_option(ACCOUNT, put, EVENING, level=Decimal("6602.97"))
    books = office.close(FRIDAY, lambda _security: Decimal("6602.97"))

    content = statement_xml(books, office.securities, made=EVENING)
    (statement,) = read_statements(content, "friday.xml")
    terms = Terms(session_of=lambda day: day, zone=UTC)
    return stated_movements(statement.executions, statement.events, terms)


def test_a_future_that_an_option_delivers_is_a_delivery_and_names_its_option():
    future = Security(
        conid=8, symbol="ESH7", category=Category.FUTURE, currency="USD", multiplier=Decimal(50),
        expiry="20270319",
    )  # fmt: skip
    of_future = [one for one in movements_of(future) if one.conid == future.conid]
    assert {one.kind for one in of_future} == {MovementKind.ASSIGNMENT}
    assert {one.counter_conid for one in of_future} == {7}
