"""The command `position-sync doctor`: what it reports, and what it repairs."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.gateway_session import Owner
from position_sync_dagster.domain.update import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake import derived
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.position_queue import PositionQueue
from position_sync_dagster.lake.recovery import check_up
from position_sync_dagster.lake.schema.table_spec import TableSpec
from position_sync_dagster.lake.schema.tables import (
    DAILY_POSITIONS,
    LATEST_POSITIONS,
    STRATEGY_EXPOSURE,
)
from position_sync_dagster.lake.storage.table import Table
from tests.support.past_sessions import add_past_sessions
from tests.support.torn_queues import claim, newest_entry


@pytest.fixture
def call_doctor(tmp_path, monkeypatch):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    monkeypatch.setitem(check_up.__kwdefaults__, "pause_s", 0.0)

    def call(*arguments: str) -> tuple[int, str]:
        alone = () if "--repair" in arguments else ("--tables",)
        result = CliRunner().invoke(app, ["doctor", *alone, *arguments])
        return result.exit_code, result.output

    return call


def test_the_command_reports_what_is_torn_and_repairs_it_with_the_option(tmp_path, call_doctor):
    lake = Lake(tmp_path / "lake", fsync=False)
    assert call_doctor()[0] == 0
    assert not (tmp_path / "lake").exists()
    lake.initialize_sync()
    lake.queue.sync.insert_many(QueueRequest(c, "SPY") for c in range(1, 4))
    claim(lake.queue)
    assert call_doctor() == (0, call_doctor("--repair")[1])
    path = Path(lake.queue.table.path)
    newest_entry(path).write_bytes(b"")
    code, text = call_doctor()
    assert code == 1
    for part in ("position_queue", "version 2", newest_entry(path).name, "is empty"):
        assert part in text
    assert "--repair" in text
    code, text = call_doctor("--json")
    [torn] = [t for t in json.loads(text)["tables"] if not t["healthy"]]
    assert (code, torn["table"], torn["whole_version"]) == (1, "position_queue", 1)
    code, text = call_doctor("--repair")
    assert code == 0
    assert "taken back to version 1" in text
    assert call_doctor()[0] == 0
    assert PositionQueue(path).sync.counts()[QueueStatus.PENDING] == 3


@pytest.mark.parametrize(
    "spec", [LATEST_POSITIONS, STRATEGY_EXPOSURE, DAILY_POSITIONS], ids=lambda spec: spec.name
)
def test_what_the_reader_of_a_torn_derived_table_is_told_works(tmp_path, call_doctor, spec):
    path = tmp_path / "lake" / spec.name
    table = Table(path, spec)
    derived.replace(table, one_row(spec))
    newest_entry(path).write_bytes(b"")
    with pytest.raises(BrokenTableError, match="position-sync doctor --repair"):
        Table(path, spec).rows()
    code, text = call_doctor()
    assert code == 1
    assert f"{spec.name:<22} torn at version 1" in text
    code, text = call_doctor("--repair")
    assert code == 0
    assert "1 rows are kept in" in text
    assert Table(path, spec).rows().is_empty()
    assert derived.replace(Table(path, spec), one_row(spec)).changed


def one_row(spec: TableSpec) -> pl.DataFrame:
    nothing = pl.DataFrame(schema=spec.polars)
    row = dict.fromkeys(spec.columns)
    return pl.concat([nothing, pl.DataFrame([row])], how="vertical_relaxed")


def test_what_is_not_put_back_is_kept_in_a_file_and_said(tmp_path, call_doctor):
    lake = Lake(tmp_path / "lake", fsync=False)
    lake.initialize_sync()
    lake.registry.sync.add_active(
        conid=1, symbol="SPY", right="PUT", strike=500.0, expiry="20270115", strategy_id=1
    )
    newest_entry(Path(lake.registry.table.path)).write_bytes(b"")
    code, text = call_doctor("--repair")
    assert code == 0
    assert "position-sync strategies list" in text
    [kept] = Path(lake.registry.table.path).glob("_torn-*/rows.parquet")
    assert str(kept) in text
    assert pl.read_parquet(kept).get_column("conid").to_list() == [1]


def test_a_repair_that_was_interrupted_is_reported_and_finished(tmp_path, call_doctor):
    lake = Lake(tmp_path / "lake", fsync=False)
    lake.initialize_sync()
    lake.queue.sync.insert_many([QueueRequest(1, "SPY")])
    path = Path(lake.queue.table.path)
    newest_entry(path).write_bytes(b"")
    assert call_doctor("--repair")[0] == 0
    [kept] = path.glob("_torn-*/rows.parquet")
    kept.rename(kept.with_name("rows_to_put_back.parquet"))
    code, text = call_doctor()
    assert code == 1
    assert "a repair of it was interrupted" in text
    with pytest.raises(BrokenTableError, match="doctor --repair"):
        PositionQueue(path).sync.counts()
    code, text = call_doctor("--repair")
    assert (code, "the interrupted repair is finished; 0 rows put back" in text) == (0, True)
    assert PositionQueue(path).sync.counts()[QueueStatus.PENDING] == 1
    assert call_doctor()[0] == 0


def test_a_repair_is_neither_advised_nor_made_while_a_stream_owns_the_login(tmp_path, call_doctor):
    lake = Lake(tmp_path / "lake", fsync=False)
    lake.initialize_sync()
    session = lake.sessions.acquire(
        "127.0.0.1:7497", Owner.STREAM, lease_s=600, run_id=None, host="desk", pid=4321
    )
    add_past_sessions(lake, replace(session, gateway_id="127.0.0.1:4001"), 100)
    lake.queue.sync.insert_many([QueueRequest(1, "SPY")])
    torn = newest_entry(Path(lake.queue.table.path))
    torn.write_bytes(b"")
    code, text = call_doctor()
    assert code == 1
    assert "doctor --repair" not in text
    assert "process 4321 on desk" in text
    code, text = call_doctor("--repair")
    assert code == 1
    assert "is not repaired while the stream (process 4321 on desk) writes to it" in text
    assert torn.exists()
    lake.sessions.end(session)
    assert call_doctor("--repair")[0] == 0


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
