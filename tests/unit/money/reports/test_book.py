"""The names of holdings in columns."""

from datetime import date

import pytest
from polars import DataFrame, Date, Float64, String

from position_sync_dagster.domain.instrument import leg_name
from position_sync_dagster.money.past.postings import names_of

TERMS = {"symbol": String, "right": String, "strike": Float64, "expiry": Date}


@pytest.mark.parametrize(
    "terms",
    [
        ("ZB", "PUT", 119.515625, date(2028, 12, 5)),
        ("SPX", "CALL", 10_000.0, date(2026, 1, 31)),
        ("BRK B", None, None, None),
        ("ES", None, None, date(2027, 3, 19)),
        ("XYZ", None, 0.1 + 0.2, None),
    ],
)
def test_a_name_of_a_row_is_that_of_its_contract(terms):
    rows = DataFrame([terms, ("SPY", "PUT", 575.0, date(2028, 12, 15))], TERMS, orient="row")
    assert rows.select(names_of(rows)).to_series().to_list() == [
        leg_name(*terms), "SPY 575P 15Dec28",
    ]  # fmt: skip
