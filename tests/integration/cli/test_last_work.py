"""What `status` and `doctor` say of Dagster's programs."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from position_sync_dagster import dagster_files
from position_sync_dagster.cli.app import app
from position_sync_dagster.dagster_files import ENDED, SENSORS, SUPERVISOR, file_of
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import load_settings
from tests.support.ports import free_port


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(free_port()))
    Lake.of(load_settings()).initialize_sync()


def wrote(age_s: float) -> None:
    for program in (SUPERVISOR, SENSORS):
        dagster_files.note(program)
        at = time.time() - age_s
        os.utime(file_of(program), (at, at))


def status() -> str:
    return CliRunner().invoke(app, ["status"]).stdout


def finding() -> tuple[str, str]:
    """Return the level and the text of what `doctor` finds of the programs."""
    answer = CliRunner().invoke(app, ["doctor", "--json"])
    (found,) = [one for one in json.loads(answer.stdout)["findings"] if one["check"] == "programs"]
    assert answer.exit_code == 1, "the gateway is not there"
    return found["level"], found["text"]


def test_a_lake_that_is_not_running_is_no_error():
    assert "programs           none runs" in status()
    assert finding() == ("good", "none runs")


def test_programs_that_work_show_their_last_tick():
    wrote(4)
    assert re.search(r"last sensor tick \d\S* s ago\n", status())
    level, text = finding()
    assert level == "good"
    assert text.startswith("the last sensor tick was at ")


def test_programs_that_stopped_are_late_and_bad():
    wrote(400)
    text = status()
    assert "(late)" in text
    assert "attention          Programs have stopped or hang: the last sensor tick was at" in text
    level, text = finding()
    assert level == "bad"
    assert "Programs have stopped or hang" in text


def test_why_everything_ended_is_said_until_the_next_start():
    dagster_files.note(ENDED, "The webserver (process 7) ended with exit code 1.")
    assert "The webserver (process 7) ended with exit code 1." in status()
    assert finding()[0] == "bad"
