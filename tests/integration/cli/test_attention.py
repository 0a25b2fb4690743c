"""What `status` says of trouble that stops nothing, and what `dev` refuses to start without."""

import os
import re
from io import BytesIO, TextIOWrapper

import pytest
from typer.testing import CliRunner

from position_sync_dagster import cli
from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.holding import QueueRequest
from position_sync_dagster.errors import LakeError, SettingsError
from position_sync_dagster.processes.preflight import check_settings
from position_sync_dagster.settings import load_settings
from tests.support.command_line import attention, run
from tests.support.demo_program import wait_for
from tests.support.object_store import stored_under
from tests.support.ports import free_port


def test_nothing_needs_attention_at_first(lake):
    assert attention() == []


def test_a_missing_then_broken_then_good_strategies_file_shows(lake, monkeypatch, tmp_path):
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


def test_a_terminal_of_another_encoding_shows_what_it_lacks_in_ascii(lake, monkeypatch):
    terminal = TextIOWrapper(BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.argv", ["position-sync", "status"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert b"lines              \\u2013\n" in terminal.buffer.getvalue()


def test_output_into_a_pipe_that_is_closed_ends_without_a_word(lake, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["position-sync", "strategies", "list", "--json"])
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert (ended.value.code, capsys.readouterr().err) == (1, "")


@pytest.mark.parametrize("command", [["status"], ["strategies", "list"], ["doctor"]])
def test_a_command_that_only_reads_makes_no_tables_in_a_store(store, monkeypatch, command):
    lake = store.lake()
    monkeypatch.setenv("POSITION_SYNC_LAKE", lake)
    monkeypatch.setenv("POSITION_SYNC_GATEWAY_PORT", str(free_port()))
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 1
    said = str(answer.exception) if isinstance(answer.exception, LakeError) else answer.output
    assert f"tables at {lake} yet" in said or f"none at {lake} yet" in said
    assert ("Nothing listens at" in said) is (command == ["doctor"])
    wait_for("the probes of the store are deleted", lambda: stored_under(lake) == {})


def test_an_exchange_that_is_not_known_is_named_before_dagster_loads_nothing(
    monkeypatch, refuse, tmp_path
):
    monkeypatch.setenv("POSITION_SYNC_CALENDAR", "xnys")
    named = "POSITION_SYNC_CALENDAR='xnys' is not a known exchange."
    code, printed = refuse("dev", "--ui-port", str(free_port()))
    assert (code, list(tmp_path.iterdir())) == (2, [])
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
