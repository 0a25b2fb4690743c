"""Another version of Dagster may lack a private symbol: everything runs, and says so once."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.sql import get_alembic_config
from sqlalchemy import Engine, NullPool, create_engine, inspect, text
from sqlalchemy.event import listens_for

from position_sync_dagster.dagster_host import (
    LACKING,
    daemon,
    dagster_internals,
    launcher,
    services,
    standby_daemon,
)
from position_sync_dagster.dagster_host.dagster_internals import Internal
from position_sync_dagster.defs import maintenance
from position_sync_dagster.defs.assets import daily_positions
from position_sync_dagster.defs.checks.check_results import check_evaluation, unknown_result
from position_sync_dagster.settings import load_settings

ALL = [one for one in vars(dagster_internals).values() if isinstance(one, Internal)]
SYMBOLS = [(internal, name) for internal in ALL for name in internal.symbols]


@pytest.fixture(autouse=True)
def _load_again():
    dagster_internals._load.cache_clear()
    yield
    dagster_internals._load.cache_clear()


@pytest.fixture
def remove(monkeypatch):
    """Remove symbols from Dagster, as another version of it might."""

    def removed(internal: Internal, *names: str) -> None:
        for name in names or internal.symbols:
            monkeypatch.delattr(import_module(internal.symbols[name]), name, raising=False)

    return removed


@pytest.mark.parametrize(("internal", "name"), SYMBOLS)
def test_a_symbol_that_is_missing_is_logged_once_with_what_happens_instead(
    internal, name, remove, caplog
):
    assert getattr(internal.load(), name) is not None
    dagster_internals._load.cache_clear()
    remove(internal, name)
    assert internal.load() is None
    assert internal.load() is None
    (line,) = caplog.messages
    assert f"no {internal.symbols[name]}.{name}. " in line
    assert line.endswith(f"{internal.without}.")


@pytest.mark.parametrize("name", dagster_internals.FORKED_RUNS.symbols)
def test_without_what_forks_a_run_dagsters_own_launcher_starts_and_ends_it(
    name, remove, monkeypatch
):
    remove(dagster_internals.FORKED_RUNS, name)
    called = []
    own = dg.DefaultRunLauncher
    monkeypatch.setattr(own, "launch_run", lambda self, it: called.append(("launch_run", it)))
    monkeypatch.setattr(own, "terminate", lambda self, it: called.append(("terminate", it)))
    one = launcher.ForkedRunLauncher()
    context = SimpleNamespace(dagster_run=None)
    one.launch_run(context)
    with dg.instance_for_test() as instance:
        run = dg.DagsterRun(job_name="job", status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        one.register_instance(instance)
        one.terminate(run.run_id)
    assert called == [("launch_run", context), ("terminate", run.run_id)]


def test_what_forked_runs_would_import_need_not_be_there(monkeypatch):
    monkeypatch.setattr(dagster_internals, "IMPORTED_BY_RUNS", ("dagster._gone",))
    monkeypatch.setattr(dagster_internals, "SQLITE_STORAGES", ("dagster._gone", "dagster"))
    dagster_internals.import_for_runs(postgres=False)
    monkeypatch.setattr(dagster_internals, "MIGRATIONS", "dagster:_gone")
    monkeypatch.setattr(dagster_internals, "CAPTURED_OUTPUT", "dagster._gone")
    dagster_internals.show_output_by_tail_alone()
    monkeypatch.setattr(dagster_internals, "RUN_QUEUE", "dagster._gone")
    dagster_internals.pass_over_empty_queue()
    dagster_internals.keep_engines()
    dagster_internals.keep_migrations()
    assert callable(launcher.execute)


def test_the_migrations_of_a_storage_are_read_once():
    dagster_internals.keep_migrations()
    config = get_alembic_config(sqlite_event_log.__file__)
    first = ScriptDirectory.from_config(config)
    assert ScriptDirectory.from_config(get_alembic_config(sqlite_event_log.__file__)) is first
    assert first.as_revision_number("head")


def test_the_limits_of_runs_are_read_only_when_a_run_waits(monkeypatch):
    looked = []
    queue = import_module(dagster_internals.RUN_QUEUE).QueuedRunCoordinatorDaemon
    monkeypatch.setattr(queue, "run_iteration", lambda _self, context: iter([looked.append(1)]))
    dagster_internals.pass_over_empty_queue()
    runs = {dg.DagsterRunStatus.STARTED: "a stream"}

    def found(filters, limit):
        return [runs[status] for status in filters.statuses if status in runs][:limit]

    context = SimpleNamespace(instance=SimpleNamespace(get_run_ids=found))
    assert list(queue.run_iteration(None, context)) == []
    assert not looked
    runs[dg.DagsterRunStatus.QUEUED] = "a drain"
    list(queue.run_iteration(None, context))
    assert looked == [1]


@pytest.mark.parametrize("name", dagster_internals.DAEMON.symbols)
def test_a_daemon_that_cannot_run_ends_with_its_own_exit_code(name, remove):
    remove(dagster_internals.DAEMON, name)
    with pytest.raises(SystemExit, match=str(LACKING)):
        daemon.main("any")
    dagster_internals._load.cache_clear()
    assert standby_daemon.main(["--workspace", "any"]) == LACKING


@pytest.mark.parametrize("name", dagster_internals.CODE_SERVER.symbols)
def test_a_code_server_that_cannot_run_ends_with_its_own_exit_code(name, remove):
    remove(dagster_internals.CODE_SERVER, name)
    with pytest.raises(SystemExit, match=str(LACKING)):
        daemon.serve_definitions("any", "any", "any", anew=False)


def test_when_a_program_lacks_something_dagster_dev_runs_instead(tmp_path, monkeypatch):
    """The supervisor is a process of its own here: it becomes another program."""
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(
        "load_from: [{python_module: {module_name: a_module, location_name: a_name}}]"
    )
    become = (
        "import os, sys\n"
        "from position_sync_dagster.dagster_host import services\n"
        "def ends(self):\n"
        "    raise services.DagsterLacksError\n"
        "services.Supervisor.run = ends\n"
        "os.execv = lambda path, words: (print(*words[1:]), os._exit(3))\n"
        f"services.main(['--port', '4711', '--workspace', {str(workspace)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", become],
        capture_output=True,
        text=True,
        env=os.environ | {"DAGSTER_HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 3, done.stderr
    words = f"-m dagster dev --workspace {workspace} --host 127.0.0.1 --port 4711"
    assert words in done.stdout
    assert done.stdout.count("`dagster dev` runs instead") == 1


def test_a_supervisor_notices_the_exit_code_of_a_program_that_lacks_something(monkeypatch):
    program = services.Program("webserver", "none", "at", ask=lambda: services.ProgramAnswer.NONE)
    program.process = SimpleNamespace(exitcode=LACKING)
    with pytest.raises(services.DagsterLacksError):
        program.look()


@pytest.mark.parametrize(
    "internal", [dagster_internals.EVENT_TABLES, dagster_internals.TICKS], ids=["events", "ticks"]
)
def test_what_cannot_be_deleted_from_dagsters_storage_stays(internal, remove):
    now = datetime.now(UTC)
    with dg.instance_for_test() as instance:
        remove(internal, next(iter(internal.symbols)))
        if internal is dagster_internals.TICKS:
            maintenance.forget_old_ticks(instance, now=now)
        else:
            assert maintenance.forget_old_events(instance, before=now, keep=0) == 0
            assert maintenance.lost_runs(instance) == []


def test_a_check_without_its_materialization_is_still_logged(remove):
    remove(dagster_internals.CHECKED_EVENT)
    target = SimpleNamespace(storage_id=1, run_id="run", timestamp=0.0)
    event = check_evaluation(
        dg.AssetCheckKey(dg.AssetKey("an_asset"), "a_check"), unknown_result("why"), target
    )
    assert (event.check_name, event.target_materialization_data) == ("a_check", None)


@pytest.mark.parametrize("name", dagster_internals.LOADING.symbols)
def test_the_trading_days_are_looked_up_where_they_cannot_be_passed_on(name, remove):
    remove(dagster_internals.LOADING, name)
    days, first = daily_positions.known_days(load_settings())
    assert days.calendar == load_settings().calendar
    assert first <= datetime.now(UTC).date()


def test_an_engine_is_made_once_for_a_database_and_the_oldest_is_forgotten(monkeypatch):
    made = []

    def create(url, **options):
        made.append(url)
        return object()

    engine_for = dagster_internals._keeping(create)
    options = {"connect_args": {"timeout": 5}}
    assert engine_for("one", **options) is engine_for("one", **options)
    assert engine_for("one") is not engine_for("one", **options)
    for number in range(dagster_internals.ENGINES_KEPT):
        engine_for(str(number))
    engine_for("one")
    assert made.count("one") == 3


def test_a_run_opens_a_database_once_and_closes_it_at_its_end(tmp_path):
    made = _counted_engines()
    for _ in range(3):
        engine = made.create(f"sqlite:///{tmp_path}/one.db", poolclass=NullPool)
        with engine.connect() as connection, connection.begin():
            connection.execute(text("PRAGMA journal_mode=WAL"))
            connection.execute(text("CREATE TABLE IF NOT EXISTS events (text)"))
        engine.dispose()  # as the storage of events does
    assert made.opened == 1
    assert (tmp_path / "one.db-wal").exists()
    dagster_internals.close_connections()
    assert not (tmp_path / "one.db-wal").exists()


def test_the_database_of_an_older_run_is_closed(tmp_path):
    made = _counted_engines()
    for number in range(dagster_internals.ENGINES_KEPT + 1):
        with made.create(f"sqlite:///{tmp_path}/{number}.db").connect() as connection:
            connection.execute(text("PRAGMA journal_mode=WAL"))
            connection.execute(text("CREATE TABLE events (text)"))
            connection.commit()
    assert not (tmp_path / "0.db-wal").exists()
    assert (tmp_path / "1.db-wal").exists()
    dagster_internals.close_connections()


def test_a_database_that_was_made_anew_is_found_after_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(dagster_internals, "CONNECTED_S", 0)
    made = _counted_engines()
    for number in range(2):
        with made.create(f"sqlite:///{tmp_path}/one.db").connect() as connection:
            connection.execute(text(f"CREATE TABLE made_{number} (text)"))
        if number == 0:
            (tmp_path / "one.db").unlink()
    with create_engine(f"sqlite:///{tmp_path}/one.db").connect() as connection:
        assert inspect(connection).get_table_names() == ["made_1"]
    dagster_internals.close_connections()


def _counted_engines() -> SimpleNamespace:
    """Return `create`, as the storages of a run call it, and `opened`: how many connections."""
    made = SimpleNamespace(opened=0)

    def create(url: str, **options: object) -> Engine:
        engine = create_engine(url, **options)

        @listens_for(engine, "connect")
        def opened(*_: object) -> None:
            made.opened += 1

        return engine

    made.create = dagster_internals._keeping(create, connected=True)
    return made
