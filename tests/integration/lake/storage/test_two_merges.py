"""Two merges of the same files: one counts, whoever stands still meanwhile; and what if not."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from position_sync_dagster.domain.broker_position import AccountSummary
from position_sync_dagster.domain.update import PositionUpdate, QueueRequest
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.storage import maintenance, writer_lock
from position_sync_dagster.lake.storage.maintenance import maintain
from position_sync_dagster.lake.storage.table import Table
from tests.support.extent import EVERYTHING
from tests.support.lake_processes import Worker, workers

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
COMMITS = 9
PLACES = ("disk", "store")


@pytest.fixture(autouse=True)
def _merge_early_and_wait_for_nobody(monkeypatch):
    monkeypatch.setattr(maintenance, "COMPACT_FROM", COMMITS - 1)
    monkeypatch.setattr(writer_lock, "FAIR_WAIT_S", 0.001)


def add_row(lake: Lake, table: str, number: int) -> None:
    """Make one commit that is known by its number to one of the tables."""
    at = NOW + timedelta(seconds=number)
    match table:
        case "position_updates":
            row = PositionUpdate(number, "SPY", None, 1.0, 1.0, 1.0, 1.0, 1.0, at)
            lake.updates.sync.append([row])
        case "position_queue":
            lake.queue.sync.mark_success(lake.queue.sync.insert_many([QueueRequest(number, "SPY")]))
        case "account_values":
            lake.account_values.append([AccountSummary(account="DU1", timestamp=at, cash=1.0)])


TABLES = ("position_updates", "position_queue", "account_values")


def table_of(lake: Lake, name: str) -> Table:
    [found] = [table for table in lake.tables if table.spec.name == name]
    return found


def filled(place, name: str) -> Lake:
    lake = Lake(place, fsync=False)
    table_of(lake, name).initialize()
    for number in range(1, COMMITS + 1):
        add_row(lake, name, number)
    return lake


def rows_of(lake: Lake, name: str) -> pl.DataFrame:
    rows = table_of(lake, name).rows().drop("part", strict=False)
    return rows.sort(rows.columns[:8])


EACH = [(place, name, stop) for place in PLACES for name in TABLES for stop in ("before", "after")]
# Where, of which table and at which moment a merge stands still: each table before its commit, and
# after it the one whose rows change.
IN_SHORT = [
    *(("disk", name, "before") for name in TABLES),
    ("disk", "position_queue", "after"),
    ("store", "position_updates", "before"),
]


@pytest.mark.parametrize(
    ("place", "name", "stop"), EACH if EVERYTHING else IN_SHORT, indirect=["place"]
)
def test_a_merge_that_stands_still_while_another_one_merges_doubles_nothing(place, name, stop):
    lake = filled(place, name)
    before = rows_of(lake, name)
    first, second = (
        Worker("merge", place, table=name, stop=where, files=COMMITS - 1) for where in (stop, "")
    )
    with workers(first):
        first.wait_until_it_stands_still()
        with workers(second):
            merged = second.result()
        assert merged >= COMMITS if stop == "before" else not merged
        add_row(lake, name, COMMITS + 1)
        first.go_on()
        first.result()
    after = Lake(place, fsync=False)
    keys = [column for column in before.columns if before.schema[column] == pl.String]
    kept = rows_of(after, name).join(before, on=keys, how="semi", nulls_equal=True)
    assert kept.equals(before)
    assert rows_of(after, name).height == before.height + 1


@pytest.mark.parametrize("name", ["position_updates", "account_values"])
def test_rows_that_are_appended_meanwhile_do_not_delay_a_merge(tmp_path, name, monkeypatch):
    lake, tries = filled(tmp_path, name), []
    merge = table_of(Lake(tmp_path, fsync=False), name)
    transact = merge.transact

    def beside(step):
        def once(handle):
            tries.append(handle.version())
            if len(tries) == 1:
                add_row(lake, name, COMMITS + 1)
            return step(handle)

        return transact(once)

    monkeypatch.setattr(merge, "transact", beside)
    result = maintain(merge)
    assert (result.compacted, result.files, result.skipped) == (COMMITS, 2, None)
    assert len(tries) == 2  # the merge, and the look that found nothing more
