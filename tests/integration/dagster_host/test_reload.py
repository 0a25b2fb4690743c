"""A reload: another code server takes the place of the present one, or the present one stays."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from position_sync_dagster import places
from position_sync_dagster.dagster_host import reload_request
from position_sync_dagster.dagster_host.services import Program, ProgramAnswer, Supervisor
from tests.support import supervised
from tests.support.demo_program import wait_for

ROOT = Path(__file__).parents[3]


@pytest.fixture
def supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Supervisor]:
    """Return a supervisor whose code servers are programs of the test, with its first one."""
    monkeypatch.chdir(ROOT)  # where the support of the tests is found
    numbers = iter(range(1, 9))

    def program(self: Supervisor, *, anew: bool = False) -> Program:
        socket = tmp_path / f"code-{next(numbers)}"
        words = ("fails",) if anew and request.param == "fails" else ()
        called = (supervised.__name__, "main", str(socket), "", *words)
        works = lambda: ProgramAnswer.YES if socket.exists() else ProgramAnswer.NONE  # noqa: E731
        found = Program("helper", *called, ask=works)
        found.socket = socket
        return found

    monkeypatch.setattr(Supervisor, "_new_code_server", program)
    found = Supervisor(port=1, workspace=str(places.workspace_file()), folder=tmp_path)

    def works() -> bool:
        found.code_server.look()
        return found.code_server.works

    wait_for("the first code server works", works)
    yield found
    found.end("")


def until_answered(supervisor: Supervisor, asked: Path) -> None:
    def answered() -> bool:
        supervisor._look_at_reload()
        return not asked.exists() or bool(asked.read_text())

    wait_for("the reload is answered", answered)


@pytest.mark.parametrize("supervisor", ["works"], indirect=True)
def test_another_code_server_gets_the_socket_and_the_former_goes_on_until_its_last_call(
    supervisor, tmp_path
):
    former, asked = supervisor.code_server, reload_request(tmp_path / "code-1")
    asked.touch()
    until_answered(supervisor, asked)
    assert not asked.exists()
    assert (tmp_path / "code").resolve() == tmp_path / "code-2"
    assert supervisor.code_server.process.pid != former.process.pid
    assert former.process.is_alive()


@pytest.mark.parametrize("supervisor", ["fails"], indirect=True)
def test_code_with_which_no_server_starts_leaves_the_present_one_and_says_why(
    supervisor, tmp_path, caplog
):
    present, asked = supervisor.code_server, reload_request(tmp_path / "code-1")
    asked.touch()
    until_answered(supervisor, asked)
    assert "the cause of it" in asked.read_text()
    assert (tmp_path / "code").resolve() == tmp_path / "code-1"
    assert supervisor.code_server is present
    assert present.process.is_alive()
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert line.startswith("The code was not loaded anew. ")


@pytest.mark.parametrize("supervisor", ["works"], indirect=True)
def test_a_code_server_that_ends_while_it_reloads_is_started_again_and_no_other(
    supervisor, tmp_path
):
    asked = reload_request(tmp_path / "code-1")
    asked.touch()
    supervisor._look_at_reload()
    successor = supervisor._successor
    supervisor.code_server.end_at_once()
    supervisor._look_at_reload()
    assert not asked.exists()
    assert supervisor._successor is None
    assert successor.process is None
