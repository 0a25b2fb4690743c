"""The command `position-sync doctor --repair`."""

from pathlib import Path

import pytest

from position_sync_dagster.domain.holding import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.position_queue import PositionQueue
from tests.support.command_line import run
from tests.support.torn_queues import claim, newest_entry


def test_a_torn_last_commit_is_refused_by_name_and_the_command_that_is_named_sets_it_aside(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    lake = Lake(tmp_path / "lake", fsync=False)
    assert run("doctor", "--repair") == "No table has a torn last commit.\n"
    assert not (tmp_path / "lake").exists()
    lake.initialize_sync()
    lake.queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, 4))
    claim(lake.queue)
    path = Path(lake.queue.table.path)
    torn = newest_entry(path)
    torn.write_bytes(b"")
    with pytest.raises(BrokenTableError, match=f"{torn.name} is empty.*doctor --repair"):
        PositionQueue(path).sync.counts()
    text = run("doctor", "--repair")
    assert f"position_queue         version 2 is set aside: _delta_log/{torn.name} is empty" in text
    assert PositionQueue(path).sync.counts()[QueueStatus.PENDING] == 3
