"""Runs are forked from a process that has imported Dagster, and end as any run of Dagster does."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psutil
import pytest
from dagster._core.workspace.context import BaseWorkspaceRequestContext, WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget, PythonFileTarget

from position_sync_dagster.dagster_host import PRELOADED, daemon, process_context
from position_sync_dagster.dagster_host.launcher import (
    NICENESS,
    PROCESS_TAG,
    ForkedRunLauncher,
    process_of,
)
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.processes.reaper import identity_of
from tests.support import launched_jobs
from tests.support.demo_program import wait_for

LAUNCHER = {
    "run_launcher": {"module": ForkedRunLauncher.__module__, "class": ForkedRunLauncher.__name__}
}
IN_PLACE = """
import dagster as dg

@dg.op
def say(context):
    context.log_event(dg.AssetObservation("said", metadata={"said": "SAID"}))

@dg.job(executor_def=dg.in_process_executor)
def says():
    say()

defs = dg.Definitions(jobs=[says])
"""

Launch = Callable[[str], str]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home = tmp_path_factory.mktemp("home")
    with dg.instance_for_test(overrides=LAUNCHER, temp_dir=str(home)) as instance:
        assert isinstance(instance.run_launcher, ForkedRunLauncher)
        yield instance


@pytest.fixture(scope="module")
def workspace(instance: dg.DagsterInstance) -> Iterator[BaseWorkspaceRequestContext]:
    target = ModuleTarget(
        launched_jobs.__name__, attribute="defs", working_directory=None, location_name="launched"
    )
    with WorkspaceProcessContext(instance, target) as context:
        yield context.create_request_context()


@pytest.fixture
def launch(instance: dg.DagsterInstance, workspace: BaseWorkspaceRequestContext) -> Launch:
    return lambda job: launched(instance, workspace, launched_jobs.defs, job)


def launched(
    instance: dg.DagsterInstance,
    workspace: BaseWorkspaceRequestContext,
    defs: dg.Definitions,
    job: str,
) -> str:
    """Launch a run as Dagster's daemon does; give its id."""
    (location,) = workspace.code_locations
    remote = location.get_repository("__repository__").get_full_job(job)
    run = instance.create_run_for_job(
        defs.get_job_def(job),
        tags=remote.run_tags,
        remote_job_origin=remote.get_remote_origin(),
        job_code_origin=remote.get_python_origin(),
    )
    instance.launch_run(run.run_id, workspace)
    return run.run_id


def run_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def until(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> dg.DagsterRun:
    def reached() -> dg.DagsterRun | None:
        run = run_of(instance, run_id)
        assert run.status is status or not run.is_finished, messages(instance, run_id)
        return run if run.status is status else None

    found: dg.DagsterRun = wait_for(f"the run is {status.value}", reached)
    return found


def messages(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.message for entry in instance.all_logs(run_id)]


def process_in(instance: dg.DagsterInstance, run_id: str) -> psutil.Process:
    """Give the process of a run that has begun its step."""
    until(instance, run_id, dg.DagsterRunStatus.STARTED)
    wait_for(
        "its step",
        lambda: any("STEP_START" in str(e.dagster_event) for e in instance.all_logs(run_id)),
    )
    process = process_of(run_of(instance, run_id))
    assert process is not None
    return process


@pytest.mark.parametrize(("job", "nicer"), [("shows", NICENESS), ("shows_first", 0)])
def test_a_run_leaves_the_processor_to_others_unless_it_has_a_priority(
    instance, launch, job, nicer
):
    until(instance, launch(job), dg.DagsterRunStatus.SUCCESS)
    (record,) = instance.fetch_observations(dg.AssetKey("shown"), limit=1).records
    assert launched_jobs.shown(record)["niceness"] == min(psutil.Process().nice() + nicer, 19)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
def test_a_run_is_forked_from_a_process_with_no_thread_that_it_needs(instance, launch):
    run_id = launch("shows")
    run = until(instance, run_id, dg.DagsterRunStatus.SUCCESS)
    (record,) = instance.fetch_observations(dg.AssetKey("shown"), limit=1).records
    shown = launched_jobs.shown(record)
    assert "multiprocessing.forkserver" in shown["parent"]
    assert shown["parents_threads"] == ["polars-ooc-clea", "python"]
    assert shown["main_thread"]
    assert shown["cwd"] == os.getcwd()
    assert shown["definitions_imported"], "before the fork"
    assert shown["pid"] == json.loads(run.tags[PROCESS_TAG])["pid"] != os.getpid()
    assert f"Started process for run (pid: {shown['pid']})." in messages(instance, run_id)


def test_what_a_run_prints_is_kept(instance, launch):
    run_id = launch("shows")
    until(instance, run_id, dg.DagsterRunStatus.SUCCESS)
    (key,) = [
        event.dagster_event.logs_captured_data.file_key
        for event in instance.all_logs(run_id, of_type=dg.DagsterEventType.LOGS_CAPTURED)
    ]
    data = wait_for(
        "the log",
        lambda: instance.compute_log_manager.get_log_data([run_id, "compute_logs", key]).stdout,
    )
    assert b"printed by " in data


def test_a_run_whose_process_is_killed_has_failed(instance, launch):
    run_id = launch("waits")
    process_in(instance, run_id).kill()
    until(instance, run_id, dg.DagsterRunStatus.FAILURE)
    assert any("SIGKILL" in text for text in messages(instance, run_id))


def test_a_run_whose_process_ends_by_itself_has_failed(instance, launch):
    run_id = launch("ends_itself")
    until(instance, run_id, dg.DagsterRunStatus.FAILURE)
    assert any("exited with code 3" in text for text in messages(instance, run_id))


def test_a_run_that_is_terminated_while_its_process_begins_is_canceled(instance, launch, capfd):
    run_id = launch("waits")
    assert instance.run_launcher.terminate(run_id)
    until(instance, run_id, dg.DagsterRunStatus.CANCELED)
    assert "KeyboardInterrupt" not in capfd.readouterr().err


def test_a_run_that_is_being_terminated_when_its_process_reads_it_is_canceled(
    instance, launch, monkeypatch
):
    tag = instance.add_run_tags

    def tag_and_terminate(run_id, tags):
        tag(run_id, tags)
        instance.report_run_canceling(run_of(instance, run_id))

    monkeypatch.setattr(instance, "add_run_tags", tag_and_terminate)
    until(instance, launch("waits"), dg.DagsterRunStatus.CANCELED)


def test_a_daemon_that_follows_watches_the_runs_of_the_one_before(instance, launch):
    run_id = launch("waits")
    process = process_in(instance, run_id)
    with dg.DagsterInstance.from_ref(instance.get_ref()) as next_daemon:
        # What the launcher of the killed daemon would do is left out: it died with it.
        instance.run_launcher._report_failed = lambda *_: None
        try:
            next_daemon.run_launcher.adopt_runs()
            assert run_of(instance, run_id).status is dg.DagsterRunStatus.STARTED
            process.kill()
            until(instance, run_id, dg.DagsterRunStatus.FAILURE)
        finally:
            del instance.run_launcher._report_failed
    assert any("started by an earlier daemon" in text for text in messages(instance, run_id))


def test_a_daemon_that_follows_reports_runs_whose_process_is_gone(instance, workspace):
    defs = launched_jobs.defs
    gone, other = (instance.create_run_for_job(defs.get_job_def("waits")) for _ in range(2))
    instance.report_engine_event("it was being launched", gone)
    instance.handle_run_event(
        gone.run_id,
        dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, "waits"),
        utc_now(),
    )
    instance.run_launcher.adopt_runs()
    until(instance, gone.run_id, dg.DagsterRunStatus.FAILURE)
    assert run_of(instance, other.run_id).status is dg.DagsterRunStatus.NOT_STARTED


def test_a_run_that_the_daemon_is_launching_is_none_of_a_daemon_before(instance, monkeypatch):
    """The threads of the daemon launch queued runs from their first moment on."""
    run = instance.create_run_for_job(launched_jobs.defs.get_job_def("waits"))
    found = []

    @contextmanager
    def working(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        starting = dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, "waits")
        instance.handle_run_event(run.run_id, starting, utc_now())
        yield SimpleNamespace(
            check_daemon_loop=lambda: found.append(run_of(instance, run.run_id).status)
        )

    internals = SimpleNamespace(
        get_instance_for_cli=lambda: nullcontext(instance),
        capture_interrupts=nullcontext,
        daemon_controller_from_instance=working,
        WorkspaceFileTarget=list,
    )
    monkeypatch.setattr(daemon, "give_signs", lambda: None)
    try:
        daemon.run("workspace.yaml", internals)
        assert found == [dg.DagsterRunStatus.STARTING]
    finally:
        instance.delete_run(run.run_id)


def test_any_program_of_the_instance_terminates_a_run(instance, launch):
    run_id = launch("waits")
    process = process_in(instance, run_id)
    with dg.DagsterInstance.from_ref(instance.get_ref()) as webserver:
        assert webserver.run_launcher.terminate(run_id)
    until(instance, run_id, dg.DagsterRunStatus.CANCELED)
    wait_for("its process has ended", lambda: not process.is_running())
    assert not instance.run_launcher.terminate(run_id), "it has ended"


def test_the_process_of_another_program_is_not_interrupted(instance, launch):
    run_id = launch("waits")
    process = process_in(instance, run_id)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        earlier = identity_of(psutil.Process(other.pid))
        earlier["since_boot_s"] -= 60
        instance.add_run_tags(run_id, {PROCESS_TAG: json.dumps(earlier)})
        assert not instance.run_launcher.terminate(run_id)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        process.send_signal(signal.SIGINT)
    until(instance, run_id, dg.DagsterRunStatus.CANCELED)


def test_a_run_goes_on_and_is_watched_when_the_fork_server_ends(instance, launch):
    run_id = launch("waits")
    process = process_in(instance, run_id)
    server = process.parent()
    assert server is not None
    server.kill()
    wait_for("the fork server has ended", lambda: process.ppid() != server.pid)
    until(instance, launch("shows"), dg.DagsterRunStatus.SUCCESS)  # from another fork server
    assert run_of(instance, run_id).status is dg.DagsterRunStatus.STARTED
    process.kill()
    until(instance, run_id, dg.DagsterRunStatus.FAILURE)


def test_each_run_loads_the_code_as_it_is_then(instance, tmp_path: Path):
    file = tmp_path / "jobs.py"
    file.write_text(IN_PLACE)
    target = PythonFileTarget(str(file), "defs", working_directory=str(tmp_path), location_name="x")
    spec = spec_from_file_location("jobs", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    said = []
    with WorkspaceProcessContext(instance, target) as context:
        for text in ("first", "second"):
            file.write_text(IN_PLACE.replace("SAID", text))
            workspace = context.create_request_context()
            run_id = launched(instance, workspace, module.defs, "says")
            until(instance, run_id, dg.DagsterRunStatus.SUCCESS)
            (record,) = instance.fetch_observations(dg.AssetKey("said"), limit=1).records
            said.append(record.asset_observation.metadata["said"].value)
    assert said == ["first", "second"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere runs are not forked")
def test_what_is_imported_once_for_all_runs_starts_no_thread_that_computes():
    """Polars and Delta Lake would wait forever in a fork of a process that has used them."""
    code = (
        f"import os, sys, {PRELOADED} as preloaded\n"
        "from tests.support.launched_jobs import names_of_threads\n"
        "print(*names_of_threads(os.getpid()))\n"
        "print(*sys.modules.keys() - preloaded.imported.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    threads, libraries = (line.split() for line in done.stdout.splitlines())
    assert threads == ["polars-ooc-clea", "python"]
    assert {"polars", "deltalake"} < set(libraries)
    assert not {"numpy", "QuantLib"} & set(libraries)
    assert not [name for name in libraries if name.partition(".")[0] == PRELOADED.partition(".")[0]]
    assert done.stderr == ""


def test_the_process_to_fork_from_can_be_started_before_the_first_run():
    code = (
        "import psutil, time\n"
        "from position_sync_dagster.dagster_host import prepare_processes\n"
        "prepare_processes()\n"
        "children = psutil.Process().children()\n"
        # Between its fork and its exec a process has no command line.
        "while not all(child.cmdline() for child in children):\n"
        "    time.sleep(0.01)\n"
        "print(*(' '.join(child.cmdline()) for child in children))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    forks = process_context().get_start_method() == "forkserver"
    assert ("multiprocessing.forkserver" in done.stdout) is forks


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Dagster's own way remains")
@pytest.mark.parametrize("killed", [True, False])
def test_what_shows_the_output_of_a_run_is_one_process_that_ends_with_it(tmp_path, killed):
    code = (
        "import os, sys, time\n"
        "from dagster._core.execution import compute_logs\n"
        "from position_sync_dagster.dagster_host import dagster_internals\n"
        "dagster_internals.show_output_by_tail_alone()\n"
        f"with compute_logs.mirror_stream_to_file(sys.stdout, {str(tmp_path / 'out')!r}) as pids:\n"
        "    print('shown', *pids, flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        _shown, tail, watcher = process.stdout.readline().split()
        (child,) = psutil.Process(process.pid).children()
        assert (str(child.pid), watcher) == (tail, "None")
        if killed:
            process.kill()
        else:
            process.stdin.write("\n")
            process.stdin.close()
        process.wait()
        wait_for("it ends", lambda: not child.is_running() or child.status() == "zombie")
