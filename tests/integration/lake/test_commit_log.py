"""Entries of the log: read whole, and found torn wherever they are cut."""

import pytest
from deltalake import DeltaTable

from position_sync_dagster.domain.update import QueueRequest
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.durability import parse_entry, torn_entries
from tests.support.torn_queues import (
    STEPS,
    cuts,
    insert,
    insert_many,
    newest_entry,
    rows,
    small_queue,
)


@pytest.mark.parametrize(("step", "mode"), [(insert, "Overwrite"), (insert_many, "Append")])
def test_the_steps_include_inserts_of_both_forms(tmp_path, step, mode):
    step(small_queue(tmp_path / "q"))
    [made] = DeltaTable(tmp_path / "q").history(1)
    assert made["operationParameters"]["mode"] == mode


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_an_entry_cut_at_any_byte_is_found_torn(tmp_path, step):
    step(small_queue(tmp_path / "q"))
    whole = newest_entry(tmp_path / "q").read_bytes()
    assert parse_entry(3, whole).flaw is None
    for length in range(len(whole)):
        assert parse_entry(3, whole[:length]).flaw, length
        assert parse_entry(3, whole[:length].ljust(len(whole), b"\0")).flaw, length


def test_entries_of_every_kind_are_found_whole_and_torn_when_cut(tmp_path, make_update, clock):
    lake = Lake(tmp_path, clock=clock, fsync=False)
    lake.initialize_sync()
    lake.updates.sync.fence("g:1", 3)
    for _ in range(33):
        clock.advance(1)
        lake.updates.sync.append([make_update(1), make_update(2)])
        lake.queue.sync.mark_success(lake.queue.sync.insert_many([QueueRequest(1, "SPY")]))
    lake.maintain()
    entries = sorted(tmp_path.rglob("0*.json"))
    assert len(entries) > 100
    for file in entries:
        text = file.read_bytes()
        assert parse_entry(0, text).flaw is None, text[:300]
        ends = [at for at, byte in enumerate(text) if byte == ord("\n")]
        for length in [*cuts(len(text), 5), *ends, *(at + 1 for at in ends)]:
            assert parse_entry(0, text[:length]).flaw, (file, length)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_an_entry_of_another_writer_without_commit_info_is_whole(tmp_path, step, clock):
    lake = Lake(tmp_path, clock=clock, fsync=False)
    lake.initialize_sync()
    queue = small_queue(tmp_path / "position_queue")
    step(queue)
    entry = newest_entry(tmp_path / "position_queue")
    info, *actions = entry.read_bytes().splitlines(keepends=True)
    assert b'"commitInfo"' in info
    entry.write_bytes(b"".join(actions))
    assert DeltaTable(tmp_path / "position_queue").version() == 3
    assert torn_entries(tmp_path / "position_queue") == []
    assert rows(PositionQueue(tmp_path / "position_queue")) == rows(queue)
