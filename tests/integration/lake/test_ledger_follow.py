"""Readers that follow the ledger: in order, nothing twice, nothing left out."""

import asyncio
import re
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable

from position_sync_dagster.errors import TokenError
from position_sync_dagster.lake import followed_rows, position_updates
from position_sync_dagster.lake.followed_rows import NOW, START, AddedRows, Follower
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.processes.repair import set_torn_aside
from tests.support.queues import newest_entry


def conids(reader: followed_rows.Follower) -> list[list[int]]:
    """Return the contracts of each of the reads until there is nothing new."""
    read = []
    while (added := reader.read()) is not None:
        read.append(added.rows.get_column("conid").to_list())
    return read


@pytest.fixture
def ledger(open_ledger, make_update):
    """Return a ledger of three commits: contract 1, then 2, then 1 again."""
    ledger = open_ledger()
    for conid, position in ((1, 1.0), (2, 1.0), (1, 5.0)):
        ledger.append([make_update(conid, position=position)])
    return ledger


@pytest.mark.in_store
def test_a_reader_begins_with_the_newest_row_of_each_holding_and_then_follows(ledger, make_update):
    reader = ledger.follow()
    first = reader.read()
    assert first.rows.select("conid", "position").rows() == [(2, 1.0), (1, 5.0)]
    assert reader.read() is None
    ledger.append([make_update(7), make_update(8)])
    ledger.append([make_update(9)])
    assert conids(reader) == [[7, 8, 9]]


def test_a_reader_may_begin_with_the_oldest_row_or_with_the_next_commit(ledger, make_update):
    everything = ledger.follow(START)
    coming = ledger.follow(NOW)
    assert [len(rows) for rows in (conids(coming), conids(everything)[1])] == [1, 3]
    ledger.append([make_update(7)])
    assert conids(coming) == [[7]]
    assert conids(everything) == [[7]]


@pytest.mark.in_store
def test_another_reader_goes_on_behind_a_token_whatever_was_cleaned_up(
    open_ledger, ledger, make_update, clock
):
    second = ledger.follow(ledger.follow(START).read().token)
    token = second.read().token
    for _day in range(3):
        clock.advance(86_400)
        for conid in range(4):
            ledger.append([make_update(conid)])
    maintain(ledger.table, clean_now=True)
    for reader in (open_ledger().follow(token), second):
        assert conids(reader) == [[0, 1, 2, 3] * 3]


def test_rows_come_in_the_order_of_their_commits_whatever_their_times_say(
    ledger, make_update, clock
):
    reader = ledger.follow(NOW)
    reader.read()
    ledger.append([make_update(7)])
    ledger.append([make_update(8, timestamp=clock.now - timedelta(days=2))])
    ledger.append([make_update(9, timestamp=clock.now + timedelta(days=2))])
    ledger.append([make_update(10)])
    assert conids(reader) == [[7, 8, 9, 10]]


def test_a_reader_that_is_far_behind_gets_whole_commits_a_few_at_a_time(ledger, make_update):
    reader = Follower(ledger.table, AddedRows(ledger.table, most_rows=5), ledger._latest, NOW)
    reader.read()
    for first in (10, 20, 30):
        ledger.append([make_update(first + n) for n in range(3)])
    ledger.append([make_update(40 + n) for n in range(9)])
    assert [len(rows) for rows in conids(reader)] == [3, 3, 3, 9]


def test_a_commit_is_read_once_for_all_readers_of_a_process(ledger, make_update, files_read):
    readers = [ledger.follow(NOW) for _ in range(50)]
    for reader in readers:
        reader.read()
    ledger.append([make_update(7)])
    files_read.clear()
    assert [conids(reader) for reader in readers] == [[[7]]] * 50
    # The rows, and before and after them the row of the place.
    assert len(files_read) == 3


def test_an_empty_ledger_is_followed_from_its_first_row(open_ledger, make_update):
    ledger = open_ledger()
    ledger.initialize()
    readers = [ledger.follow(), ledger.follow(NOW), ledger.follow(START)]
    tokens = [reader.read().token for reader in readers]
    ledger.append([make_update(7)])
    assert [conids(reader) for reader in readers] == [[[7]]] * 3
    assert [conids(ledger.follow(token)) for token in tokens] == [[[7]]] * 3


def test_a_text_that_is_no_token_is_refused_by_name(open_ledger):
    huge = f"ps1:id:{'9' * 5000}:x"
    none = ("", "1", "ps1:a:b:c", "ps1:id:3:", "ps1:id:0:x", "ps2:id:3:x", "ps2:5:id:0:x", huge)
    for token in none:
        with pytest.raises(TokenError, match="is no token of a ledger") as refusal:
            open_ledger().follow(token)
        assert "without a token" in refusal.value.remedy


def test_a_token_of_another_ledger_or_of_the_future_is_refused(ledger):
    token = ledger.follow(NOW).read().token
    place = followed_rows.Place.of(token)
    with pytest.raises(TokenError, match="of another ledger"):
        ledger.follow(place._replace(ledger_id="elsewhere").token).read()
    with pytest.raises(TokenError, match="of version 99"):
        ledger.follow(place._replace(version=99).token).read()


def torn_last_commit(table: Table) -> None:
    torn = newest_entry(Path(table.path))
    torn.write_bytes(torn.read_bytes()[:40])
    assert [path.file for path in set_torn_aside(table)] == [f"_delta_log/{torn.name}"]


def restored(table: Table) -> None:
    handle = DeltaTable(table.path)
    handle.restore(handle.version() - 1)


@pytest.mark.on_disk
@pytest.mark.parametrize("take_back", [torn_last_commit, restored])
def test_a_reader_of_rows_that_were_taken_back_is_told(ledger, make_update, open_ledger, take_back):
    reader = ledger.follow(NOW)
    before = reader.read().token
    ledger.append([make_update(7)])
    ledger.append([make_update(8)])
    lost = reader.read().token
    assert {7, 8} <= set(ledger.latest().get_column("conid"))

    take_back(open_ledger().table)
    if take_back is restored:
        assert {7, 8} & set(ledger.latest().get_column("conid")) == {7}
    again = open_ledger()
    again.append([make_update(9)])
    for follower in (reader, again.follow(lost)):
        with pytest.raises(TokenError, match="a repair or a restored backup took it back"):
            follower.read()
    assert conids(again.follow(before)) == [[7, 9]]


@pytest.mark.on_disk
def test_a_token_of_a_row_that_a_restored_backup_has_again_in_its_version_is_refused(
    ledger, make_update, open_ledger, clock, tmp_path
):
    """As a request that is drained again: its row has the same id."""
    path = Path(ledger.table.path)
    shutil.copytree(path, tmp_path / "backup")
    reader = ledger.follow(NOW)
    row = replace(make_update(7), update_id="of-a-request")
    reader.read()
    ledger.append([row, make_update(8)])

    token = reader.read().token
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "backup", path)
    clock.advance(60)
    restored = open_ledger()
    restored.append([row, make_update(9)])
    with pytest.raises(TokenError, match="a repair or a restored backup took it back"):
        restored.follow(token).read()

    # As an older release wrote it.
    place = followed_rows.Place.of(token)._replace(committed_us=None)
    assert conids(restored.follow(place.token)) == []
    assert conids(restored.follow(restored.follow(NOW).read().token)) == []


async def test_an_async_reader_waits_without_holding_up_other_tasks(open_ledger, make_update, home):
    table = position_updates.PositionUpdatesTable(f"{home}/updates")
    await table.initialize()
    seen: list[int] = []
    began = asyncio.Event()

    async def read() -> None:
        async for rows, _token in table.follow(NOW, poll_s=0.01):
            began.set()
            seen.extend(rows.get_column("conid"))
            if len(seen) == 3:
                return

    reading = asyncio.create_task(read())
    await asyncio.wait_for(began.wait(), 60)  # a row from before it is not new
    for conid in (1, 2, 3):
        await table.append([make_update(conid)])
        while seen[-1:] != [conid] and not reading.done():
            await asyncio.sleep(0.01)
    await asyncio.wait_for(reading, 60)
    assert seen == [1, 2, 3]


def test_what_was_known_at_a_moment_is_told_from_what_is_known_now(open_ledger, make_update, clock):
    ledger = open_ledger()
    noon = clock.now
    ledger.append([make_update(1, position=1.0)])
    clock.advance(3600)
    now = clock.now
    ledger.append([make_update(1, position=2.0, timestamp=noon + timedelta(minutes=1))])
    clock.advance(3600)
    ledger.append([make_update(1, position=3.0)])
    half_past = noon + timedelta(minutes=30)
    assert ledger.as_of(half_past).get_column("position").to_list() == [1.0]
    assert ledger.as_of(half_past, as_known_now=True).get_column("position").to_list() == [2.0]
    assert ledger.as_of(now).get_column("position").to_list() == [2.0]
    assert ledger.as_of(noon - timedelta(seconds=1)).is_empty()
    assert ledger.as_of(clock.now).equals(ledger.latest())


@pytest.mark.on_disk  # DuckDB downloads its extension for object stores
def test_the_lines_of_the_page_find_the_same_past(open_ledger, make_update, clock):
    ledger = open_ledger()
    noon = clock.now
    clock.advance(1200)
    ledger.append([make_update(conid, position=5.0) for conid in (1, 2)])
    clock.now = noon  # the clock was ahead
    ledger.append([make_update(1, position=1.0), make_update(2, position=7.0)])
    clock.advance(3600)
    ledger.append([make_update(1, position=2.0, timestamp=noon + timedelta(minutes=1))])

    moment = noon + timedelta(minutes=30)
    docs = Path(__file__).parents[3] / "docs"
    shown = dict(re.findall(r"\| (\w+) \| `(.*?)`", (docs / "follow.md").read_text()))
    path = ledger.table.path
    names = {"pl": pl, "path": path, "moment": moment, "DeltaTable": DeltaTable}
    names["since"] = moment.date() - timedelta(days=1)
    (rows_read,) = re.findall(r"`rows` is `(.*?)`", (docs / "follow.md").read_text())
    names["rows"] = eval(rows_read, names)  # noqa: S307
    for reader in ("Polars", "pandas"):
        rows = eval(shown[reader], names)  # noqa: S307
        assert dict(zip(rows["conid"], rows["position"], strict=True)) == {1: 1.0, 2: 7.0}, reader

    duckdb.execute((docs / "as_of.sql").read_text())
    given = {"files": ledger.table.snapshot(lambda handle: handle.file_uris()), "moment": moment}
    for query, position in (
        (shown["DuckDB"], 1.0),
        (shown["DuckDB"].replace("known_at", "true_at"), 2.0),
    ):
        rows = duckdb.execute(f"SELECT conid, position {query}", given).fetchall()
        assert dict(rows) == {1: position, 2: 7.0}
