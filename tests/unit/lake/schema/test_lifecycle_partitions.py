"""Live and finished rows: the columns and predicates that tell them apart."""

import polars as pl

from position_sync_dagster.lake.schema.codec import (
    IS_LIVE,
    LIVE_COLUMNS,
    MOST_TERMS,
    PartRange,
    in_bucket,
    in_parts,
    is_finished,
    ranges_of,
)

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 3, 4],
        "bucket": ["live", "SUCCESS", "SUCCESS", "FAILED"],
        "part": ["0", "a", "b", "a"],
    }
)


def matches(predicate: str) -> list[int]:
    return ROWS.filter(pl.sql_expr(predicate)).get_column("id").to_list()


def test_each_predicate_matches_its_rows_only():
    assert matches(IS_LIVE) == [1]
    assert matches(is_finished()) == [2, 3, 4]
    assert matches(is_finished("id = 1 OR id = 2")) == [2]
    assert matches(in_bucket("SUCCESS")) == [2, 3]
    assert matches(in_parts("SUCCESS", ["a"])) == [2]
    assert matches(in_parts("SUCCESS", ["a", "b"])) == [2, 3]
    assert matches(f"{IS_LIVE} OR {in_parts('FAILED', ['a'])}") == [1, 4]


def test_rows_get_the_columns_of_their_partition():
    live = ROWS.with_columns(*LIVE_COLUMNS)
    assert live.filter(pl.sql_expr(IS_LIVE)).height == ROWS.height
    finished = live.with_columns(bucket=pl.lit("closed"))
    assert finished.filter(pl.sql_expr(in_bucket("closed"))).height == ROWS.height


def test_a_range_matches_all_parts_between_its_ends_and_no_other_bucket():
    assert matches(PartRange("SUCCESS", "a", "b").predicate) == [2, 3]
    assert matches(PartRange("SUCCESS", "b", "b").predicate) == [3]


def test_a_few_parts_are_ranges_of_their_own_and_many_are_one_range():
    few = [f"part-{n:03}" for n in range(MOST_TERMS)]
    assert [(one.first, one.last) for one in ranges_of("FAILED", reversed(few))] == [
        (name, name) for name in few
    ]
    [one] = ranges_of("FAILED", [*few, "part-999"])
    assert (one.first, one.last) == ("part-000", "part-999")
