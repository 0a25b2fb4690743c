"""The code server of a deployment forks its runs, and passes a stop on to them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from position_sync_dagster.dagster_host import launcher
from position_sync_dagster.lake.lake import Lake
from tests.integration.dagster_host.test_forked_run_launcher import launched, messages, until
from tests.support import launched_jobs
from tests.support.demo_program import wait_for
from tests.support.ports import free_port
from tests.support.waiting import eventually


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def server(
    instance: dg.DagsterInstance, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], BaseWorkspaceRequestContext]]:
    """Return a code server as a container starts it, and a workspace with it."""
    port = free_port()
    command = [sys.executable, "-m", launcher.__name__, "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--module-name", launched_jobs.__name__, "--location-name", "launched"],
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
        start_new_session=True,
    )
    try:
        target = GrpcServerTarget(
            host="127.0.0.1", port=port, socket=None, location_name="launched"
        )
        wait_for("the code server answers", lambda: _answers(port))
        with WorkspaceProcessContext(instance, target) as context:
            yield process, context.create_request_context()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
def test_a_code_server_forks_its_runs_and_a_stop_of_all_interrupts_them(instance, server):
    process, workspace = server
    run_id = launched(instance, workspace, launched_jobs.defs, "shows")
    until(instance, run_id, dg.DagsterRunStatus.SUCCESS)
    (record,) = instance.fetch_observations(dg.AssetKey("shown"), limit=1).records
    shown = launched_jobs.shown(record)
    assert "multiprocessing.forkserver" in shown["parent"]
    assert shown["parents_threads"] == ["polars-ooc-clea", "python"]
    assert shown["main_thread"]
    assert shown["definitions_imported"], "before the fork"
    assert os.getpgid(process.pid) == shown["group"], "which a stop of the container reaches"
    assert not shown["main_module_again"]

    run_id = launched(instance, workspace, launched_jobs.defs, "ends_itself")
    until(instance, run_id, dg.DagsterRunStatus.FAILURE)
    run_id = launched(instance, workspace, launched_jobs.defs, "waits")
    wait_for("its step", lambda: any("wait_for" in text for text in messages(instance, run_id)))
    assert instance.run_launcher.terminate(run_id)
    until(instance, run_id, dg.DagsterRunStatus.CANCELED)

    run_id = launched(instance, workspace, launched_jobs.defs, "waits")
    wait_for("its step", lambda: any("wait_for" in text for text in messages(instance, run_id)))
    group = [one for one in psutil.process_iter() if os.getpgid(one.pid) == process.pid]
    assert len(group) > 1
    os.killpg(process.pid, signal.SIGTERM)
    psutil.wait_procs(group, timeout=60)
    assert not [one for one in group if one.is_running()], "a run or the fork server is left"


async def test_a_code_server_opens_the_tables_of_a_store_and_leaves_a_folder_to_the_runs(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("POSITION_SYNC_LAKE", str(tmp_path / "lake"))
    launcher.open_tables()
    assert not (tmp_path / "lake").exists()
    monkeypatch.setenv("POSITION_SYNC_LAKE", store.lake())
    launcher.open_tables()
    lake = Lake(os.environ["POSITION_SYNC_LAKE"])
    await eventually(lambda: all(table.exists() for table in lake.tables))
