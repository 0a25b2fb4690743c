"""The newest rows since a moment are those of the whole ledger, whatever the clocks and files."""

import random
from datetime import timedelta

import pytest
from polars.testing import assert_frame_equal

from position_sync_dagster.lake.storage.maintenance import maintain
from position_sync_dagster.lake.updates.ledger import STATE
from tests.support.extent import EVERYTHING

AHEAD = timedelta(hours=2)


def whole(ledger, since):
    found = ledger.latest()
    return found.filter(found["timestamp"] >= since).select(STATE)


@pytest.mark.parametrize("seed", range(3 if EVERYTHING else 1))
def test_they_are_those_of_the_whole_ledger(open_ledger, make_update, clock, seed):
    chance = random.Random(seed)
    reader = open_ledger()
    for step in range(30 if EVERYTHING else 20):
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
