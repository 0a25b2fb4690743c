"""The supervisor: what ends or stops working is started again, and all ends together."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from position_sync_dagster import dagster_files
from position_sync_dagster.domain.retry import Backoff
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.processes import supervisor as module
from position_sync_dagster.processes.home import instance_file
from position_sync_dagster.processes.ports import LOOPBACK
from position_sync_dagster.processes.supervisor import CannotRunError, Program, Supervisor
from tests.support.demo_program import wait_for
from tests.support.ports import free_port

SLEEPS = ("python", "-c", "import time; time.sleep(600)")
FAILS = ("python", "-c", "raise SystemExit(3)")
SERVES = "import sys, http.server as h; h.HTTPServer(('127.0.0.1', int(sys.argv[1])), None)"
SERVES += ".serve_forever()"


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


@pytest.fixture
def running() -> Iterator[Callable[[Program], Program]]:
    programs: list[Program] = []

    def keep(program: Program) -> Program:
        program.delays = Backoff(first_s=0.01, longest_s=0.01)
        program.most_failures = 10
        programs.append(program)
        return program

    yield keep
    for one in programs:
        if one.process is not None:
            one.process.kill()
            one.process.wait()


def until(look: Callable[[], None], condition: Callable[[], object]) -> None:
    def looked() -> object:
        look()
        return condition()

    wait_for("what the supervisor does", looked, poll_s=0.01)


def test_it_has_no_library_that_it_does_not_use():
    libraries = {"dagster", "http.client", "polars", "pydantic", "ssl"}
    code = f"import sys, {module.__name__}; print({libraries} & sys.modules.keys())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "set()", printed.stderr


def test_a_program_that_is_killed_is_started_again_and_the_log_says_so(running, caplog):
    caplog.set_level("INFO")
    daemon = running(Program("daemon", *SLEEPS))
    daemon.keep()
    daemon.worked()
    first = daemon.process.pid
    daemon.process.kill()
    until(daemon.keep, lambda: daemon.process is not None and daemon.process.pid != first)
    assert caplog.messages == [
        f"The daemon (process {first}) was killed by signal 9. It is started again."
    ]
    assert not daemon.works
    assert str(first) in signs_of_life.read().problems[0], "`doctor` says so"

    daemon.worked()
    assert signs_of_life.read().problems == ()
    assert caplog.messages[1:] == ["The daemon works again."]


@pytest.mark.parametrize(("has_worked", "times"), [(False, 3), (True, 11)])
def test_a_program_that_ends_again_and_again_ends_everything_sooner_if_it_never_worked(
    running, has_worked, times
):
    webserver = running(Program("webserver", *FAILS))
    if has_worked:
        webserver.worked()
    with pytest.raises(CannotRunError, match=f"ended with exit code 3, {times} times in a row"):
        until(webserver.keep, lambda: False)


@pytest.fixture
def three(running, monkeypatch, tmp_path) -> Iterator[Supervisor]:
    """Return a supervisor of programs that do nothing, whose code server is reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "mend_sensor_states", lambda: False)

    port = free_port()
    supervisor = Supervisor(port)
    code = str(tmp_path / "code.sock")
    supervisor.code_server = running(Program("code server", *SLEEPS, address=code))
    supervisor.daemon = running(Program("daemon", *SLEEPS))
    supervisor.webserver = running(
        Program("webserver", "python", "-c", SERVES, str(port), address=(LOOPBACK, port))
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("code.sock")
        server.listen(64)
        yield supervisor


def test_without_ticks_tick_times_are_mended_and_code_server_and_daemon_are_started_again(
    three, monkeypatch, caplog
):
    mended = []

    def mend() -> bool:
        mended.append("times")
        return False

    monkeypatch.setattr(module, "mend_sensor_states", mend)
    three.tick_s = three._tick_s = 0.3
    until(three.look, lambda: three.daemon.process)
    before = three.code_server.process.pid, three.daemon.process.pid
    until(three.look, lambda: "has let no sensor tick" in caplog.text)
    assert mended
    until(three.look, lambda: three.code_server.process and three.daemon.process)
    assert {three.code_server.process.pid, three.daemon.process.pid}.isdisjoint(before)
    assert three._tick_s == 0.6, "the patience grows"
    dagster_files.note(dagster_files.WORKED_TICK)
    until(three.look, lambda: three.daemon.works)
    assert three._tick_s == 0.3


def test_a_person_who_switches_the_sensors_off_is_believed_and_no_program_is_started_again(
    three, monkeypatch, caplog
):
    caplog.set_level("INFO")
    three.tick_s = three._tick_s = three.longest_tick_s = 0.02
    monkeypatch.setattr(module, "mend_sensor_states", lambda: True)
    until(three.look, lambda: three.daemon.process)
    before = three.code_server.process.pid, three.daemon.process.pid
    until(three.look, lambda: caplog.text.count("is switched off") >= 3)
    assert (three.code_server.process.pid, three.daemon.process.pid) == before
    assert "switched off" in signs_of_life.read().problems[0]
    dagster_files.note(dagster_files.WORKED_TICK)
    until(three.look, lambda: three.daemon.works)
    assert signs_of_life.read().problems == ()


def test_the_programs_share_one_arena_of_memory_unless_the_environment_says_how_many(tmp_path):
    def environment(**env: str) -> dict[str, str]:
        where = {"dagster_home": tmp_path, "cwd": tmp_path, "ui_port": free_port()}
        with module.start(env=env, **where, log=tmp_path / "log") as programs:
            process = psutil.Process(programs.pid)
            wait_for("the environment", lambda: "DAGSTER_HOME" in process.environ())
            return process.environ()

    assert environment()["MALLOC_ARENA_MAX"] == "1"
    assert environment(MALLOC_ARENA_MAX="4")["MALLOC_ARENA_MAX"] == "4"


def test_what_dagster_stores_of_sensors_is_mended_by_a_program_of_its_own(tmp_path, caplog):
    shutil.copyfile(instance_file(), tmp_path / "dagster.yaml")
    assert module.mend_sensor_states() is False
    assert caplog.messages == []
    assert module.mend_sensor_states("position_sync_dagster.no_such_module") is False
    assert "cannot be read" in caplog.text


def test_ticks_keep_the_programs_and_a_failed_tick_counts(three):
    three.tick_s = three._tick_s = 0.5
    until(three.look, lambda: three.daemon.process)
    daemon = three.daemon.process
    end = time.monotonic() + 1.5

    def tick() -> None:
        dagster_files.note(dagster_files.FAILED_TICK)
        three.look()

    until(tick, lambda: time.monotonic() > end)
    assert three.daemon.process is daemon


def test_the_webserver_starts_with_the_first_tick_and_works_when_it_listens(three, caplog):
    caplog.set_level("INFO")
    until(three.look, lambda: three.daemon.process)
    assert three.webserver.process is None
    dagster_files.note(dagster_files.WORKED_TICK)
    until(three.look, lambda: three.webserver.works)
    three.webserver.process.kill()  # type: ignore[attr-defined]
    until(three.look, lambda: "The webserver works again." in caplog.messages)


def test_a_webserver_whose_port_another_program_took_never_works_and_the_end_says_what_to_do(
    three, caplog
):
    caplog.set_level("INFO")
    address = three.webserver.address
    dagster_files.note(dagster_files.WORKED_TICK)
    with socket.create_server(address) as taken:
        assert taken.getsockname() == address
        with pytest.raises(CannotRunError) as ended:
            until(three.look, lambda: three.webserver.works)
    assert f"another program listens at port {address[1]}" in str(ended.value)
    assert "UI_PORT=" in str(ended.value)
    assert "The webserver works again." not in caplog.messages


def test_the_pages_are_those_of_the_group_that_was_started():
    port = free_port()
    command = [sys.executable, "-c", SERVES, str(port)]
    with subprocess.Popen(command, start_new_session=True) as server:
        try:
            wait_for("the server", lambda: module.is_serving(port))
            assert module.is_serving(port, server.pid)
            assert not module.is_serving(port, os.getpgid(0))
        finally:
            server.kill()


def test_without_its_home_everything_ends(three, tmp_path):
    three.look()
    (tmp_path / "workspace.yaml").unlink()
    three.look()
    three.gone_s = 0.0
    with pytest.raises(CannotRunError, match=f"The home {tmp_path} was deleted or moved"):
        three.look()


@pytest.mark.parametrize("name", ["deep" * 30, "my#home"])
def test_a_home_whose_path_is_no_address_of_a_socket_has_its_code_server_at_a_port(
    monkeypatch, tmp_path, name
):
    home = tmp_path / name
    home.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    Supervisor(free_port())
    assert '"port": ' in (home / "workspace.yaml").read_text()
