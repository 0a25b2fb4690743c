"""What a reader of the ledger finds, and how few rows it reads for that."""

import random
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from position_sync_dagster.defs.assets.latest_positions import latest_positions
from position_sync_dagster.domain.holding import AccountConfirmation, Completeness
from position_sync_dagster.domain.position_update import PositionUpdate
from position_sync_dagster.errors import BrokenTableError, NewerRowError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage.merges import maintain
from position_sync_dagster.lake.storage.table import Table
from position_sync_dagster.settings import Settings
from tests.support.derived_rows import put_rows
from tests.support.extent import EVERYTHING
from tests.support.holdings import make_holding
from tests.support.queues import written

# How long the known rows have a holding that closed.
KEPT = timedelta(hours=1)


@pytest.fixture
def known(home):
    path = f"{home}/latest_positions"
    return Path(path) if isinstance(home, Path) else path


@pytest.fixture
def reader(home, known):
    """Return a function that opens the ledger anew, with the derived rows."""
    return lambda: (
        PositionUpdatesTable(f"{home}/updates", known=Table(known, LATEST_POSITIONS)).sync
    )


@pytest.fixture
def derive(reader, known, clock):
    """Return a function that writes the newest rows of the ledger, as `latest_positions` does."""

    def step():
        left_out = (pl.col("position") == 0) & (pl.col("timestamp") < clock.now - KEPT)
        rows = reader().latest().filter(~left_out).with_columns(confirmed_at="timestamp")
        put_rows(Table(known, LATEST_POSITIONS), rows)

    return step


@pytest.mark.parametrize("seed", [0, 1, *[2] * EVERYTHING])
def test_the_newest_rows_are_those_of_the_whole_ledger(
    open_ledger, reader, derive, make_update, clock, seed
):
    chance = random.Random(seed)
    following = reader()
    looking = reader()
    for step in range(30 if EVERYTHING else 12):
        clock.advance(chance.choice([0, 1, 60, 600]))
        at = clock.now - timedelta(seconds=chance.choice([0, 0, 0, 900]))

        updates = []
        for conid in chance.sample(range(1, 8), 3):
            position = chance.choice([0.0, float(step)])
            updates.append(make_update(conid, position=position, timestamp=at))
        open_ledger().append(updates)

        if chance.random() < 0.1:
            maintain(open_ledger().table, clean_now=True)
        if chance.random() < 0.3:
            derive()

        if chance.random() < 0.7:
            continue
        whole = open_ledger().latest()
        held = whole.filter(pl.col("position") != 0)
        for ledger in (reader(), looking):
            lately = ledger.latest()
            assert_frame_equal(lately.filter(pl.col("position") != 0), held)
            assert_frame_equal(lately.join(whole, on=whole.columns, nulls_equal=True), lately)
        since = clock.now - timedelta(seconds=chance.choice([0, 60, 600, 3600]))
        assert since >= clock.now - KEPT

        recent = whole.filter(whole["timestamp"] >= since)
        lately = reader().latest().filter(pl.col("timestamp") >= since)
        assert_frame_equal(lately, recent, check_row_order=False)
        for ledger in (following, reader()):
            assert ledger.newest_of([1, 2], since) == open_ledger().newest_of([1, 2], since)


@pytest.mark.on_disk  # it deletes files
def test_the_history_before_the_known_rows_is_not_read(
    open_ledger, reader, derive, make_update, clock
):
    open_ledger().append([make_update(conid) for conid in (1, 2)])
    old = open_ledger().table.snapshot(lambda handle: handle.file_uris())
    clock.advance(1)
    open_ledger().append([make_update(1, position=5.0, timestamp=clock())])
    derive()
    clock.advance(1)
    open_ledger().append([make_update(1, position=7.0, timestamp=clock())])
    whole = open_ledger().latest()
    beginning = reader()
    other = open_ledger()
    for ledger in (beginning, other):
        ledger.version()  # a ledger that is opened afterwards refuses what is missing

    for path in old:
        Path(path).unlink()
    assert_frame_equal(beginning.latest(), whole)
    with pytest.raises(BrokenTableError):
        other.latest()


def test_a_holding_that_closed_before_the_known_rows_is_left_out_and_in_the_rows_as_of_now(
    open_ledger, reader, derive, make_update, clock
):
    open_ledger().append([make_update(conid) for conid in (1, 2, 3)])
    clock.advance(1)
    open_ledger().append([make_update(1, position=0.0), make_update(2, position=0.0)])
    clock.advance(2 * KEPT.total_seconds())
    open_ledger().append([make_update(3, position=3.0)])
    derive()
    clock.advance(1)
    open_ledger().append([make_update(2, position=5.0)])
    whole = open_ledger().latest()
    beginning = reader()
    assert whole["position"].to_list() == [0.0, 5.0, 3.0]
    assert beginning.latest()["conid"].to_list() == [2, 3]

    assert_frame_equal(beginning.as_of(clock.now), whole)
    followed = reader().follow().read()
    assert followed is not None
    assert sorted(followed.rows["conid"]) == [2, 3]


@pytest.mark.on_disk  # it moves folders
def test_a_ledger_that_was_taken_back_since_is_read_whole(
    home, open_ledger, reader, derive, make_update, clock
):
    open_ledger().append([make_update(1, position=1.0)])
    shutil.copytree(f"{home}/updates", f"{home}/before")
    clock.advance(1)
    open_ledger().append([make_update(1, position=2.0, timestamp=clock())])
    derive()
    shutil.rmtree(f"{home}/updates")
    shutil.move(f"{home}/before", f"{home}/updates")
    assert reader().latest()["position"].to_list() == [1.0]
    # Its versions are counted on from there: the rows that were derived seem to be in it.
    clock.advance(1)
    open_ledger().append([make_update(2, position=3.0, timestamp=clock())])
    assert reader().latest()["position"].to_list() == [1.0, 3.0]


@pytest.mark.on_disk  # it spoils files
def test_derived_rows_that_cannot_be_read_are_left_aside(
    open_ledger, reader, derive, make_update, known
):
    open_ledger().append([make_update(1, position=1.0)])
    derive()
    for path in known.glob("*.parquet"):
        path.write_bytes(b"torn")
    assert reader().latest()["position"].to_list() == [1.0]


HOUR = timedelta(hours=1)


def held(ledger, clock, *conids):
    rows = ledger.newest_of(conids, clock.now - HOUR).rows
    return {conid: row.position for (_, conid), row in rows.items()}


def test_new_rows_are_compared_with_those_of_their_holdings_however_large_the_book_is(
    open_ledger, make_update, clock, rows_decided
):
    book = 50
    writer = open_ledger()
    reader = open_ledger()
    writer.append(make_update(conid) for conid in range(1, book + 1))
    assert len(reader.latest()) == book
    assert len(held(reader, clock, *range(1, book + 1))) == book
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
    writer = open_ledger()
    other = open_ledger()
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


LOGIN = "127.0.0.1:7497"
ACCOUNT = "DUSIM1"
BATCH = 50
BOOK = 200


@pytest.mark.on_disk  # it reads the log's files
def test_a_batch_appends_its_rows_and_reads_those_of_the_batch_before(
    lake, make_update, clock, rows_read
):
    ledger = lake.updates.sync
    since = clock.now - timedelta(hours=1)
    conids = range(1, BOOK + 1)
    ledger.append([make_update(conid, request_id=f"first-{conid}") for conid in conids])
    ledger.newest_of(conids, since)
    ledger.latest()
    for batch in range(3):
        clock.advance(1)
        chosen = conids[batch * BATCH : (batch + 1) * BATCH]
        rows_read.clear()
        newest = ledger.newest_of(chosen, since)
        assert len(newest.rows) == BATCH

        rows = [make_update(conid, request_id=f"{batch}-{conid}") for conid in chosen]
        ledger.append(rows, through=newest.through)
        assert sum(rows_read) <= BATCH
        assert written(ledger.table) == BATCH
        rows_read.clear()
        assert ledger.latest().height == BOOK
        assert sum(rows_read) == BATCH


@pytest.mark.on_disk  # it reads the log's files
def test_a_fill_adds_one_row_of_its_holding_and_a_reader_reads_once(lake, clock, rows_read):
    table = lake.broker_positions
    who = {"gateway_id": LOGIN, "account": ACCOUNT, "completeness": Completeness.COMPLETE}
    held = [make_holding(conid, clock.now, **who) for conid in range(1, BOOK + 1)]
    table.replace(LOGIN, held)
    table.rows(LOGIN)

    for conid in (3, 7):
        clock.advance(1)
        rows_read.clear()
        fill = replace(held[conid - 1], position=5.0, received_at=clock.now)
        table.update(LOGIN, [fill], accounts={ACCOUNT: AccountConfirmation(clock.now)})
        assert rows_read == []
        assert written(table.table) == 1
        assert table.read(LOGIN)[conid - 1].position == 5.0
        assert table.rows(LOGIN).height == BOOK
        assert len(rows_read) == 1


ROOT = Path(__file__).parents[3]
NOW = datetime.now(UTC)
ROW = PositionUpdate(7, "SPY", None, 1.0, 1.5, 150.0, 100.0, 50.0, NOW, account="DUSIM0001")


def shown(name: str, table: str = "data/lake/position_updates") -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
    return [block for block in blocks if table in block]


def write_days(path: str) -> None:
    """Append a row of each of three days, and leave the newest day alone readable."""
    lake = Lake(path, fsync=False)
    lake.initialize_sync()
    for back in range(3):
        row = replace(ROW, timestamp=NOW - timedelta(days=back), market_value=150.0 + back)
        lake.updates.sync.append([replace(row, run_id=f"run-{back}")])
    for older in Path(path, "position_updates").glob("date=*/*.parquet"):
        if older.parent.name != f"date={NOW:%Y-%m-%d}":
            older.write_bytes(b"not read")


@pytest.mark.parametrize("library", ["polars", "duckdb", "pandas"])
def test_each_shown_reader_reads_the_rows_of_its_day_and_no_other_file(
    library, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    write_days("data/lake")
    (block,) = (lines for lines in shown("docs/audit.md") if library in lines)
    block = block.replace("2026, 3, 9", f"{NOW:%Y, %m, %d}".replace(" 0", " "))
    exec(block.replace("2026-03-09", f"{NOW:%Y-%m-%d}"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert "run-0" in printed
    assert "run-1" not in printed


def test_the_readme_shows_lines_that_run_too(capsys):
    lake = Lake(".demo/lake", fsync=False)
    lake.initialize_sync()
    lake.updates.sync.append([replace(ROW, run_id="run-1")])
    latest_positions.derive(lake, Settings(_env_file=None, lake=".demo/lake"), None)
    (block,) = shown("README.md", ".demo/lake/latest_positions")
    exec(block, {})  # noqa: S102
    assert capsys.readouterr().out == "[('STREAM', 'USD', 1, 150.0)]\n"


def test_the_page_reads_a_day_of_the_ledger_and_none_of_its_other_files(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_days(".demo/lake")

    (block,) = shown("docs/do/duckdb.md", ".demo/lake/position_updates")
    names: dict[str, pl.DataFrame] = {}
    exec(block, names)  # noqa: S102
    assert names["moves"].rows() == [(7, NOW, 150.0, "USD")]
