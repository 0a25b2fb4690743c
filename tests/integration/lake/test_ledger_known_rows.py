"""`latest` begins with the derived newest rows: it is as right as without them, and reads less."""

import random
import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.position_updates import PositionUpdatesTable
from position_sync_dagster.lake.schema import LATEST_POSITIONS
from position_sync_dagster.lake.storage.table import Table, maintain
from tests.support.extent import EVERYTHING

AHEAD = timedelta(hours=2)

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
        derived.replace(Table(known, LATEST_POSITIONS), rows)

    return step


@pytest.mark.parametrize("seed", [0, 1, *[2] * EVERYTHING])
def test_they_are_those_of_the_whole_ledger(open_ledger, reader, derive, make_update, clock, seed):
    chance, following, looking = random.Random(seed), reader(), reader()
    for step in range(30 if EVERYTHING else 12):
        clock.advance(chance.choice([0, 1, 60, 600]))
        wrong = clock.now + chance.choice([AHEAD, -AHEAD])
        own, now = (lambda wrong=wrong: wrong, wrong) if chance.random() < 0.2 else (clock, clock())
        late = timedelta(seconds=chance.choice([0, 0, 0, 900]))
        open_ledger(own).append(
            [
                make_update(conid, position=chance.choice([0.0, float(step)]), timestamp=now - late)
                for conid in chance.sample(range(1, 8), 3)
            ]
        )
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
        assert_frame_equal(reader().latest_since(since), recent, check_row_order=False)
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
    whole, beginning, other = open_ledger().latest(), reader(), open_ledger()
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
    whole, beginning = open_ledger().latest(), reader()
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
