"""A program that ends or hangs is started again: real processes, real kills."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import psutil
import pytest

from position_sync_dagster.dagster_host import services, share_fork_server
from position_sync_dagster.dagster_host.services import CannotRunError, Program, ProgramAnswer
from position_sync_dagster.domain.clock import Backoff
from tests.support import supervised
from tests.support.demo_program import wait_for

ROOT = Path(__file__).parents[3]

Make = Callable[..., Program]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the support of the tests is found
    monkeypatch.setattr(services, "ASK_S", 0.05)
    monkeypatch.setattr(services, "HANG_S", 1.0)
    monkeypatch.setattr(services, "REFUSED_S", 0.2)
    monkeypatch.setattr(services, "RESTART", Backoff(first_s=0.01, longest_s=0.01))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Program] = []

    def program(
        *words: str, child: Path | str = "", ask: Callable[[], ProgramAnswer] | None = None
    ) -> Program:
        sign = tmp_path / "sign"
        seen: list[int] = []

        def gave_a_sign() -> ProgramAnswer:
            at = sign.stat().st_mtime_ns if sign.exists() else 0
            new = at not in seen
            seen[:] = [at]
            return ProgramAnswer.YES if new and at else ProgramAnswer.NONE

        called = (supervised.__name__, "main", str(sign), str(child), *words)
        made.append(Program("helper", *called, ask=ask or gave_a_sign))
        return made[-1]

    yield program
    for one in made:
        one.end_at_once()
    with_child = tmp_path / "child"
    if with_child.exists() and psutil.pid_exists(int(with_child.read_text())):
        psutil.Process(int(with_child.read_text())).kill()


def until_it_works(program: Program) -> int:
    def works() -> int | None:
        program.look()
        return program.process.pid if program.process is not None and program.works else None

    found: int = wait_for("it works", works, poll_s=0.02)
    return found


def until_another_works(program: Program, before: int) -> int:
    def works() -> int | None:
        program.look()
        process = program.process
        return process.pid if process and program.works and process.pid != before else None

    found: int = wait_for("another works", works, poll_s=0.02)
    return found


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("sig", "text"),
    [
        (signal.SIGKILL, "was killed by signal 9 (SIGKILL)"),
        (signal.SIGSTOP, "has not answered for"),
    ],
)
def test_one_that_is_killed_or_hangs_is_started_again_and_one_line_says_so(make, caplog, sig, text):
    program = make()
    first = until_it_works(program)
    psutil.Process(first).send_signal(sig)
    until_another_works(program, first)
    (line,) = said(caplog)
    assert f"The helper (process {first})" in line
    assert text in line


def test_what_it_started_outlives_it_like_the_runs_of_the_daemon(make, tmp_path):
    program = make(child=tmp_path / "child")
    first = until_it_works(program)
    child = psutil.Process(int((tmp_path / "child").read_text()))
    psutil.Process(first).kill()
    until_another_works(program, first)
    assert child.is_running()
    child.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_it_and_what_it_starts_are_forked_from_one_process_and_have_their_names(make, tmp_path):
    program = psutil.Process(until_it_works(make(child=tmp_path / "child")))
    child = psutil.Process(int((tmp_path / "child").read_text()))
    wait_for("the child has its name", lambda: child.name() == "child")
    assert program.name() == "helper"
    assert child.ppid() == program.ppid() != os.getpid()


def test_a_python_without_the_private_symbol_of_the_fork_server_starts_another_one(monkeypatch):
    monkeypatch.delattr(forkserver, "_forkserver")
    own = forkserver.ensure_running
    share_fork_server()
    assert forkserver.ensure_running is own


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")
def test_when_the_process_ends_from_which_it_was_forked_it_is_started_again(make, caplog):
    program = make()
    first = psutil.Process(until_it_works(program))
    first.parent().kill()
    until_another_works(program, first.pid)
    assert not first.is_running()
    assert "has lost the process from which it was forked" in said(caplog)[0]


def test_one_that_answers_with_an_error_is_started_again(make, caplog):
    answers = [ProgramAnswer.YES]
    program = make(ask=lambda: answers[-1])
    first = until_it_works(program)
    answers.append(ProgramAnswer.ERROR)

    def lost() -> bool:
        program.look()
        return program.process is None

    wait_for("it is given up", lost, poll_s=0.02)
    answers.append(ProgramAnswer.YES)
    until_another_works(program, first)
    assert "does not work any more" in said(caplog)[0]


def test_one_that_ends_at_its_first_start_is_not_tried_again_and_the_cause_is_said(make):
    program = make("fails")
    program.look()
    with pytest.raises(CannotRunError) as found:
        wait_for("it ends", program.look)
    for part in ("The helper (process ", "exit code 3", "I cannot work", "the cause of it"):
        assert part in str(found.value)


def test_one_that_is_killed_again_and_again_ends_everything(make, monkeypatch):
    monkeypatch.setattr(services, "MOST_RESTARTS", 7)
    program = make()
    for _ in range(7):
        psutil.Process(until_it_works(program)).kill()
        wait_for("it is noticed", lambda: program.look() or program.process is None)
    psutil.Process(until_it_works(program)).kill()
    with pytest.raises(CannotRunError, match=r"SIGKILL\), after 7 restarts within 10 minutes"):
        wait_for("it is given up", program.look)


def test_one_that_never_works_ends_everything(make, monkeypatch):
    monkeypatch.setattr(services, "START_S", 0.05)
    program = make(ask=lambda: ProgramAnswer.NONE)

    def look_on() -> None:
        program.look()  # True for a start

    with pytest.raises(CannotRunError, match=r"has not answered for .*, the 6th time in a row"):
        wait_for("it is given up", look_on, poll_s=0.02)


def test_the_supervisor_does_not_import_dagster():
    """It would take twice the memory, all the time."""
    code = f"import sys, {services.__name__}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dagster", "polars", "deltalake"} & set(done.stdout.split())
