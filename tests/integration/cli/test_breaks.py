"""The commands `breaks …`, on real tables."""

import getpass
import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pytest

from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.breaks import ReconciliationBreaks
from tests.support import command_line
from tests.support.holdings import NOT_HELD

AT = datetime(2026, 1, 2, 15, tzinfo=UTC)


@pytest.fixture
def breaks(lake) -> ReconciliationBreaks:
    lake.breaks.record({"127.0.0.1:7497": [replace(NOT_HELD, symbol="SPY\x1b[2J")]}, AT)
    return lake.breaks


run = partial(command_line.run, "breaks")


def test_a_break_is_listed_accepted_and_reopened(breaks):
    [open_break] = breaks.open_breaks()
    assert open_break.break_id in run()
    assert "SPY\\x1b[2J" in run()
    accepted = run("accept", open_break.break_id, "--reason", "transferred out", "--by", "eva")
    assert "eva          transferred out" in accepted
    assert json.loads(run("list", "--json"))[0]["state"] == "ACCEPTED"
    assert f"{getpass.getuser()} reopened it" in run("reopen", open_break.break_id)


def test_a_person_without_a_name_on_this_computer_is_asked_for_it(breaks, monkeypatch):
    [open_break] = breaks.open_breaks()
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31)
    for decision in (
        ["accept", open_break.break_id, "--reason", "out"],
        ["reopen", open_break.break_id],
    ):
        asked = command_line.call("breaks", *decision)
        assert asked.exit_code == 2
        assert "say it with --by" in asked.output


def test_a_decision_in_bytes_that_are_no_text_is_stored_as_text(breaks):
    [open_break] = breaks.open_breaks()
    run("accept", open_break.break_id, "--by", "eva\udc80", "--reason", "out\udc80")
    [accepted] = breaks.open_breaks()
    assert accepted.accepted_by == "eva\\udc80"
    assert accepted.note == "out\\udc80"
    assert "eva\\udc80 reopened it" in run("reopen", open_break.break_id, "--by", "eva\udc80")


def test_a_decision_needs_a_reason_and_a_break(breaks):
    [open_break] = breaks.open_breaks()
    assert (
        command_line.call("breaks", "accept", open_break.break_id, "--reason", " ").exit_code == 2
    )
    with pytest.raises(UnknownRequestError):
        run("accept", "no-such-id", "--reason", "transferred out")
    breaks.record({"127.0.0.1:7497": []}, AT)
    assert run() == "No break is open.\n"
    assert open_break.break_id in run("--closed")
