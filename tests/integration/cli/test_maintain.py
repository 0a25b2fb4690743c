"""The commands `maintain`, on tables with a history, and `doctor` with --files and --repair."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from deltalake import DeltaTable

from position_sync_dagster.defs.checks import tables
from position_sync_dagster.domain.queue_request import QueueRequest, QueueStatus
from position_sync_dagster.errors import BrokenTableError
from position_sync_dagster.lake.position_queue import PositionQueue
from position_sync_dagster.lake.storage.opening import UPKEEP
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.settings import load_settings
from tests.support.command_line import ended, json_of, run
from tests.support.queues import claim, entry, filled_queue, newest_entry, requests_of

FINISHED = UPKEEP.compact_from


@pytest.fixture
def lake(lake: MoneyLake) -> MoneyLake:
    """Return a lake whose queue has many small commits, and keeps no replaced file."""
    DeltaTable(lake.queue.table.path).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    )
    for conid in range(1, FINISHED + 1):
        lake.queue.sync.mark_success(lake.queue.sync.insert_many([QueueRequest(conid, "SPY")]))
    lake.queue.sync.insert_many([QueueRequest(1000, "SPY")])
    return lake


def rows(lake):
    return lake.queue.table.rows().drop("part").sort("request_id")


def files(lake):
    return [p for p in Path(lake.queue.table.path).rglob("*.parquet") if "_delta_log" not in str(p)]


def test_files_are_merged_and_deleted_and_the_rows_stay_and_each_table_has_a_line(lake):
    before = rows(lake)
    many = len(files(lake))
    printed = {row["table"]: row for row in json_of("maintain")}
    assert list(printed) == [table.spec.name for table in lake.all_tables]
    queue = printed["position_queue"]
    assert queue["compacted"] == FINISHED
    assert queue["files"] == 2
    assert queue["skipped"] is None
    assert queue["deleted"] == many + 1 - len(files(lake)) > FINISHED
    assert queue["version"] == lake.queue.table.version()
    assert rows(lake).equals(before)

    heading, *lines = run("maintain").splitlines()
    assert heading.split() == ["table", "compacted", "deleted", "files", "version"]
    assert [line.split()[0] for line in lines] == [table.spec.name for table in lake.all_tables]
    assert lines[1].split() == ["position_queue", "0", "0", "2", str(queue["version"])]


def test_a_torn_last_commit_is_refused_by_name_and_the_command_that_is_named_sets_it_aside(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    lake = MoneyLake(tmp_path / "lake", fsync=False)
    assert run("doctor", "--repair").startswith("No table has a torn last commit.")
    assert not (tmp_path / "lake").exists()

    lake.initialize_sync()
    lake.queue.sync.insert_many(requests_of(range(1, 4)))
    claim(lake.queue)
    path = Path(lake.queue.table.path)
    torn = newest_entry(path)
    torn.write_bytes(b"")
    with pytest.raises(BrokenTableError, match=f"{torn.name} is empty.*doctor --repair"):
        PositionQueue(path).sync.counts()

    text = run("doctor", "--repair")
    assert f"_delta_log/{torn.name}  is empty" in text
    assert PositionQueue(path).sync.counts()[QueueStatus.PENDING] == 3


def test_a_table_that_cannot_be_repaired_is_named_and_the_others_are_repaired(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    lake = MoneyLake(tmp_path / "lake", fsync=False)
    lake.initialize_sync()
    registry, queue, updates = (Path(table.path) for table in lake.tables[:3])
    shutil.rmtree(registry / "_delta_log")
    (registry / "_delta_log").write_text("a file")
    lake.queue.sync.insert(1, "SPY")
    entry(queue, 0).unlink()
    newest_entry(queue).write_bytes(b"")
    newest_entry(updates).write_bytes(b"{")

    assert ended("doctor", "--repair", "--json") == 1
    printed = capsys.readouterr()
    assert str(registry) in printed.err
    repaired = [(torn["table"], torn["version"]) for torn in json.loads(printed.out)]
    assert repaired == [("position_queue", 1), ("position_queue", 0), ("position_updates", 0)]
    assert filled_queue(queue).sync.counts()[QueueStatus.PENDING] == 1


def test_a_table_without_its_log_is_good_nowhere_and_each_says_what_to_do(lake, capsys):
    lake.queue.sync.insert(1, "SPY")
    place = Path(lake.updates.table.path)
    (place / "date=2026-11-30").mkdir()
    shutil.rmtree(place / "_delta_log")

    assert ended("positions", "--json") == 1
    refused = capsys.readouterr().err
    assert ended("doctor", "--files", "--json") == 1
    printed = json.loads(capsys.readouterr().out)
    assert not printed["good"]
    [finding] = printed["findings"]
    checked = tables.tables_can_be_read.evaluate(MoneyLake(lake.path), load_settings())
    assert not checked.passed
    said = [refused, f"{finding['text']} {finding['remedy']}", checked.description]
    assert all(str(place) in text for text in said)
    assert all("no log of a Delta table" in text for text in said)
    assert finding["remedy"] in " ".join(refused.split())


RESTORING = Path(__file__).parents[3] / "docs/do/restore.md"


def test_the_printed_backup_is_made_again_and_again_proved_and_restored_for_any_folder(tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    home = tmp_path / "of pip/dagster_home"
    written = {f"{home}/dagster.yaml", "data/flex/2026.xml", ".env", "strategies.yaml"}
    for name in written:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("# of the backup")
    lake = MoneyLake(tmp_path / "data/paper", fsync=False)
    lake.initialize_sync()
    lake.queue.sync.insert(1, "SPY")
    text = RESTORING.read_text().replace("lake=data/lake", "lake=data/paper")
    text = text.replace("home=dagster_home", f"home='{home}'")
    backing_up, restoring = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.M | re.S)[:2]
    restoring = re.sub(r"backup=backup/\S+", "backup=backup/week-1", restoring)

    def again(script: str) -> None:
        """Do all that a script does but to start our program, which the first time has shown."""
        done(script.replace(".venv/bin/position-sync", "true"))

    def done(script: str, folder: Path = tmp_path) -> str:
        ended = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr + ended.stdout
        return ended.stdout

    said = done(backing_up)
    assert re.search(r"good .*backup/.*/data/paper.* data files were read", said)
    absent = ["scenarios.yaml", "gateways.yaml"]
    assert re.findall("not there: (.*)", said) == absent
    (backup,) = tmp_path.glob("backup/*")
    assert (backup / "RELEASE").read_text().split()[1] == version("position-sync-dagster")
    assert backup.stat().st_mode & 0o077 == 0
    backup.rename(tmp_path / "backup/week-1")
    again(backing_up)
    assert len(list(tmp_path.glob("backup/*"))) == 2

    def texts_and_requests(folder: Path) -> tuple[set[str], int]:
        texts = {(folder / name).read_text() for name in written}
        return texts, MoneyLake(folder / "data/paper").queue.sync.counts()[QueueStatus.PENDING]

    # Twice on this machine, within whatever time, and on one that has nothing yet.
    lake.queue.sync.insert(2, "SPY")
    for name in (".env", home / "dagster.yaml", "gateways.yaml"):
        (tmp_path / name).write_text("# of now")
    assert re.findall("not in the backup: (.*)", done(restoring)) == absent
    assert (tmp_path / "gateways.yaml").read_text() == "# of now"
    assert texts_and_requests(tmp_path) == ({"# of the backup"}, 1)
    (aside,) = tmp_path.glob("aside/*")
    assert (aside / ".env").read_text() == "# of now"
    assert (aside / home.relative_to("/") / "dagster.yaml").read_text() == "# of now"
    assert texts_and_requests(aside)[1] == 2
    aside.rename(tmp_path / "aside/first")
    again(restoring)
    assert len(list(tmp_path.glob("aside/*"))) == 2

    new = tmp_path / "new machine"
    new.mkdir()
    (new / ".venv").symlink_to(sys.prefix)
    shutil.copytree(tmp_path / "backup", new / "backup")
    shutil.rmtree(home)
    done(restoring, new)
    assert texts_and_requests(new) == ({"# of the backup"}, 1)
    assert not list(new.glob("aside/*/*"))
