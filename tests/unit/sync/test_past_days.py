"""Past days: under what their differences from stated positions are recorded."""

from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest
from polars import DataFrame

from position_sync_dagster.defs.assets.past_days import describe
from position_sync_dagster.lake.schema import DAILY_POSITIONS
from position_sync_dagster.sync.past_days import ClosedDay, ClosingService

DAY = date(2026, 3, 5)
AT = datetime(2026, 3, 5, 21, tzinfo=UTC)


class OfCustodian(ClosingService):
    """A source of somebody else, with its own name."""

    source_name = "custodian"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (ClosingService, "stated:2026-03-05"),
        (OfCustodian, "custodian:2026-03-05"),
    ],
)
def test_differences_of_a_day_are_recorded_under_the_name_of_their_source(source, name):
    recorded = []
    breaks = SimpleNamespace(record=lambda found, *_, **__: recorded.append(found))
    service = source(SimpleNamespace(breaks=breaks), SimpleNamespace(), clock=lambda: AT)
    service.record_differences({DAY: ClosedDay(closed_at=AT, rows=DataFrame())})
    assert recorded == [{name: ()}]


def test_the_event_of_a_day_says_of_a_source_what_the_source_says_and_nothing_else():
    of_ledger = ClosedDay(closed_at=AT, rows=DAILY_POSITIONS.empty)
    completed = ClosedDay(closed_at=AT, rows=DAILY_POSITIONS.empty, of_source={"from_custodian": 2})
    assert describe(completed)["from_custodian"] == 2
    assert describe(completed).keys() - describe(of_ledger).keys() == {"from_custodian"}
    assert not [name for name in describe(of_ledger) if "statement" in name]
