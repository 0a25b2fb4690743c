"""What is said of programs by the files that they write."""

import os
import time

import pytest

from position_sync_dagster import last_work
from position_sync_dagster.last_work import ENDED, SENSORS, SUPERVISOR, file_of


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


def wrote(program: str, age_s: float) -> None:
    last_work.note(program)
    at = time.time() - age_s
    os.utime(file_of(program), (at, at))


def test_nothing_is_wrong_where_nothing_runs():
    assert last_work.read() == last_work.NONE
    assert last_work.NONE.problems == ()


def test_a_program_is_late_after_three_missed_times():
    wrote(SUPERVISOR, 1)
    wrote(SENSORS, 29)
    assert last_work.read().problems == ()
    wrote(SENSORS, 40)
    found = last_work.read()
    assert [one.program for one in found.late] == [SENSORS]
    (problem,) = found.problems
    assert f"the last sensor tick at {found.works[0].at:%H:%M:%S}" in problem


def test_a_program_that_stopped_before_the_clock_was_set_back_is_late():
    wrote(SUPERVISOR, 1)
    wrote(SENSORS, -3600)
    assert [one.program for one in last_work.read().late] == [SENSORS]


def test_after_an_end_in_order_nothing_is_late():
    for program in (SUPERVISOR, SENSORS):
        wrote(program, 3600)
    assert len(last_work.read().late) == 2
    last_work.clear()
    assert last_work.read() == last_work.NONE


def test_without_a_supervisor_an_old_tick_is_shown_but_not_wrong():
    wrote(SENSORS, 3600)  # Dagster's own `dagster dev` was ended, and nobody removed the file
    found = last_work.read()
    assert found.works[0].late
    assert found.problems == ()


def test_why_everything_ended_is_kept_until_the_next_start():
    last_work.note(ENDED, "The webserver (process 7) ended with exit code 1.")
    (problem,) = last_work.read().problems
    assert problem.startswith("Everything ended by itself. The webserver (process 7)")
    last_work.clear()
    assert last_work.read().problems == ()


def test_a_home_that_cannot_be_written_stops_no_program(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "missing"))
    last_work.note(SENSORS)
    assert last_work.read() == last_work.NONE
