"""The stream's op: its thread, its events, its clean end."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from position_sync_dagster.defs.resources import POSITION_SYNC
from position_sync_dagster.defs.stream import materializations, stream_positions
from position_sync_dagster.defs.stream_thread import StreamThread
from position_sync_dagster.errors import LeaseLostError, LoginOwnedError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import Settings
from position_sync_dagster.sync.run_reports import StreamReport
from position_sync_dagster.sync.stream import service as stream_module

NOW = datetime(2026, 3, 9, 15, 0, tzinfo=UTC)

REPORT = StreamReport(
    since=NOW,
    until=NOW,
    rows=120,
    commits=60,
    version_from=10,
    version_to=70,
    enqueued=180,
    queue_version=5,
    lines_in_use=20,
    line_limit=100,
    legs_streamed=20,
    reconnects=0,
    promotions=2,
    demotions=1,
    tick_to_table_p50_s=0.5,
    tick_to_table_p95_s=0.9,
    state="LIVE",
)

Stream = Callable[..., Any]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stream], None]:
    """Replace the real stream by another function."""
    return lambda stream: monkeypatch.setattr(stream_module, "stream", stream)


@pytest.fixture
def run(settings: Settings, instance: dg.DagsterInstance) -> Callable[[], Any]:
    return lambda: stream_positions.execute_in_process(
        instance=instance,
        resources={"position_sync": POSITION_SYNC},
        raise_on_error=False,
    )


def test_a_report_becomes_events_on_the_tables_that_changed(play, run) -> None:
    async def stream(lake, settings, *, run_id, stop, report):
        report(REPORT)
        report(replace(REPORT, enqueued=0, version_from=70, version_to=90))
        return REPORT

    play(stream)
    result = run()
    assert result.success
    events = result.asset_materializations_for_node("stream_legs")
    assert [(e.asset_key.to_user_string(), e.tags["dagster/data_version"]) for e in events] == [
        ("position_updates", "70"),
        ("position_queue", "5"),
        ("position_updates", "90"),
    ]
    assert events[0].metadata["stream/rows"].value == 120
    assert events[0].metadata["stream/tick_to_table_p95_s"].value == 0.9


def test_a_span_without_a_commit_makes_no_event() -> None:
    silent = replace(REPORT, rows=0, version_from=None, version_to=None, enqueued=0)
    assert materializations(silent) == []


@pytest.mark.parametrize("kind", [LoginOwnedError, LeaseLostError])
def test_an_error_of_the_stream_fails_the_run_with_what_and_remedy(play, run, kind) -> None:
    async def stream(lake, settings, *, run_id, stop, report):
        raise kind("The login is taken.", remedy="Wait for it.")

    play(stream)
    result = run()
    assert not result.success
    message = result.failure_data_for_node("stream_legs").error.message
    assert "The login is taken. Wait for it." in message


def test_an_interrupt_in_the_main_thread_lets_the_stream_end_cleanly(
    play, lake: Lake, settings: Settings
) -> None:
    """Dagster terminates a run by raising in its main thread."""
    seen = []

    async def stream(lake, settings, *, run_id, stop, report):
        seen.append(threading.current_thread() is threading.main_thread())
        report(REPORT)
        await stop.wait()
        await asyncio.sleep(0)
        seen.append("ended")
        return REPORT

    play(stream)
    thread = StreamThread(lake, settings, run_id="r")

    def interrupted() -> None:
        with thread.running(grace_s=5):
            for _ in thread.reports():
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [False, "ended"]
    assert thread.result() == REPORT


def test_the_stream_gets_the_id_of_its_run_so_that_its_rows_carry_it(play, run) -> None:
    run_ids = []

    async def stream(lake, settings, *, run_id, stop, report):
        run_ids.append(run_id)
        return REPORT

    play(stream)
    assert run().run_id == run_ids[0]


def test_a_stream_that_does_not_end_in_time_is_an_error(
    play, lake: Lake, settings: Settings
) -> None:
    release = threading.Event()

    async def stream(lake, settings, *, run_id, stop, report):
        await asyncio.to_thread(release.wait)
        return REPORT

    play(stream)
    thread = StreamThread(lake, settings, run_id="r")
    with thread.running(grace_s=0.01):
        pass
    with pytest.raises(TimeoutError, match="did not end in time"):
        thread.result()
    release.set()
    assert list(thread.reports()) == []
