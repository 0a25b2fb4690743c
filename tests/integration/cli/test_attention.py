"""What `status` and `doctor` say of trouble, and what `dev` refuses to start without."""

import json
import os
import re
from io import BytesIO, TextIOWrapper

import pytest
from typer.testing import CliRunner

from position_sync_dagster import dagster_files
from position_sync_dagster.cli import commands
from position_sync_dagster.domain.queue_request import QueueRequest
from position_sync_dagster.errors import LakeError, SettingsError
from position_sync_dagster.processes.preflight import check_settings
from position_sync_dagster.settings import load_settings
from tests.support.command_line import attention, call, ended, run
from tests.support.demo_program import wait_for
from tests.support.object_store import stored_under
from tests.support.ports import free_port
from tests.unit.test_dagster_files import wrote


def test_a_missing_then_broken_then_good_strategies_file_shows(lake, monkeypatch, tmp_path):
    assert attention() == [], "nothing at first"
    file = tmp_path / "mine.yaml"
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(file))
    [missing] = attention()
    assert "mine.yaml: there is no such file" in missing
    file.write_text("strategies: [{strategy_id: a}]\n")
    [broken] = attention()
    assert "'legs' is missing" in broken
    assert "mine.yaml" in run("status").partition("attention")[2]
    file.write_text("strategies: [{strategy_id: a, legs: []}]\n")
    assert attention() == []


def test_failed_requests_show(lake):
    ids = lake.queue.sync.insert_many([QueueRequest(1, "SPY", 1, "DU1")])
    lake.queue.sync.mark_failed_many(dict.fromkeys(ids, "no value"), retryable=False)
    assert any("1 request is FAILED" in text for text in attention())


def test_a_terminal_of_another_encoding_shows_what_it_lacks_in_ascii(lake):
    terminal = TextIOWrapper(BytesIO(), encoding="latin-1", write_through=True)
    assert ended("status", output=terminal) == 0
    assert b"lines              \\u2013\n" in terminal.buffer.getvalue()


def test_output_into_a_pipe_that_is_closed_ends_without_a_word(lake, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        code = ended("strategies", "list", "--json", output=pipe)
    assert code == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["status"], ["strategies", "list"], ["doctor"]])
def test_a_command_that_only_reads_makes_no_tables_in_a_store(store, monkeypatch, command):
    lake = store.lake()
    monkeypatch.setenv("POSITION_SYNC_LAKE", lake)
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(free_port()))
    answer = CliRunner().invoke(commands(), command)
    assert answer.exit_code == 1
    said = answer.output
    if isinstance(answer.exception, LakeError):
        said = str(answer.exception)

    assert f"tables at {lake} yet" in said or f"none at {lake} yet" in said
    assert ("Nothing listens at" in said) is (command == ["doctor"])
    wait_for("the probes of the store are deleted", lambda: stored_under(lake) == {})


def test_an_exchange_that_is_not_known_is_named_before_dagster_loads_nothing(
    monkeypatch, refuse, tmp_path
):
    monkeypatch.setenv("POSITION_SYNC_CALENDAR", "xnys")
    named = "POSITION_SYNC_CALENDAR='xnys' is not a known exchange."
    code, printed = refuse("dev", "--ui-port", str(free_port()))
    assert code == 2
    assert list(tmp_path.iterdir()) == []
    assert named in printed
    with pytest.raises(SettingsError, match=re.escape(named)):
        check_settings(load_settings(), {}, env_file=None)


@pytest.mark.parametrize("content", [None, "strategies: 7\n"])
def test_dev_does_not_start_without_the_strategies_file_that_is_configured(
    monkeypatch, refuse, tmp_path, content
):
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("POSITION_SYNC_STRATEGIES_FILE", str(file))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster_home"))
    code, printed = refuse("dev", "--ui-port", str(free_port()))
    assert code == 2
    assert "mine.yaml" in printed
    assert not (tmp_path / "dagster_home").exists()


def worked(ago_s: float) -> None:
    for program in (dagster_files.SUPERVISOR, dagster_files.WORKED_TICK):
        wrote(program, ago_s)


ENDED_BY = "The webserver (process 7) ended with exit code 1."
BY_ITSELF = re.escape(f"Everything ended by itself. {ENDED_BY}")
LATE = "Programs have stopped or hang"


@pytest.mark.parametrize(
    ("past", "shown", "level", "said"),
    [
        (lambda: None, "programs           none runs", "good", "^none runs$"),
        (lambda: worked(4), r"last sensor tick \d\S* s ago\n", "good", "^the last sensor tick was"),
        (lambda: worked(400), rf"\(late\)(.|\n)*attention  +{LATE}: the last", "bad", LATE),
        (
            lambda: dagster_files.note(dagster_files.ENDED_FILE, ENDED_BY),
            BY_ITSELF,
            "bad",
            BY_ITSELF,
        ),
    ],
)
def test_what_the_programs_did_last_is_said_by_status_and_by_doctor(
    lake, monkeypatch, tmp_path, past, shown, level, said
):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(free_port()))
    past()
    assert re.search(shown, run("status"))
    answer = call("doctor", "--json")
    (row,) = [
        finding
        for finding in json.loads(answer.stdout)["findings"]
        if finding["check"] == "programs"
    ]
    assert answer.exit_code == 1, "the gateway is not there"
    assert row["level"] == level
    assert re.search(said, row["text"])
