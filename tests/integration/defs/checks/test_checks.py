"""The checks on the ledger."""

import asyncio
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.checks.tables import a_stream_watches, agrees_with_the_broker
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.sync.reports import reconciliation
from position_sync_dagster.sync.reports.reconciliation import ReconciliationService
from position_sync_dagster.sync.reports.status import read_status


@pytest.mark.parametrize(("followed", "checked"), [("STK,OPT", 2), ("STK", 0)])
def test_rows_that_agree_with_the_broker_pass_and_types_that_are_not_followed_are_no_breaks(
    check, own_login, write_holdings, append_row, seconds_ago, monkeypatch, followed, checked
):
    monkeypatch.setenv("POSITION_SYNC_SEC_TYPES", followed)
    write_holdings(own_login(), 1, 2)
    append_row(1, seconds_ago(5))
    append_row(2, seconds_ago(5))
    found = check(agrees_with_the_broker)
    assert (found.passed, found.metadata["checked"].value) == (True, checked)


def test_a_difference_that_the_next_drain_may_resolve_is_named_and_is_no_failure(
    check, own_login, write_holdings, append_row, seconds_ago, monkeypatch
):
    write_holdings(own_login(), 1, 2)
    append_row(1, seconds_ago(5))
    found = check(agrees_with_the_broker)
    assert found.passed
    assert (found.metadata["unconfirmed"].value, found.metadata["missing"].value) == (1, 1)
    assert "1 first seen less than 15 s ago" in found.description
    monkeypatch.setattr(reconciliation, "CONFIRM_AFTER", timedelta(0))
    assert not check(agrees_with_the_broker).passed
    append_row(2, seconds_ago(1))
    found = check(agrees_with_the_broker)
    assert found.passed
    assert "unconfirmed" not in found.metadata


def test_a_difference_from_before_the_clock_was_set_back_fails_the_check(
    check, own_login, write_holdings, append_row, seconds_ago, lake, settings
):
    write_holdings(own_login(), 1, 2)
    append_row(1, seconds_ago(5))
    (missing,) = asyncio.run(ReconciliationService(lake, settings).look()).discrepancies
    lake.breaks.record({settings.gateway_id: [missing]}, at=seconds_ago(-3600))
    assert not check(agrees_with_the_broker).passed


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_quantity_that_differs_is_an_error_with_its_row(
    check, own_login, write_holdings, append_row, seconds_ago
):
    write_holdings(own_login(), 1, 2)
    append_row(1, seconds_ago(5), position=3.0)
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert (found.metadata["quantity"].value, found.metadata["missing"].value) == (1, 1)
    records = found.metadata["discrepancies"].records
    assert [(r.data["type"], r.data["conid"]) for r in records] == [("QUANTITY", 1), ("MISSING", 2)]


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_difference_that_a_person_accepted_passes_until_it_changes(
    check, own_login, write_holdings, append_row, seconds_ago, lake
):
    write_holdings(own_login(), 1)
    append_row(1, seconds_ago(5), position=3.0)
    assert not check(agrees_with_the_broker).passed
    [one] = lake.breaks.open_breaks()
    lake.breaks.accept(one.break_id, by="eva", note="assigned")
    found = check(agrees_with_the_broker)
    assert found.passed
    assert found.metadata["accepted"].value == 1
    append_row(1, seconds_ago(4), position=4.0)
    assert not check(agrees_with_the_broker).passed


@pytest.mark.usefixtures("confirmed_at_once")
def test_an_old_row_is_a_warning(check, own_login, write_holdings, append_row, seconds_ago):
    write_holdings(own_login(), 1)
    append_row(1, seconds_ago(3600))
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["stale"].value == 1


def test_an_incomplete_snapshot_is_no_pass_and_says_so(
    check, own_login, write_holdings, append_row, seconds_ago
):
    write_holdings(own_login(), 1, completeness=Completeness.PARTIAL)
    append_row(1, seconds_ago(5))
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert "does not cover every account" in (found.description or "")


def test_a_lake_without_a_stream_says_that_none_ran(check, lake):
    found = check(a_stream_watches)
    assert not found.passed
    assert "No stream has run yet" in (found.description or "")


BLIND = "The stream has not seen the gateway since"


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (SessionState.LIVE, "A stream sees the gateway."),
        (SessionState.BLIND, BLIND),
        (SessionState.STARTING, BLIND),
    ],
)
def test_a_stream_without_connection_is_a_warning_with_the_time_since_when(
    check, own_login, state, text
):
    own_login(state=state)
    result = check(a_stream_watches)
    assert result.passed is (state is SessionState.LIVE)
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert (result.description or "").startswith(text)


def test_blind_since_does_not_move_when_the_next_session_is_blind_too(
    check, own_login, lake, settings
):
    """A restart and a rotation change nothing about a gateway that is not there."""
    own_login(state=SessionState.LIVE)
    blind = own_again(lake, settings, SessionState.BLIND)
    since = f"{blind.state_since:%H:%M:%S}"
    for state in (SessionState.STARTING, SessionState.BLIND):
        lake.sessions.end(lake.sessions.current(settings.gateway_id))
        later = own_login(state=state)
        assert later.state_since == blind.state_since
        status = read_status(lake, settings, datetime.now(UTC) + timedelta(seconds=1))
        assert status.blind_since == status.session_since == blind.state_since
        assert since in (check(a_stream_watches).description or "")


def own_again(lake, settings, state):
    """Renew the session that owns the login."""
    session = lake.sessions.current(settings.gateway_id)
    return lake.sessions.renew(session, lease_s=60.0, state=state)


def test_a_lease_that_ran_out_counts_from_the_last_heartbeat(check, own_login, later):
    own_login(lease_s=0.001)
    later(timedelta(minutes=5))
    result = check(a_stream_watches)
    assert 299 < result.metadata["blind_for_s"].value < 330
    assert (result.description or "").startswith("No stream has seen the gateway since")
