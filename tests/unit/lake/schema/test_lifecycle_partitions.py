"""Live and finished rows: the columns and predicates that tell them apart."""

import polars as pl

from position_sync_dagster.lake.schema.predicates import (
    IS_LIVE,
    LIVE_COLUMNS,
    MOST_TERMS,
    among,
    around_parts,
    in_bucket,
    in_parts,
    is_finished,
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


def test_a_few_values_are_named_and_many_are_the_range_that_they_span():
    few = [str(number) for number in range(2, 2 + MOST_TERMS)]
    assert matches(among("id", few)) == [2, 3, 4]
    assert among("id", few).count(",") == MOST_TERMS - 1
    assert among("id", ["1", *few]) == f"id >= 1 AND id <= {few[-1]}"
    assert matches(among("id", ["1", *few])) == [1, 2, 3, 4]
    assert matches(among("id", ["1", "3"])) == [1, 3]
    assert matches(among("id", [])) == []


def test_parts_are_those_of_one_bucket_and_many_include_all_between_them():
    assert matches(around_parts("SUCCESS", ["b", "a", "b"])) == [2, 3]
    assert matches(around_parts("SUCCESS", ["b"])) == [3]
    many = [f"a{number:03}" for number in range(MOST_TERMS - 1)]
    assert matches(around_parts("SUCCESS", [*many, "a"])) == [2]
    assert matches(around_parts("SUCCESS", [*many, "a", "c"])) == [2, 3]
