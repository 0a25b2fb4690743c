"""What is said of the programs by the files that they write."""

import os
import time

import pytest

from position_sync_dagster import last_work
from position_sync_dagster.last_work import ENDED, SENSORS, SUPERVISOR, file_of


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


def wrote(name: str, age_s: float) -> None:
    last_work.note(name)
    at = time.time() - age_s
    os.utime(file_of(name), (at, at))


@pytest.mark.parametrize(
    ("supervisor_s", "tick_s", "late"),
    [
        (None, None, False),
        (1, 29, False),
        (1, 40, True),
        (1, -3600, True),  # the clock was set back since
        (110, None, False),  # Dagster still starts
        (130, None, True),
        (None, 3600, False),  # `dagster dev` was ended, and nobody removed the file
    ],
)
def test_ticks_are_late_where_a_supervisor_has_not_ended(supervisor_s, tick_s, late):
    for name, age_s in ((SUPERVISOR, supervisor_s), (SENSORS, tick_s)):
        if age_s is not None:
            wrote(name, age_s)
    found = last_work.read()
    assert found.late is late
    assert bool(found.problems) is late
    assert (found.ticked_at is None) is (tick_s is None)
    last_work.clear()
    assert last_work.read() == last_work.NONE


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
