"""The newest rows of some contracts: found at a cost that does not grow, and not written over."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from position_sync_dagster.errors import NewerRowError
from position_sync_dagster.lake import position_updates

HOUR = timedelta(hours=1)


@pytest.fixture
def rows_decided(monkeypatch):
    """Return a list that grows by the number of rows each time newest rows are looked for."""
    decided, decide = [], position_updates.newest_rows

    def counted(rows: pl.LazyFrame) -> pl.DataFrame:
        decided.append(rows.select(pl.len()).collect().item())
        return decide(rows)

    monkeypatch.setattr(position_updates, "newest_rows", counted)
    return decided


def held(ledger, clock, *conids):
    found = ledger.newest_of(conids, clock.now - HOUR).rows
    return {conid: row.position for (_, conid), row in found.items()}


@pytest.mark.parametrize("book", [50, 1_000])
def test_new_rows_are_compared_with_those_of_their_holdings_however_large_the_book_is(
    open_ledger, make_update, clock, rows_decided, book
):
    writer, reader = open_ledger(), open_ledger()
    writer.append(make_update(conid) for conid in range(1, book + 1))
    assert len(reader.latest()) == len(held(reader, clock, *range(1, book + 1))) == book
    rows_decided.clear()
    clock.advance(1)
    writer.append([make_update(7, position=7.0), make_update(3, position=3.0)])
    clock.advance(1)
    writer.append([make_update(book + 1), make_update(3, position=4.0)])
    newest = reader.latest()
    assert held(reader, clock, 3, 7, 8, book + 1) == {3: 4.0, 7: 7.0, 8: 1.0, book + 1: 1.0}
    assert newest["conid"].to_list() == list(range(1, book + 2))
    assert_frame_equal(newest, open_ledger().latest())
    assert rows_decided[0] == 6


def test_a_row_that_was_added_since_forbids_one_of_the_same_holding_only(
    open_ledger, make_update, clock
):
    writer, other = open_ledger(), open_ledger()
    writer.append([make_update(1), make_update(2)])
    through = writer.newest_of([1, 2], clock.now - HOUR).through
    other.append([make_update(1, position=0.0, update_id="zero")])
    with pytest.raises(NewerRowError, match="conid 1 "):
        writer.append([make_update(1, update_id="a"), make_update(2, update_id="b")],
                      through=through)  # fmt: skip
    assert writer.count() == 3
    assert writer.append([make_update(2, update_id="b")], through=through).rows == 1
    through = writer.newest_of([1], clock.now - HOUR).through
    assert writer.append([make_update(1, update_id="a")], through=through).rows == 1
    assert writer.append([make_update(1, update_id="a")], through=through).rows == 0
