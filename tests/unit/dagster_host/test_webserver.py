"""What the webserver says besides Dagster's pages, how it ends, and what it does not log."""

import json
import logging
import os
import time
from importlib import import_module
from types import ModuleType

import pytest
from starlette.requests import Request

from position_sync_dagster import last_work
from position_sync_dagster.dagster_host import LACKING, dagster_internals

TRACEBACK = "Traceback (most recent call last):\n  File …\nasyncio.exceptions.CancelledError\n"


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def webserver() -> ModuleType:
    """Import it where these tests run: in each process that collects them it takes a second."""
    return import_module("position_sync_dagster.dagster_host.webserver")


@pytest.fixture
def answer(webserver):
    return lambda: json.loads(bytes(webserver.stats(Request({"type": "http"})).body))


def test_nothing_is_wrong_while_nothing_runs(answer):
    assert answer() == {"programs": [], "problems": []}


def test_a_sensor_that_missed_three_ticks_is_late_and_the_problem_says_what_to_do(answer):
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


def record(text: str, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord("dagster", logging.ERROR, __file__, 1, text, None, info)


def test_an_interrupt_leaves_no_traceback_and_another_error_does(webserver) -> None:
    assert not webserver.is_no_interrupt(record(TRACEBACK))
    ended = "Exception in ASGI application"
    assert not webserver.is_no_interrupt(record(ended, KeyboardInterrupt()))
    assert webserver.is_no_interrupt(record(ended, ValueError("no")))


@pytest.mark.parametrize("name", dagster_internals.WEBSERVER.symbols)
def test_a_webserver_that_cannot_run_ends_with_its_own_exit_code(name, webserver, monkeypatch):
    monkeypatch.delattr(import_module(dagster_internals.WEBSERVER.symbols[name]), name)
    dagster_internals._load.cache_clear()
    with pytest.raises(SystemExit, match=str(LACKING)):
        webserver.serve(host="127.0.0.1", port=0, workspace="any")
    dagster_internals._load.cache_clear()
