"""When a derived table is made again: where what was read of its sources changed, not elsewhere."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from position_sync_dagster.errors import CommitContentionError
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.derived import derive, derive_from_ledger
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage import merges
from position_sync_dagster.lake.storage.opening import Upkeep
from position_sync_dagster.lake.storage.table import Table
from tests.support.derived_rows import put_rows

CLOSE = datetime(2026, 3, 6, 21, tzinfo=UTC)


@pytest.fixture
def lake(lake) -> Lake:
    """Return the tables; few files are merged."""
    return Lake(lake.path, fsync=False, upkeep=Upkeep(compact_from=2))


def rows_of(*versions: int) -> pl.DataFrame:
    names = LATEST_POSITIONS.columns
    rows = [
        dict.fromkeys(names) | {"account": "U1", "conid": place, "ledger_version": version}
        for place, version in enumerate(versions)
    ]
    return pl.DataFrame(rows, schema=LATEST_POSITIONS.polars)


@pytest.fixture
def look(lake) -> Callable[[Callable[[], object]], int]:
    """Derive from the ledger until the close, while something is done at each look."""

    def derived_while(meanwhile: Callable[[], object]) -> int:
        looks = []

        def make() -> pl.DataFrame:
            stored = lake.updates.sync.last_before(CLOSE)
            looks.append(stored.height)
            meanwhile()
            return rows_of(*stored["ledger_version"])

        derive(lake.derived_table(LATEST_POSITIONS), make)
        return len(looks)

    return derived_while


def test_rows_that_are_appended_elsewhere_and_merges_hold_nothing_up(lake, make_update, look):
    append = lake.updates.sync.append
    append([make_update(1, timestamp=CLOSE - timedelta(hours=1))])
    append([make_update(2, timestamp=CLOSE - timedelta(hours=2))])
    later = iter(range(1, 9))

    def append_later() -> None:
        at = CLOSE + timedelta(seconds=next(later))
        append([make_update(3, timestamp=at)])

    assert look(append_later) == 1
    assert look(lambda: merges.compact(lake.updates.table, merges.SMALL_BYTES)) == 1


def test_a_row_that_is_added_to_what_was_read_is_read(lake, make_update, look):
    append = lake.updates.sync.append
    append([make_update(1, timestamp=CLOSE - timedelta(hours=1))])
    late = iter([make_update(2, timestamp=CLOSE - timedelta(hours=2))])
    assert look(lambda: append(list(late))) == 2
    assert lake.derived_table(LATEST_POSITIONS).count() == 2


def test_sources_that_change_at_each_look_end_it_with_an_error(lake, make_update, look):
    hours = iter(range(1, 20))

    def append_before() -> None:
        conid = next(hours)
        at = CLOSE - timedelta(hours=conid)
        lake.updates.sync.append([make_update(conid, timestamp=at)])

    with pytest.raises(CommitContentionError, match="what it is made of"):
        look(append_before)
    assert next(hours) == derived.ATTEMPTS + 1
    assert lake.derived_table(LATEST_POSITIONS).count() == 0


@pytest.mark.parametrize(("own", "stays"), [(4, 5), (9, 9)], ids=["older", "newer"])
def test_of_two_looks_at_the_ledger_the_last_one_stays_and_says_its_version(lake, own, stays):
    table = lake.derived_table(LATEST_POSITIONS)
    changes = iter(range(1, 9))

    def overtaken() -> pl.DataFrame:
        put_rows(table, rows_of(*[5] * next(changes)))
        return rows_of(own)

    _made, replaced = derive_from_ledger(table, overtaken)
    assert replaced.ledger_version == stays
    assert table.rows()["ledger_version"].max() == stays
    assert (replaced.version, replaced.rows) == (table.version(), table.count())


def test_a_later_look_reads_the_versions_alone_of_the_rows_that_it_replaces(lake, monkeypatch):
    table = lake.derived_table(LATEST_POSITIONS)
    put_rows(table, rows_of(1, 2))
    read = []

    def noting(table: Table, files: pl.DataFrame, columns: object = None, *more: Any) -> Any:
        read.append(columns)
        return usual(table, files, columns, *more)

    usual = Table.read_rows
    monkeypatch.setattr(Table, "read_rows", noting)
    for is_new in (True, False):
        _made, replaced = derive_from_ledger(table, lambda: rows_of(1, 3))
        assert (replaced.changed, replaced.ledger_version) == (is_new, 3)
        assert read.count(None) == (not is_new)
