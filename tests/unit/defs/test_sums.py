"""Whether the sums of the derived tables equal those of the holdings."""

import polars as pl

from position_sync_dagster.defs.checks.limits import judge_exposure, judge_latest
from position_sync_dagster.domain.leg import UNATTRIBUTED, ActiveContract
from position_sync_dagster.domain.update import PositionUpdate
from position_sync_dagster.lake.lake import NO_HOLDINGS
from position_sync_dagster.lake.schema.codec import frame_of, update_rows
from position_sync_dagster.lake.schema.tables import STRATEGY_EXPOSURE
from position_sync_dagster.sync.reports.exposure import exposures, split
from position_sync_dagster.sync.reports.overview import Book
from tests.support.legs import leg
from tests.support.money_rows import NOW, priced_rows, row

ROWS = [
    row(1, market_value=0.1, delta=None, daily_pnl=None),
    row(2, market_value=-246_900.35, greeks_source="GATEWAY"),
    row(3, sec_type="FUT", right=None, market_value=5e6, account="DU2"),
    row(4, currency="EUR", position=3.0, market_value=0.2),
]
LEGS = [leg(1, "a", quantity=-1.0), leg(1, "b"), leg(2, "a"), leg(3, "b")]


def book(rows: list[PositionUpdate], legs: list[ActiveContract]) -> Book:
    latest = priced_rows(rows)
    return Book(
        now=NOW,
        priced=latest,
        reported=NO_HOLDINGS,
        legs=tuple(legs),
        matching=tuple(legs),
        split=split(legs, latest),
        streamed=None,
    )


def published(found: Book) -> pl.DataFrame:
    return frame_of(STRATEGY_EXPOSURE, exposures(found.split, NOW))


def differing(rows: pl.DataFrame, found: Book) -> list[tuple[str, str, str, str]]:
    result = judge_exposure(rows, found)
    table = result.metadata.get("rows")
    return [] if table is None else [tuple(record.data.values()) for record in table.records]


def test_the_strategies_and_the_rest_are_all_holdings() -> None:
    found = book(ROWS, LEGS)
    assert UNATTRIBUTED in published(found)["strategy_id"]
    assert judge_exposure(published(found), found).passed
    assert judge_exposure(published(book([], [])), book([], [])).passed


def test_a_sum_that_lacks_a_part_is_named_with_each_number() -> None:
    found = book(ROWS, LEGS)
    without = published(found).filter(~pl.col("currency").eq("EUR"))
    names = [row[:3] for row in differing(without, found)]
    assert ("DUSIM0001", "EUR", "market_value") in names
    assert {(account, currency) for account, currency, _sum in names} == {("DUSIM0001", "EUR")}
    wrong = pl.col("market_value") + pl.when(pl.col("strategy_id") == "b").then(0.01).otherwise(0)
    (one,) = differing(published(found).with_columns(market_value=wrong), found)
    assert one[:3] == ("DUSIM0001", "USD", "market_value")
    assert [round(float(text), 6) for text in one[3:]] == [-246900.24, -246900.25, -246900.25]


def test_an_unknown_sum_is_no_zero() -> None:
    found = book([row(1, daily_pnl=None)], [])
    zero = published(found).with_columns(daily_pnl=pl.lit(0.0))
    (one,) = differing(zero, found)
    assert one == ("DUSIM0001", "USD", "daily_pnl", "0.0", "", "")


def of_ledger(*versions: int, **values: float) -> pl.DataFrame:
    rows = [row(conid, **values) for conid, _version in enumerate(versions, start=1)]
    return update_rows(rows).with_columns(pl.Series("ledger_version", versions, pl.Int64))


def test_the_newest_rows_have_the_sums_of_the_ledger_but_for_what_came_later() -> None:
    table, ledger = of_ledger(5, 7), of_ledger(5, 7)
    assert judge_latest(table, ledger).passed
    assert judge_latest(table.clear(), ledger.clear()).passed
    assert judge_latest(table, of_ledger(5, 8, market_value=1.0)[1:].vstack(ledger[:1])).passed
    assert not judge_latest(pl.concat([table, table[:1]]), ledger).passed
    assert not judge_latest(table[1:], ledger).passed
    assert not judge_latest(of_ledger(5, 7, market_value=1.0), ledger).passed
