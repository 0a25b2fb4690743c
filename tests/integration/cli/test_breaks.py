"""The commands `breaks …`, on real tables."""

import getpass
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli.app import app
from position_sync_dagster.domain.reconciliation import Discrepancy, DiscrepancyType
from position_sync_dagster.errors import UnknownRequestError
from position_sync_dagster.lake.breaks import ReconciliationBreaks

AT = datetime(2026, 1, 2, 15, tzinfo=UTC)

NOT_HELD = Discrepancy(
    type=DiscrepancyType.SURPLUS, account="DUSIM1", conid=7, symbol="SPY\x1b[2J",
    expected=None, actual=2.0, detail="not held at the broker",
)  # fmt: skip


@pytest.fixture
def breaks(lake) -> ReconciliationBreaks:
    table = lake.breaks
    table.record("127.0.0.1:7497", [NOT_HELD], AT)
    return table


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["breaks", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_a_break_is_listed_accepted_and_reopened(breaks):
    [one] = breaks.open_breaks()
    assert one.break_id in run()
    assert "SPY\\x1b[2J" in run()
    accepted = run("accept", one.break_id, "--reason", "transferred out", "--by", "eva")
    assert "accepted by eva; transferred out" in accepted
    assert json.loads(run("list", "--json"))[0]["state"] == "ACCEPTED"
    assert "accepted_by" in run("show", one.break_id[:20])
    assert f"{getpass.getuser()} reopened it" in run("reopen", one.break_id)


def test_a_break_that_closed_before_thousands_of_others_is_shown(breaks):
    [one] = breaks.open_breaks()
    breaks.record(one.gateway_id, [], AT)
    others = [replace(NOT_HELD, conid=conid) for conid in range(8, 2_008)]
    breaks.record(one.gateway_id, others, AT)
    breaks.record(one.gateway_id, [], AT + timedelta(hours=1))
    assert "not held at the broker" in run("show", one.break_id)


def test_a_decision_needs_a_reason_and_a_break(breaks):
    [one] = breaks.open_breaks()
    with pytest.raises(SystemExit):
        run("accept", one.break_id, "--reason", " ")
    with pytest.raises(UnknownRequestError):
        run("accept", "no-such-id", "--reason", "transferred out")
    breaks.record("127.0.0.1:7497", [], AT)
    assert run() == "No break is open.\n"
    assert one.break_id in run("--closed")
