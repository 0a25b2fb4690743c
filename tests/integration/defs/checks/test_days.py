"""The check of the recorded days."""

from datetime import UTC, date, datetime

import pytest

from position_sync_dagster.defs.assets.past_days import (
    daily_asset,
    days_are_complete,
    exchange_partitions,
)
from position_sync_dagster.sync.reports.exchange_days import exchange_days
from tests.support.flex_files import statement

DAYS = exchange_days("XNYS", date(2025, 1, 1), date(2026, 12, 31))
DAILY = daily_asset(exchange_partitions(DAYS, date(2025, 1, 2)))


def test_the_check_reads_the_table_and_the_calendar(materialize, append_row, monkeypatch) -> None:
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-03-05")
    append_row(1, datetime(2026, 3, 5, 20, tzinfo=UTC))
    week = {
        "dagster/asset_partition_range_start": "2026-03-05",
        "dagster/asset_partition_range_end": "2026-03-06",
    }
    result = materialize(DAILY, days_are_complete, tags=week)
    (found,) = result.get_asset_check_evaluations()
    assert not found.passed
    assert "1 only older values" in found.description
    assert "statements of 2026-03-06 to " in found.description
    assert found.metadata["only_older_values"].value == 1


def test_values_of_the_evening_before_are_older_than_the_day_of_the_exchange(
    materialize, append_row, monkeypatch
) -> None:
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-03-05")
    append_row(1, datetime(2026, 3, 5, 2, tzinfo=UTC))  # nine in the evening in New York
    result = materialize(DAILY, days_are_complete, partition_key="2026-03-05")
    (found,) = result.get_asset_check_evaluations()
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
    materialize, append_row, monkeypatch, calendar, hour, first
) -> None:
    """Eleven at night, UTC, is the next morning in Tokyo."""
    monkeypatch.setenv("POSITION_SYNC_CALENDAR", calendar)
    append_row(1, datetime(2026, 3, 5, hour, tzinfo=UTC))
    append_row(2, datetime(2026, 3, 6, 5, tzinfo=UTC))
    result = materialize(DAILY, days_are_complete, partition_key="2026-03-06")
    (found,) = result.get_asset_check_evaluations()
    assert f"statements of {first} to " in found.description


def test_a_day_on_which_nothing_was_held_as_a_statement_says_is_complete(
    materialize, append_row, monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("POSITION_SYNC_DAILY_START", "2026-03-05")
    monkeypatch.setenv("POSITION_SYNC_FLEX_FOLDER", str(tmp_path))
    for day in ("20260305", "20260306"):
        (tmp_path / f"{day}.xml").write_bytes(statement(first=day, generated=f"{day};210000"))
    append_row(1, datetime(2026, 3, 6, 20, tzinfo=UTC))  # this day has a row, and is not filled
    result = materialize(DAILY, days_are_complete, partition_key="2026-03-05")
    (event,) = result.asset_materializations_for_node("daily_positions")
    assert event.metadata["dagster/partition_row_count"].value == 0
    (found,) = result.get_asset_check_evaluations()
    assert "statements of 2026-03-06 to " in found.description
    (tmp_path / "bad.xml").write_text("<cut")
    result = materialize(DAILY, days_are_complete, partition_key="2026-03-05")
    (again,) = result.get_asset_check_evaluations()
    assert again.metadata["missing"].value == found.metadata["missing"].value
