"""A run that ends between commit and event: one that lives on logs it, a killed one is mended."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.defs.assets.position_updates import position_updates
from position_sync_dagster.domain.gateway_session import RecordedBy, RunResult
from position_sync_dagster.domain.update import Source
from position_sync_dagster.errors import LakeError
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.lake.queue.operations import SyncQueue
from position_sync_dagster.lake.updates.position_updates import SyncUpdates
from position_sync_dagster.lake.updates.provenance import LedgerProvenance
from position_sync_dagster.settings import Settings, load_settings
from position_sync_dagster.sync.drain.worker import QueueWorker
from tests.support.audited_worker import POINTS
from tests.support.booked_legs import terms_of
from tests.support.forked_workers import worker_forker

CALL = 921000001
MODULE = "tests.support.audited_worker"
KILLS = int(os.environ.get("AUDIT_KILLS", "4"))
"""`make chaos` makes 20."""

LIMIT_S = 30.0
"""After this time something hangs."""

INSTANCE = """
telemetry: {enabled: false}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
"""Without logs of the output: Dagster copies them with `tail`, which outlives a killed process and
holds its pipes where the interrupt is ignored, as in a shell's background."""


@pytest.fixture
def dagster_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a home with Dagster's storage, as the command line finds it."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text(INSTANCE)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def verify(*options: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["audit", "verify", "--grace", "0", "--json", *options])
    assert isinstance(result.exception, SystemExit | None), result.exception
    printed = json.loads(result.stdout)
    assert result.exit_code == (1 if printed["left"] else 0), result.output
    return printed


def own_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith("POSITION_SYNC_")}


@pytest.mark.parametrize("point", list(islice(cycle(POINTS), KILLS)))
def test_a_drain_killed_between_commit_and_event_is_found_and_mended(
    point, dagster_home, lake: Lake, own_login, write_holdings, enqueue
) -> None:
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1, 2, 3)
    worker = worker_forker(MODULE).start("drain", str(dagster_home), own_environment(), point)
    worker.begin()
    assert f"at {point}\n" in worker.output()
    assert lake.updates.sync.count() == 3

    has_event = point == "before the record"
    found = verify()["left"]
    kinds = {one["kind"] for one in found}
    assert kinds == {"RECORD_MISSING"} | (set() if has_event else {"EVENT_MISSING"})
    (run_id,) = {one["run_id"] for one in found}
    assert all(one["rows"] == 3 for one in found)

    mended = verify("--repair")
    assert mended["left"] == []
    assert len(mended["found"]["findings"]) == len(found)
    assert verify()["found"]["findings"] == []

    (record,) = lake.runs.get(run_id)
    assert (record.rows, record.commits, record.table_name) == (3, 1, "position_updates")
    assert record.recorded_by is RecordedBy.AUDIT
    assert record.result is RunResult.LOST
    assert record.claimed is None, "what only the run knew stays unknown"
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        seen = instance.fetch_observations(dg.AssetKey("position_updates"), limit=10).records
    named = [one.event_log_entry.asset_observation.metadata["audit/run_id"].value for one in seen]
    assert named == ([] if has_event else [run_id])


@pytest.mark.parametrize(
    ("owner", "call"),
    [(SyncQueue, "claim_batch"), (SyncUpdates, "append"), (SyncQueue, "mark_success")],
)
def test_an_interrupted_drain_ends_its_batch_and_logs_its_rows(
    owner, call, lake: Lake, own_login, write_holdings, enqueue, materialize, instance, monkeypatch
) -> None:
    """The end of a demo, Ctrl-C and a termination in the UI interrupt it at any moment."""
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "2")
    monkeypatch.setattr(Settings, "max_batch_size", 2)
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1, 2, 3)
    interrupt_after(monkeypatch, owner, call)
    assert not materialize(position_updates).success, "no other step begins"
    (record,) = instance.fetch_materializations(position_updates.key, limit=2).records
    event = record.asset_materialization
    assert event.metadata["drain/rows"].value == lake.updates.sync.count() == 2
    assert event.metadata["drain/pending_after"].value == 1, "it has claimed no other batch"


@pytest.mark.parametrize(
    ("owner", "call", "rows"),
    [
        (SyncQueue, "claim_batch", 2),
        (SyncUpdates, "append", 2),
        (SyncQueue, "mark_success", 3),
        (SyncQueue, "overview", 3),
    ],
)
def test_a_drain_that_fails_later_logs_the_rows_that_it_has_written(
    owner,
    call,
    rows,
    lake: Lake,
    own_login,
    write_holdings,
    enqueue,
    materialize,
    instance,
    monkeypatch,
) -> None:
    monkeypatch.setenv("POSITION_SYNC_BATCH_SIZE", "2")
    monkeypatch.setattr(Settings, "max_batch_size", 2)
    write_holdings(own_login(), 1, 2, 3)
    enqueue(1, 2, 3)
    with monkeypatch.context() as fault:
        fail_at_second(fault, owner, call)
        done = materialize(position_updates)
    (failure,) = done.get_step_failure_events()
    assert "The disk is full." in str(failure.step_failure_data.error)
    (record,) = instance.fetch_materializations(position_updates.key, limit=2).records
    event = record.asset_materialization
    assert event.metadata["drain/rows"].value == lake.updates.sync.count() == rows
    assert materialize(position_updates).success
    assert lake.updates.sync.count() == 3, "each request has its row once"


def fail_at_second(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Let the second call of a function fail, as a full disk does."""
    real, calls = getattr(owner, name), count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            raise LakeError("The disk is full.", remedy="Make room.")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """Interrupt this process after the first call of a function, which then returns.

    It returns when the drain knows of the interrupt.
    """
    real: Callable[..., Any] = getattr(owner, name)
    stop, stopping, interrupted = QueueWorker.stop, threading.Event(), threading.Event()

    async def stops(worker: QueueWorker) -> None:
        await stop(worker)
        stopping.set()

    def call(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        if not interrupted.is_set():
            interrupted.set()
            os.kill(os.getpid(), signal.SIGINT)
            assert stopping.wait(LIMIT_S)
        return result

    monkeypatch.setattr(owner, name, call)
    monkeypatch.setattr(QueueWorker, "stop", stops)


async def test_a_killed_stream_is_found_when_its_lease_is_over_and_mended(
    dagster_home, lake: Lake, simulate, monkeypatch, eventually
) -> None:
    async with simulate() as sim:
        monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(sim.port))
        monkeypatch.setenv("POSITION_SYNC_SESSION_LEASE_S", "5")
        lake.registry.sync.add_active(CALL, **terms_of(CALL), strategy_id="one")
        worker = worker_forker(MODULE).start("stream", str(dagster_home), own_environment(), "")
        worker.begin()
        try:
            await eventually(lambda: streamed(lake) >= 3)
            session = lake.sessions.current(load_settings().gateway_id)
            assert session is not None
            run_id = session.run_id
            assert run_id is not None
            assert verify()["left"] == [], "a stream that lives is in progress"
        finally:
            worker.kill()
    (before,) = lake.runs.get(run_id)
    assert before.result is RunResult.RUNNING, "it was recorded when it owned the login"
    await eventually(lambda: verify()["left"])
    kinds = {one["kind"] for one in verify()["left"]}
    assert kinds == {"EVENT_MISSING", "RECORD_BEHIND"}
    assert verify("--repair")["left"] == []
    (record,) = lake.runs.get(run_id)
    assert (record.result, record.recorded_by) == (RunResult.LOST, RecordedBy.AUDIT)
    assert (record.rows, record.ended_at) == (streamed(lake), None)
    assert record.session_id == session.session_id


def streamed(lake: Lake) -> int:
    rows = lake.updates.table.rows(columns=["source", "run_id"])
    return rows.filter(rows["source"] == Source.STREAM.value, rows["run_id"].is_not_null()).height


def test_commits_of_runs_are_read_from_the_ledger(lake: Lake, append_row, seconds_ago) -> None:
    append_row(1, seconds_ago(5), run_id="run-1")
    append_row(2, seconds_ago(4))
    frame = LedgerProvenance(lake.updates.table).commits_by_run(seconds_ago(60).date())
    assert frame.select("run_id", "rows").rows() == [("run-1", 1)]
