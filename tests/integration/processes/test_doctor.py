"""What `doctor` says of streams, checks and programs from the tables and files of a home."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from position_sync_dagster import dagster_files
from position_sync_dagster.dagster_files import FailingCheck
from position_sync_dagster.domain.clock import utc_now
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.money.lake import MoneyLake
from position_sync_dagster.money.reports import signs_of_life
from position_sync_dagster.processes import supervisor
from position_sync_dagster.processes.preflight import (
    Level,
    check_programs,
    check_results,
    check_streams,
    of_session,
)
from position_sync_dagster.settings import Settings
from tests.support.empty_lakes import put_tables
from tests.support.sessions import own

LOGIN = "127.0.0.1:7497"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def lake(tmp_path: Path) -> MoneyLake:
    put_tables(str(tmp_path / "lake"))
    return MoneyLake(str(tmp_path / "lake"))


@pytest.fixture
def streams(lake: MoneyLake, home: Path) -> Callable[[], list[tuple[Level, str]]]:
    settings = Settings(lake=lake.path)
    return lambda: [
        (result.level, result.text) for result in check_streams(lake, settings, home, {})
    ]


def test_a_stream_that_a_person_paused_is_bad_while_the_programs_work(lake, streams):
    session = own(lake, LOGIN)
    dagster_files.note(dagster_files.WORKED_TICK)
    assert streams() == []
    lake.sessions.end(session)
    assert streams() == [], "another one follows at once"
    ended = lake.sessions.current(session.gateway_id)
    lake.sessions.annotate(ended, "paused by a person at 12:00")
    ((level, text),) = streams()
    assert level is Level.BAD
    assert "paused by a person" in text


def test_a_stream_that_does_not_come_back_is_bad_and_nothing_is_said_while_no_program_runs(
    tmp_path, home, streams
):
    an_hour_ago = MoneyLake(str(tmp_path / "lake"), clock=lambda: utc_now() - timedelta(hours=1))
    own(an_hour_ago, LOGIN, lease_s=60.0)
    assert streams() == []
    dagster_files.note(dagster_files.WORKED_TICK)
    ((level, text),) = streams()
    assert level is Level.BAD
    assert "has had none since" in text


@pytest.mark.parametrize("state", [SessionState.LIVE, SessionState.BLIND, SessionState.STARTING])
def test_a_blind_stream_is_bad(lake, state):
    session = own(lake, LOGIN, state=state)
    assert (of_session(session).level is Level.BAD) is (state is SessionState.BLIND)


def test_a_failing_check_of_values_is_bad_and_another_one_a_warning(home):
    assert check_results(home) == []
    of_values = FailingCheck(name="position_updates: x", is_of_values=True, text="2 differ.")
    limit = FailingCheck(name="strategy_exposure: limit_y", is_of_values=False, text="Beyond it.")
    dagster_files.note_all(dagster_files.CHECKS, [of_values, limit])
    results = [(result.level, result.text) for result in check_results(home)]
    assert results == [
        (Level.BAD, "position_updates: x: 2 differ."),
        (Level.WARNING, "strategy_exposure: limit_y: Beyond it."),
    ]
    dagster_files.note_all(dagster_files.CHECKS, [])
    assert check_results(home) == []


def test_a_program_that_ended_is_bad_until_it_works_again(home):
    dagster_files.note(dagster_files.WORKED_TICK)
    text = "The webserver (process 7) was killed by signal 9. It is started again."
    dagster_files.note(f"{dagster_files.DOWN}webserver", text)
    (check_program,) = check_programs(home)
    assert check_program.level == Level.BAD
    assert check_program.text == text
    supervisor.remove(f"{dagster_files.DOWN}webserver")
    (check_program,) = check_programs(home)
    assert check_program.level is Level.GOOD
    for name in (f"{dagster_files.DOWN}daemon", dagster_files.ENDED_FILE):
        dagster_files.note(name, text)
    supervisor.clear()
    assert signs_of_life.read(home) == signs_of_life.NONE
