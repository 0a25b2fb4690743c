"""The check of the recorded days."""

from datetime import UTC, datetime

import pytest

from position_sync_dagster.defs.assets.past_days import days_are_complete
from tests.integration.defs.assets.test_daily_positions import DAILY, partition_range
from tests.support.flex_files import statement


@pytest.fixture
def fill(materialize):
    """Fill days; return the result and the evaluation of their check."""

    def run(**days):
        result = materialize(DAILY, days_are_complete, **days)
        (found,) = result.get_asset_check_evaluations()
        return result, found

    return run


def test_the_check_reads_the_table_and_the_calendar(fill, append_row, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-03-05")
    append_row(1, datetime(2026, 3, 5, 20, tzinfo=UTC))
    _result, found = fill(tags=partition_range("2026-03-05", "2026-03-06"))
    assert not found.passed
    assert "1 only older values" in found.description
    assert "statements of 2026-03-06 to " in found.description
    assert found.metadata["only_older_values"].value == 1


def test_values_of_the_evening_before_are_older_than_the_day_of_the_exchange(
    fill, append_row, monkeypatch
):
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-03-05")
    append_row(1, datetime(2026, 3, 5, 2, tzinfo=UTC))  # nine in the evening in New York
    _result, found = fill(partition_key="2026-03-05")
    assert found.metadata["only_older_values"].value == 1


@pytest.mark.parametrize(
    ("calendar", "hour", "first"),
    [
        ("XNYS", 20, "2026-03-05"),
        ("XNYS", 22, "2026-03-09"),
        ("XTKS", 5, "2026-03-05"),
        ("XTKS", 23, "2026-03-09"),
    ],
)
def test_a_ledger_that_begins_after_the_close_of_a_day_does_not_miss_that_day(
    fill, append_row, monkeypatch, calendar, hour, first
):
    """Eleven at night, UTC, is the next morning in Tokyo."""
    monkeypatch.setenv("POSITION_SYNC_CALENDAR", calendar)
    append_row(1, datetime(2026, 3, 5, hour, tzinfo=UTC))
    append_row(2, datetime(2026, 3, 6, 5, tzinfo=UTC))
    _result, found = fill(partition_key="2026-03-06")
    assert f"statements of {first} to " in found.description


def test_a_day_on_which_nothing_was_held_as_a_statement_says_is_complete(
    fill, append_row, monkeypatch, tmp_path
):
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-03-05")
    monkeypatch.setenv("POSITION_SYNC_FLEX_FOLDER", str(tmp_path))
    for day in ("20260305", "20260306"):
        (tmp_path / f"{day}.xml").write_bytes(statement(first=day, generated=f"{day};210000"))
    append_row(1, datetime(2026, 3, 6, 20, tzinfo=UTC))  # this day has a row, and is not filled
    result, found = fill(partition_key="2026-03-05")
    (event,) = result.asset_materializations_for_node("daily_positions")
    assert event.metadata["dagster/partition_row_count"].value == 0
    assert "statements of 2026-03-06 to " in found.description
    (tmp_path / "bad.xml").write_text("<cut")
    _result, again = fill(partition_key="2026-03-05")
    assert again.metadata["missing"].value == found.metadata["missing"].value
