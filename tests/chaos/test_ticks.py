"""What a person or a machine does to a running program: it goes on, each row once, and says it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.processes.home import Home, instance_file
from position_sync_dagster.processes.supervisor import MODULE
from tests.acceptance.test_starting_again import log, program, streaming, until_valued
from tests.support.demo_program import (
    LIMIT_S,
    Demo,
    assert_tables_are_whole,
    clean_environment,
    query_ui,
    wait_for,
)
from tests.support.ports import free_port
from tests.support.promises import assert_one_writer_each

EVENTS = """{ assetOrError(assetKey: {path: ["position_updates"]}) { ... on Asset {
  assetMaterializations(limit: 2000) { timestamp metadataEntries {
    label ... on IntMetadataEntry { intValue } } } } } }"""

TICKS = """{ sensorOrError(sensorSelector: {sensorName: "drain_queue",
  repositoryName: "__repository__", repositoryLocationName: "position_sync_dagster"}) {
  ... on Sensor { sensorState { ticks(limit: 500) { skipReason } } } } }"""

# The folders of Dagster's home with its databases.
STORAGE = ("history", "schedules")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Return the demo that all tests of the module attack, one after the other."""
    started = Demo(tmp_path_factory.mktemp("ticks") / "home")
    streaming(started, after=None)
    until_valued(started, "the start")
    yield started
    started.close()


def assert_once(demo: Demo) -> None:
    """No request ended twice, and none without its row; no row was written twice."""
    done = demo.table("position_queue").filter(status="SUCCESS")
    rows = demo.updates()
    assert done["request_id"].is_unique().all()
    assert rows["request_id"].drop_nulls().is_unique().all()
    assert done.join(rows, on="update_id", how="anti").is_empty()
    assert_one_writer_each(MoneyLake(demo.lake))
    assert_tables_are_whole(demo.lake)


def assert_each_row_is_in_one_event(demo: Demo, *, after: int = 0) -> None:
    """The events of rows after a version follow one another, and count what the ledger has."""
    spans: list[tuple[int, int, int]] = []

    def answered() -> bool:
        with suppress(httpx.HTTPError):
            events = demo.graphql(EVENTS)["assetOrError"]["assetMaterializations"]
            found = [
                {entry["label"]: entry.get("intValue") for entry in event["metadataEntries"]}
                for event in reversed(events)
            ]
            spans[:] = [
                (row["delta_version_from"], row["delta_version"], row["rows"])
                for row in found
                if row["delta_version_from"] >= after
            ]
        return bool(spans)

    wait_for("the UI tells the events", answered, poll_s=0.5)
    assert all(span[0] == before[1] for before, span in pairwise(spans))
    versions = demo.updates()["ledger_version"]
    for begin, end, rows in spans:
        assert rows == ((versions > begin) & (versions <= end)).sum(), (begin, end)


def test_while_dagsters_storage_is_away_rows_go_on_and_their_events_come_later(demo):
    home, began = demo.home / "dagster_home", utc_now()
    for name in STORAGE:
        (home / name).rename(home / f"{name}.away")
        (home / name).touch()  # nothing can be created in its place
    enough = began + timedelta(seconds=40)

    def went_on() -> bool:
        demo.check()
        rows = pl.scan_delta(str(demo.lake / "position_updates"))
        return rows.filter(pl.col("timestamp") > enough).head(1).collect().height == 1

    wait_for("rows of the stream without Dagster's storage", went_on, poll_s=1.0)
    for name in STORAGE:
        (home / name).unlink()
        (home / f"{name}.away").rename(home / name)
    until_valued(demo, "Dagster's storage was away")
    assert_once(demo)
    assert_each_row_is_in_one_event(demo)


@contextmanager
def second_program(demo: Demo, folder: Path) -> Iterator[int]:
    """Run Dagster's programs in another home on the same lake; yield the port of its UI."""
    settings = Home.at(demo.home).read_settings()
    port = free_port()
    shutil.copyfile(instance_file(), folder / "dagster.yaml")
    with (folder / "second.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(port), str(os.getpid())],
            cwd=demo.home,
            env=clean_environment() | settings | {"DAGSTER_HOME": str(folder)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield port
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def claimed(ui_port: int) -> bool:
    """Return whether a tick of this home has claimed requests."""
    with suppress(httpx.HTTPError, KeyError):
        ticks = query_ui(ui_port, TICKS)["sensorOrError"]["sensorState"]["ticks"]
        return any(re.match("[1-9][0-9]* claimed", tick["skipReason"] or "") for tick in ticks)
    return False


def test_two_homes_drain_one_lake_and_value_each_request_once(demo, tmp_path):
    lake, session = MoneyLake(demo.lake), streaming(demo, after=None)
    legs = demo.updates().filter(source="QUEUE").unique(["account", "conid"]).to_dicts()
    asked: list[str] = []

    def both_drain() -> bool:
        demo.check()
        for _ in range(3):
            leg = legs[len(asked) % len(legs)]
            asked.append(
                lake.queue.sync.insert(leg["conid"], leg["symbol"], account=leg["account"])
            )
        return claimed(port)

    with second_program(demo, tmp_path) as port:
        wait_for("the second program drains too", both_drain, poll_s=0.3)
        until_valued(demo, "a second program drains")
    assert claimed(demo.ui_port)

    def answered() -> bool:
        done = demo.table("position_queue").filter(status="SUCCESS")
        return set(asked) <= set(done["request_id"])

    wait_for("each request is answered", answered, poll_s=0.5)
    assert streaming(demo, after=None).session_id == session.session_id
    assert_once(demo)


def test_a_code_server_that_stands_still_is_replaced_and_the_stream_goes_on(demo):
    session = streaming(demo, after=None)
    code_server = program(demo, "code server")
    code_server.suspend()
    until_valued(demo, "the code server stood still")
    said = f"The code server (process {code_server.pid}) has let no sensor tick for "
    assert said in log(demo)
    assert streaming(demo, after=None).session_id == session.session_id
    assert_once(demo)


def until_done(change: Any) -> None:
    """Change a table as a person does, who tries again when the program commits first."""

    def changed() -> bool:
        with suppress(DeltaError):
            change()
            return True
        return False

    wait_for("a commit of a person", changed, poll_s=0.05)


def restore(table: Path) -> int:
    """Restore a table as a person does, and return the version of the restored one."""
    handle = DeltaTable(table)
    handle.restore(handle.version() - 5)
    return handle.version()


def vacuum(table: Path) -> None:
    DeltaTable(table).vacuum(0, dry_run=False, enforce_retention_duration=False)


def test_a_lake_that_a_person_restores_and_vacuums_is_written_on(demo):
    until_done(lambda: restore(demo.lake / "position_queue"))
    restored: list[int] = []
    until_done(lambda: restored.append(restore(demo.lake / "position_updates")))
    until_valued(demo, "the tables were restored")
    for path in demo.lake.glob("*/_delta_log"):
        until_done(lambda table=path.parent: vacuum(table))
    until_valued(demo, "all tables were vacuumed")
    rows = demo.updates()
    assert rows["request_id"].drop_nulls().is_unique().all()
    assert_one_writer_each(MoneyLake(demo.lake))
    assert_tables_are_whole(demo.lake)
    # An event before it may count rows that the person took back.
    assert_each_row_is_in_one_event(demo, after=restored[-1])
