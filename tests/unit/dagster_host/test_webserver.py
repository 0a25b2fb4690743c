"""What the webserver says besides Dagster's pages."""

import json
import os
import time

import pytest
from starlette.requests import Request

from position_sync_dagster import last_work
from position_sync_dagster.dagster_host.webserver import stats


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


def answer() -> dict[str, list[dict[str, object]]]:
    return json.loads(bytes(stats(Request({"type": "http"})).body))


def test_nothing_is_wrong_while_nothing_runs():
    assert answer() == {"programs": [], "problems": []}


def test_a_sensor_that_missed_three_ticks_is_late_and_the_problem_says_what_to_do():
    for program in (last_work.SUPERVISOR, last_work.SENSORS):
        last_work.note(program)
    assert answer()["problems"] == []
    old = time.time() - 40
    os.utime(last_work.file_of(last_work.SENSORS), (old, old))
    found = answer()
    [sensors] = [one for one in found["programs"] if one["program"] == "sensors"]
    assert sensors["late"] is True
    assert float(str(sensors["seconds"])) >= 40
    assert "the last sensor tick at" in str(found["problems"][0])
