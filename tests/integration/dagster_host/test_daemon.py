"""The daemon of several hosts: one works, the others wait, and what makes them change places."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from sqlalchemy import text

from position_sync_dagster.dagster_host import dagster_internals, standby_daemon
from position_sync_dagster.dagster_host.standby_daemon import LOST
from tests.support import postgres
from tests.support.demo_program import LIMIT_S, clean_environment, wait_for
from tests.support.hosts import DEPLOY, ROOT
from tests.support.ports import free_port

pytestmark = pytest.mark.skipif(postgres.programs() is None, reason=postgres.MISSING)

WORKS, WAITS = "it holds the lock", "This one waits"


class Daemon:
    """One daemon, with a home and without a code location."""

    def __init__(
        self, folder: Path, environment: dict[str, str], instance: Path, *, in_a_pod: bool = False
    ) -> None:
        folder.mkdir()
        (folder / "dagster.yaml").write_text(instance.read_text())
        (folder / "workspace.yaml").write_text("load_from: []\n")
        self.output = folder / "output"
        words = [sys.executable, "-m", "position_sync_dagster.dagster_host.standby_daemon"]
        if in_a_pod:  # as Dagster's chart starts it
            words = ["/bin/sh", str(DEPLOY / "dagster-daemon"), "run"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        home = {"DAGSTER_HOME": str(folder), "PATH": path}
        self.environment = clean_environment() | environment | home
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*words, "-w", str(folder / "workspace.yaml")],
                cwd=folder,
                env=self.environment,
                stdout=output,
                stderr=output,
            )

    def says(self, text: str, times: int = 1) -> None:
        """Wait until it has logged a text so often."""

        def said() -> bool:
            return self.output.read_text().count(text) >= times

        wait_for(f"the daemon says {text!r}: {self.output.read_text()[-2000:]}", said)

    def is_healthy(self) -> bool:
        """Return what the health check of its container says."""
        services = yaml.safe_load((DEPLOY / "programs.yaml").read_text())["services"]
        check = services["daemon"]["healthcheck"]["test"][1:]
        return subprocess.run(check, env=self.environment, check=False).returncode == 0

    def end(self, sig: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(sig)
        return self.process.wait(LIMIT_S)


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Postgres]:
    with postgres.running() as server:
        yield server


@pytest.fixture
def start(tmp_path: Path, database: postgres.Postgres) -> Iterator[Callable[..., Daemon]]:
    started: list[Daemon] = []

    def run(
        instance: Path = DEPLOY / "dagster.yaml", *, in_a_pod: bool = False, **more: str
    ) -> Daemon:
        folder = tmp_path / f"host-{len(started)}"
        environment = database.environment | more
        started.append(Daemon(folder, environment, instance, in_a_pod=in_a_pod))
        return started[-1]

    yield run
    for daemon in started:
        daemon.end()


def test_a_daemon_that_stands_still_is_followed_by_the_other_and_ends_when_it_goes_on(start):
    first = start(in_a_pod=True)
    first.says(WORKS)
    second = start(in_a_pod=True)
    second.says(WAITS)
    assert WORKS not in second.output.read_text()
    for daemon in (first, second):
        wait_for("the health check passes", daemon.is_healthy, poll_s=5.0)
    os.kill(first.process.pid, signal.SIGSTOP)
    second.says(WORKS)
    os.kill(first.process.pid, signal.SIGCONT)
    assert first.process.wait(LIMIT_S) == LOST
    assert second.end(signal.SIGTERM) == 0


def test_a_daemon_waits_for_postgres_and_ends_when_postgres_does(start, database):
    database.stop()
    try:
        daemon = start()
        daemon.says("Postgres cannot be used; trying again")
    finally:
        database.start()
    daemon.says(WORKS)
    database.stop()
    try:
        assert daemon.process.wait(LIMIT_S) == LOST
    finally:
        database.start()


def test_a_wrong_password_is_told_and_never_shown(start):
    wrong = "wr0ng/p@ss:word"
    daemon = start(PGPASSWORD=wrong)
    daemon.says("password authentication failed")
    daemon.end()
    text = daemon.output.read_text()
    assert [part for part in (wrong, *wrong.split("/"), postgres.PASSWORD) if part in text] == []


def test_an_instance_without_postgres_is_refused_by_name(start):
    daemon = start(ROOT / "dagster_home" / "dagster.yaml")
    assert daemon.process.wait(LIMIT_S) == 1
    daemon.says("The storage of this Dagster instance is not Postgres")


def test_the_storages_share_a_connection_and_replace_one_that_postgres_has_ended(
    tmp_path, monkeypatch
):
    for name in dagster_internals.POSTGRES_STORAGES:
        module = import_module(name)
        monkeypatch.setattr(module, "create_pg_engine", module.create_pg_engine)
    (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
    with postgres.running() as database:
        for name, value in database.environment.items():
            monkeypatch.setenv(name, value)

        def backend(connection: Any) -> int:
            return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

        def served_by(instance: dg.DagsterInstance) -> int:
            with instance.run_storage.connect() as connection:
                return backend(connection)

        with dg.DagsterInstance.from_config(str(tmp_path)) as each_its_own:
            assert each_its_own.get_ref().storage_data.module_name == "dagster_postgres"
            assert served_by(each_its_own) != served_by(each_its_own)
        dagster_internals.keep_postgres_connections()
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            kept = served_by(instance)
            assert instance.get_runs_count() == 0
            with instance.event_log_storage.index_connection() as shared:
                assert backend(shared) == kept
            with dg.DagsterInstance.from_config(str(tmp_path)) as of_the_same_process:
                assert served_by(of_the_same_process) == kept
            database.execute(f"SELECT pg_terminate_backend({kept})")
            assert instance.get_runs_count() == 0
            assert served_by(instance) != kept
            with (
                instance.run_storage.connect() as first,
                instance.event_log_storage.index_connection() as second,
            ):
                assert backend(first) != backend(second)


def test_the_daemon_begins_when_the_code_server_listens_or_after_a_while(monkeypatch):
    here = SimpleNamespace(host="127.0.0.1", port=free_port())
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            listener.bind((here.host, here.port))
            listener.listen()

    monkeypatch.setattr(standby_daemon.time, "sleep", sleep)
    with socket.socket() as listener:
        standby_daemon.await_code_servers([SimpleNamespace(socket="x"), here])
    assert len(slept) == 3
    monkeypatch.setattr(standby_daemon, "CODE_S", 0.0)
    standby_daemon.await_code_servers([here])
    assert len(slept) == 3
