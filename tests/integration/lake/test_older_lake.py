"""A lake that an older release was writing goes on: nothing is lost, and what waited is answered.

`tests/support/older-lake.tar.gz` was written by the release of commit d35d2a4, with its stream, its
drain and its command line: a streamed leg, nine holdings, seven answered requests, two that
wait, and one that a worker had claimed when it was stopped. Five of its tables have older columns.
"""

import asyncio
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from polars.testing import assert_frame_equal

from position_sync_dagster.domain.queue_request import QueueStatus
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.schema import VERSION_PROPERTY
from position_sync_dagster.processes.preflight import Level, run_preflight
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.stream.streamer import stream
from tests.support.hosts import ROOT

OLDER = ROOT / "tests" / "support" / "older-lake.tar.gz"
LEG = 921000001
ABSENT = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with tarfile.open(OLDER) as archive:
        # The argument `filter` came with 3.11.4: Debian 12 has 3.11.2.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "lake")  # noqa: S202 - an archive of this repository
    return tmp_path / "lake"


def rows_of(folder: Path, table: str, key: str) -> pl.DataFrame:
    return pl.read_delta(str(folder / table)).sort(key)


async def test_doctor_reads_an_older_lake_and_leaves_it_to_its_programs(
    folder, simulate, settings_for, tmp_path
):
    before = {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}
    async with simulate() as sim:
        settings = settings_for(sim, lake=str(folder), trading_mode="SIMULATED")
        to_thread = await asyncio.to_thread(
            run_preflight, settings, {}, env_file=None, dagster_home=tmp_path / "home"
        )
    # The book's worthless option has a portfolio row at 0, which is no value, in any lake.
    [worthless] = [finding for finding in to_thread if finding.level is not Level.GOOD]
    assert worthless.check == "positions", to_thread
    assert worthless.level == Level.WARNING, to_thread
    assert {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")} == before


async def test_an_older_lake_loses_no_row_and_its_waiting_requests_end_once(
    folder, simulate, settings_for, eventually
):
    keys = {"position_updates": "update_id", "position_queue": "request_id"}
    before = {name: rows_of(folder, name, key) for name, key in keys.items()}
    ledger, requests = before.values()
    waiting = requests.filter(~pl.col("status").is_in(["SUCCESS", "FAILED"]))
    assert sorted(waiting["status"]) == ["PENDING", "PENDING", "PROCESSING"]

    async with simulate() as sim:
        settings = settings_for(sim, lake=str(folder), underlying_lines=0)
        lake = Lake.of(settings)
        await lake.initialize()
        for table in lake.tables:
            properties = DeltaTable(str(table.path)).metadata().configuration
            assert properties[VERSION_PROPERTY] == str(table.spec.version), table.path
        for name, key in (("position_updates", "update_id"), ("position_queue", "request_id")):
            after = rows_of(folder, name, key).select(before[name].columns)
            assert_frame_equal(after, before[name])
        await lake.registry.refresh()
        assert [leg.conid for leg in lake.registry.legs] == [LEG]

        stop = asyncio.Event()
        streaming = asyncio.create_task(stream(lake, settings, run_id="new", stop=stop))

        async def answered() -> bool:
            await drain(lake, settings)
            counts = await lake.queue.counts()
            return counts[QueueStatus.PENDING] + counts[QueueStatus.PROCESSING] == 0

        def streams_its_leg() -> bool:
            session = lake.sessions.current(settings.gateway_id)
            return session is not None and session.lines_in_use == 1

        await eventually(streams_its_leg)
        await eventually(answered)
        stop.set()
        await streaming
    ended: dict[Any, Any] = {}
    for status in (QueueStatus.SUCCESS, QueueStatus.FAILED):
        batch = await lake.queue.get_batch(None, status=status)
        ended |= {request.request_id: request for request in batch}

    assert set(requests["request_id"]) <= ended.keys()

    for request_id, conid in waiting.select("request_id", "conid").iter_rows():
        request = ended[request_id]
        held = conid != ABSENT
        assert request.status is (QueueStatus.SUCCESS if held else QueueStatus.FAILED)
    rows = rows_of(folder, "position_updates", "update_id")
    assert set(ledger["update_id"]) < set(rows["update_id"])
    assert rows["update_id"].is_unique().all()
