"""The newest rows since a moment are those of the whole ledger, whatever the clocks and files."""

import random
from datetime import timedelta

import pytest
from polars.testing import assert_frame_equal

from position_sync_dagster.lake.storage import maintenance
from position_sync_dagster.lake.storage.maintenance import maintain
from tests.support.extent import EVERYTHING

AHEAD = timedelta(hours=2)


def whole(ledger, since):
    found = ledger.latest()
    return found.filter(found["timestamp"] >= since)


@pytest.mark.parametrize("seed", range(3 if EVERYTHING else 1))
def test_they_are_those_of_the_whole_ledger(open_ledger, make_update, clock, seed):
    chance = random.Random(seed)
    reader = open_ledger()
    for step in range(30 if EVERYTHING else 12):
        clock.advance(chance.choice([0, 1, 60, 600]))
        wrong = clock.now + chance.choice([AHEAD, -AHEAD])
        own, now = (lambda wrong=wrong: wrong, wrong) if chance.random() < 0.2 else (clock, clock())
        late = timedelta(seconds=chance.choice([0, 0, 0, 900]))  # a row may be written late
        open_ledger(own).append(
            [
                make_update(conid, position=float(step), timestamp=now - late)
                for conid in chance.sample(range(1, 8), 3)
            ]
        )
        if chance.random() < 0.1:
            maintain(reader.table, clean_now=True)
        if chance.random() < 0.3:
            since = clock.now - timedelta(seconds=chance.choice([0, 60, 600, 3600]))
            for ledger in (reader, open_ledger()):
                found = ledger.latest_since(since)
                assert_frame_equal(found, whole(open_ledger(), since), check_row_order=False)


def test_a_row_that_was_contradicted_does_not_come_back_when_its_file_is_merged(
    open_ledger, make_update, clock, monkeypatch
):
    """It is of another day than the row that contradicted it: the merged file has it alone."""
    monkeypatch.setattr(maintenance, "COMPACT_FROM", 3)
    clock.advance(8 * 3600)  # an hour before midnight
    tomorrow = clock.now + AHEAD
    open_ledger(lambda: tomorrow).append([make_update(1, position=1.0, timestamp=tomorrow)])
    reader, soon = open_ledger(), clock.now + AHEAD / 4
    reader.append([make_update(1, position=2.0)])
    assert reader.latest()["position"].to_list() == [2.0]
    clock.now = tomorrow + AHEAD
    reader.append([make_update(1, position=3.0, timestamp=soon)])  # late, by a right clock
    for conid in (2, 3):
        reader.append([make_update(conid, position=9.0)])
    assert reader.latest()["position"].to_list() == [3.0, 9.0, 9.0]
    assert maintain(reader.table).compacted == 5  # the two of the day before as well
    for ledger in (reader, open_ledger()):
        assert ledger.latest()["position"].to_list() == [3.0, 9.0, 9.0]
