"""What `status` and `doctor` say of Dagster's programs."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from position_sync_dagster import dagster_files
from position_sync_dagster.dagster_files import ENDED, SENSORS, SUPERVISOR, file_of
from position_sync_dagster.lake.lake import Lake
from position_sync_dagster.settings import load_settings
from tests.support.command_line import call, run
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


ENDED_BY = "The webserver (process 7) ended with exit code 1."
LATE = "Programs have stopped or hang"


@pytest.mark.parametrize(
    ("past", "shown", "level", "said"),
    [
        (lambda: None, "programs           none runs", "good", "^none runs$"),
        (lambda: wrote(4), r"last sensor tick \d\S* s ago\n", "good", "^the last sensor tick was"),
        (lambda: wrote(400), rf"\(late\)(.|\n)*attention  +{LATE}: the last", "bad", LATE),
        (lambda: dagster_files.note(ENDED, ENDED_BY), re.escape(ENDED_BY), "bad", ""),
    ],
)
def test_what_the_programs_did_last_is_said_by_status_and_by_doctor(past, shown, level, said):
    past()
    assert re.search(shown, run("status"))
    answer = call("doctor", "--json")
    (found,) = [one for one in json.loads(answer.stdout)["findings"] if one["check"] == "programs"]
    assert answer.exit_code == 1, "the gateway is not there"
    assert found["level"] == level
    assert re.search(said, found["text"])
