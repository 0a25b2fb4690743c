"""Rows of values: what a column holds is what Polars makes of the values itself."""

from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import polars as pl

from position_sync_dagster.lake.schema import (
    BROKER_POSITIONS,
    broker_positions_of,
    rows_of_positions,
)
from tests.support.holdings import make_holding

AT = datetime(2026, 3, 4, 15, 30, 1, 999999, tzinfo=UTC)


holding = partial(make_holding, at=AT)


def test_times_are_stored_to_the_microsecond_in_utc():
    india = timezone(timedelta(hours=5, minutes=30))
    listed = [
        holding(1, value_time=AT.astimezone(india), confirmed_at=None),
        holding(2, received_at=datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC)),
        holding(3, received_at=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ]
    rows = rows_of_positions(listed, None)
    assert broker_positions_of(rows) == listed
    for name in ("received_at", "position_time", "value_time", "confirmed_at"):
        kind = BROKER_POSITIONS.polars[name]
        of_polars = pl.Series(name, [getattr(row, name) for row in listed], kind)
        assert rows[name].equals(of_polars, check_dtypes=True)


def test_no_rows_have_the_columns_of_the_table():
    assert rows_of_positions([], None).schema == BROKER_POSITIONS.polars
