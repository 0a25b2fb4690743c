"""The command `position-sync doctor`: what it reports, and what it repairs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.request import QueueRequest, QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.table import PositionQueue
from tests.support.torn_queues import claim, newest_entry


@pytest.fixture
def call_doctor(tmp_path, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["doctor", *arguments])
        return result.exit_code, result.output

    return call


def test_the_command_reports_what_is_torn_and_repairs_it_with_the_option(tmp_path, call_doctor):
    lake = Lake(tmp_path / "lake", fsync=False)
    assert call_doctor()[0] == 0
    assert not (tmp_path / "lake").exists()
    lake.initialize_sync()
    ids = lake.queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, 4))
    claim(lake.queue)
    assert call_doctor() == (0, call_doctor("--repair")[1])
    path = Path(lake.queue.table.path)
    newest_entry(path).write_bytes(b"")
    code, text = call_doctor()
    assert code == 1
    for part in ("position_queue", "version 2", newest_entry(path).name, "is empty", ids[0]):
        assert part in text
    assert "--repair" in text
    code, text = call_doctor("--json")
    [torn] = [t for t in json.loads(text)["tables"] if not t["healthy"]]
    assert (code, torn["table"], torn["whole_version"]) == (1, "position_queue", 1)
    assert set(torn["requests"]) == set(ids[:2])
    code, text = call_doctor("--repair")
    assert code == 1
    assert "taken back to version 1" in text
    assert call_doctor()[0] == 0
    assert PositionQueue(path).sync.counts()[QueueStatus.PENDING] == 3


def test_the_command_reports_a_folder_without_a_table_and_a_wrong_option(tmp_path, call_doctor):
    path = tmp_path / "lake" / "position_queue"
    path.mkdir(parents=True)
    assert call_doctor() == (0, call_doctor("--repair")[1])
    assert list(path.iterdir()) == []
    (path / "thesis.txt").write_text("years of work")
    code, text = call_doctor("--repair")
    assert code == 1
    assert "thesis.txt" in text
    assert call_doctor("--reapir")[0] == 2
    assert [p.name for p in path.iterdir()] == ["thesis.txt"]
