"""The names of holdings in columns, and their days to an expiry."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from polars import DataFrame, Date, Float64, String

from position_sync_dagster.domain.instrument import leg_name
from position_sync_dagster.money.past.postings import names_of
from position_sync_dagster.money.reports.book import position_rows
from tests.support.money_rows import book_of, row

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


@pytest.mark.parametrize(("calendar", "days"), [("XNYS", 2), ("XHKG", 1)])
def test_the_days_to_an_expiry_count_from_today_at_the_exchange_of_the_calendar(calendar, days):
    """At 02:00 UTC on 5 March it is the 5th in Hong Kong, and still the 4th in New York."""
    now = datetime(2026, 3, 5, 2, tzinfo=UTC)
    book = replace(book_of([row(1, expiry=date(2026, 3, 6))], []), now=now, calendar=calendar)
    (of_expiry,) = book.expiries
    assert of_expiry.days == days
    assert position_rows(book.priced, book)["days"].to_list() == [days]
