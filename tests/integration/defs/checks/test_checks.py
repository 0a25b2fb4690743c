"""The checks of ledger, values, requests and differences, over real tables."""

import asyncio
import json
import re
import shutil
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from typer.testing import CliRunner

from position_sync_dagster.cli import commands
from position_sync_dagster.cli.app import MODULE_OF
from position_sync_dagster.defs.assets.table_asset import reconciliation_breaks
from position_sync_dagster.defs.checks import tables
from position_sync_dagster.defs.checks.evaluation import NAMED
from position_sync_dagster.domain import reconciliation as differences
from position_sync_dagster.domain.account_values import AccountSummary
from position_sync_dagster.domain.gateway_session import SessionState
from position_sync_dagster.domain.holding import Completeness
from position_sync_dagster.domain.queue_request import Answer, QueueRequest
from position_sync_dagster.lake.schema import BROKER_POSITIONS
from position_sync_dagster.sync import reconciliation
from position_sync_dagster.sync.drain import drain
from position_sync_dagster.sync.reconciliation import ReconciliationService
from tests.support.constants import replace_constant
from tests.support.holdings import NOT_HELD

ACCOUNT = "DUSIM0001"


@pytest.mark.parametrize(("followed", "checked"), [("STK,OPT", 2), ("STK", 0)])
def test_rows_that_agree_with_the_broker_pass_and_types_that_are_not_followed_are_no_breaks(
    world, followed, checked
):
    world.set(sec_types=followed)
    world.hold(1, 2)
    world.row(1, 5)
    world.row(2, 5)
    evaluation = world.run_check(tables.agrees_with_the_broker)
    assert evaluation.passed is True
    assert evaluation.metadata["checked"].value == checked


def test_a_difference_that_the_next_drain_may_resolve_is_named_and_is_no_failure(
    world, monkeypatch
):
    world.hold(1, 2)
    world.row(1, 5)
    evaluation = world.passes(tables.agrees_with_the_broker)
    assert evaluation.metadata["unconfirmed"].value == 1
    assert evaluation.metadata["missing"].value == 1
    assert "1 first seen less than 15 s ago" in evaluation.description
    monkeypatch.setattr(differences, "CONFIRM_AFTER", timedelta(0))
    assert not world.check(tables.agrees_with_the_broker).passed
    world.row(2, 1)
    evaluation = world.passes(tables.agrees_with_the_broker)
    assert "unconfirmed" not in evaluation.metadata


def test_a_difference_from_before_the_clock_was_set_back_fails_the_check(world, lake, settings):
    world.hold(1, 2)
    world.row(1, 5)
    looked = asyncio.run(ReconciliationService(lake, settings).look())
    (missing,) = looked.discrepancies
    assert looked.unconfirmed == (missing,), "nothing has recorded it yet"
    lake.breaks.record({settings.gateway_id: [missing]}, at=world.ago(-3600))
    assert not world.check(tables.agrees_with_the_broker).passed


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_quantity_that_differs_is_an_error_with_its_row(world):
    world.hold(1, 2)
    world.row(1, 5, position=3.0)
    evaluation = world.fails(tables.agrees_with_the_broker)
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    assert evaluation.metadata["quantity"].value == 1
    assert evaluation.metadata["missing"].value == 1
    assert not {"statement", "unexplained"} & evaluation.metadata.keys(), "others look for these"
    records = evaluation.metadata["discrepancies"].records
    assert [record.data["type"] for record in records] == ["QUANTITY", "MISSING"]
    assert [record.data["conid"] for record in records] == [1, 2]


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_difference_that_a_person_accepted_passes_until_it_changes(world, lake):
    world.hold(1)
    world.row(1, 5, position=3.0)
    assert not world.check(tables.agrees_with_the_broker).passed
    [open_break] = lake.breaks.open_breaks()
    lake.breaks.accept(open_break.break_id, by="eva", note="assigned")
    evaluation = world.passes(tables.agrees_with_the_broker)
    assert evaluation.metadata["accepted"].value == 1
    world.row(1, 4, position=4.0)
    assert not world.check(tables.agrees_with_the_broker).passed


@pytest.mark.usefixtures("confirmed_at_once")
def test_an_old_row_is_a_warning_once_the_stream_had_time_to_confirm_it(world, monkeypatch):
    world.hold(1)
    world.row(1, 3600)
    world.passes(tables.agrees_with_the_broker)
    monkeypatch.setattr(reconciliation, "CONFIRMED_WITHIN", timedelta(0))
    evaluation = world.fails(tables.agrees_with_the_broker)
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert evaluation.metadata["stale"].value == 1


@pytest.mark.usefixtures("confirmed_at_once")
def test_an_old_row_that_answered_a_request_lately_is_not_old(world, lake, monkeypatch):
    monkeypatch.setattr(reconciliation, "CONFIRMED_WITHIN", timedelta(0))
    world.hold(1, 2)  # the value of both has moved, and the next request writes it
    for conid, age_s in ((1, 180.0), (2, 700.0)):
        answer = Answer(update_id=f"row-{conid}", confirmed_at=world.ago(age_s))
        world.row(conid, 3600, market_value=149.0, update_id=answer.update_id)
        (request,) = world.ask(conid)
        lake.queue.sync.claim_batch(limit=1)
        lake.queue.sync.mark_success(request, answers={request: answer})
    evaluation = world.fails(tables.agrees_with_the_broker)
    records = evaluation.metadata["discrepancies"].records
    [record] = records
    assert (record.data["type"], record.data["conid"]) == ("STALE", 2)


def test_an_incomplete_snapshot_is_no_pass_and_says_so(world):
    world.hold(1, completeness=Completeness.PARTIAL)
    world.row(1, 5)
    evaluation = world.fails(tables.agrees_with_the_broker)
    assert "does not cover every account" in (evaluation.description or "")
    assert evaluation.description.startswith(f"Unknown: the download of {ACCOUNT} has not ended")
    assert evaluation.metadata["unknown"].value is True
    assert "linked accounts" in evaluation.metadata["what_to_do"].value


@pytest.mark.usefixtures("confirmed_at_once")
def test_a_difference_beside_an_incomplete_snapshot_is_a_failure(world):
    world.hold(1, completeness=Completeness.PARTIAL)
    world.row(1, 5, position=3.0)
    evaluation = world.fails(tables.agrees_with_the_broker)
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    assert "1 discrepancies; the snapshot does not cover every account" in evaluation.description


def test_a_holding_without_a_value_is_named_and_is_not_zero(world):
    world.row(1, 5)
    world.row(2, 1, market_value=None, note="no quote")
    world.row(3, 1, market_value=0.0)
    world.row(4, 5, position=0.0, market_value=None)
    evaluation = world.fails(tables.legs_have_values)
    [row] = world.shown(evaluation)
    assert (row["conid"], row["note"]) == (2, "no quote")
    world.row(2, 1)
    assert world.check(tables.legs_have_values).passed


@pytest.mark.parametrize(
    "definition",
    [tables.agrees_with_the_broker, tables.legs_have_values, tables.values_match_the_broker],
)
def test_without_rows_nothing_is_known(world, lake, definition):
    evaluation = world.fails(definition)
    assert evaluation.metadata["unknown"].value is True


def test_a_value_outside_the_band_is_named_with_both_values(world):
    world.hold(1, 2, 3)
    world.row(1, 1, market_value=153.0)
    world.row(2, 1, market_value=190.0)
    world.row(3, 1, market_value=None)
    evaluation = world.fails(tables.values_match_the_broker)
    (row,) = world.shown(evaluation)
    assert row["conid"] == 2
    assert row["market_value"] == "190"
    assert row["broker_value"] == "150"
    assert evaluation.metadata["compared"].value == 2


def test_a_value_of_another_time_proves_nothing(world):
    world.hold(1)
    world.row(1, 20, market_value=190.0)
    assert world.check(tables.values_match_the_broker).passed


def received_at(world) -> datetime:
    """Return when the broker sent the value of a holding."""
    return world.read(BROKER_POSITIONS)["received_at"][0]


def test_a_value_is_compared_with_our_row_that_is_nearest_in_time(world):
    world.hold(1, 2)
    at = received_at(world)
    world.row(1, at, market_value=150.0)
    world.row(2, at, market_value=190.0)
    world.row(1, at + timedelta(seconds=3), more=[2], market_value=190.0)  # the market has moved
    (row,) = world.shown(world.fails(tables.values_match_the_broker))
    assert row["conid"] == 2
    assert row["broker_value"] == "150"


def test_a_few_cents_are_no_difference(world, monkeypatch):
    world.hold(1)
    replace_constant("value_band", 0.0)
    at = received_at(world)
    world.row(1, at - timedelta(seconds=1), market_value=150.04)
    assert world.check(tables.values_match_the_broker).passed
    world.row(1, at, market_value=150.06)
    assert not world.check(tables.values_match_the_broker).passed


def account_row(lake, at) -> None:
    lake.account_values.append([AccountSummary(account=ACCOUNT, cash=1.0, timestamp=at)])


def test_an_account_follows_its_holdings_and_not_the_clock(world, lake):
    world.hold(1)
    assert "have no row yet" in world.check(tables.account_values_follow).description
    account_row(lake, world.ago(3600))
    evaluation = world.fails(tables.account_values_follow)
    assert "10 min older than those of their holdings" in evaluation.description
    account_row(lake, world.ago(5))
    assert world.check(tables.account_values_follow).passed
    world.later(timedelta(hours=12))  # nothing changes in the night: the row stays right
    assert world.check(tables.account_values_follow).passed


def test_an_account_without_a_row_is_named_after_a_while(world, monkeypatch):
    world.hold(1)
    replace_constant("stale_after", timedelta())
    evaluation = world.fails(tables.account_values_follow)
    assert [row["account"] for row in world.shown(evaluation)] == [ACCOUNT]


def fail(lake, ids) -> None:
    lake.queue.sync.claim_batch(limit=50)
    lake.queue.sync.mark_failed_many(dict.fromkeys(ids, "not held"), retryable=False)


def test_requests_that_wait_for_a_moment_pass(world, lake):
    world.ask(1, 2)
    evaluation = world.passes(tables.requests_are_answered)
    assert evaluation.metadata["waiting"].value == 2


def test_while_no_request_failed_no_holding_is_read(world, lake):
    world.hold(1)
    world.ask(1)
    world.passes(tables.requests_are_answered)
    shutil.rmtree(f"{lake.broker_positions.table.path}/_delta_log")
    world.passes(tables.requests_are_answered)


def test_a_failed_request_is_named_with_its_error(world, lake):
    fail(lake, world.ask(1))
    evaluation = world.fails(tables.requests_are_answered)
    (row,) = world.shown(evaluation)
    assert row["conid"] == 1
    assert row["status"] == "FAILED"
    assert row["error_message"] == "not held"
    assert "queue retry" in evaluation.metadata["what_to_do"].value


def test_a_failure_counts_until_its_holding_is_valued(world, lake):
    fail(lake, world.ask(1))
    world.row(1, 60)
    assert not world.check(tables.requests_are_answered).passed
    world.row(1, -1)
    assert world.check(tables.requests_are_answered).passed


def test_a_failure_counts_until_a_later_request_is_answered_by_an_older_row(world, lake):
    world.row(1, 60, update_id="row-1")
    fail(lake, world.ask(1))
    assert not world.check(tables.requests_are_answered).passed
    (again,) = world.ask(1)
    lake.queue.sync.claim_batch(limit=50)
    lake.queue.sync.mark_success(again, answers={again: Answer(update_id="row-1")})
    assert world.check(tables.requests_are_answered).passed


def test_a_failure_of_a_closed_holding_or_one_that_is_tried_again_does_not_count(world, lake):
    world.row(1, 60, position=0.0)
    again = world.ask(2)
    fail(lake, [*world.ask(1), *again])
    lake.queue.sync.retry(again)
    assert world.check(tables.requests_are_answered).passed


@pytest.mark.parametrize("account", [ACCOUNT, None])
def test_a_request_for_a_holding_that_never_was_is_named_and_is_no_failure(
    world, lake, settings, account
):
    session = world.hold(1)
    world.row(1, 5)
    lake.queue.sync.insert_many([QueueRequest(99, "SPY", account=account)])
    assert asyncio.run(drain(lake, settings)).failed == 1
    evaluation = world.passes(tables.requests_are_answered)
    assert "1 failed, since no account has their holding" in evaluation.description
    (named,) = evaluation.metadata[NAMED].records
    assert named.data["conid"] == 99
    assert named.data["error_message"] == "No account of the login holds this conid."

    world.hold(1, session=session, completeness=Completeness.PARTIAL)  # as after a reconnect
    assert world.check(tables.requests_are_answered).passed
    world.hold(1, 99, session=session)
    assert not world.check(tables.requests_are_answered).passed, "the broker has it now"


@pytest.mark.parametrize("completeness", Completeness)
def test_only_a_complete_list_of_the_broker_says_that_a_holding_never_was(
    world, lake, completeness
):
    world.hold(1, completeness=completeness)
    fail(lake, world.ask(99))
    is_complete = completeness is Completeness.COMPLETE
    assert world.check(tables.requests_are_answered).passed is is_complete


def test_a_failure_of_a_holding_that_the_ledger_alone_has_counts(world, lake):
    world.hold(1)
    world.row(2, 60)
    fail(lake, world.ask(2))
    assert [row["conid"] for row in world.shown(world.fails(tables.requests_are_answered))] == [2]


def test_requests_that_wait_for_a_gateway_are_unknown_and_no_failure(world, monkeypatch):
    world.ask(1, 2)
    replace_constant("stale_after", timedelta(microseconds=1))
    evaluation = world.fails(tables.requests_are_answered)
    assert evaluation.description == "Unknown: no gateway, for which 2 requests wait."
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert "unevaluated" not in evaluation.metadata, "no message: a_stream_watches sends one"


def test_without_a_gateway_one_check_fails_and_what_needs_it_is_unknown(
    world, lake, settings, monkeypatch
):
    session = world.hold(1, 2)
    world.row(1, 5, more=[2])
    world.ask(1)
    lake.sessions.renew(session, lease_s=60.0, state=SessionState.BLIND)
    replace_constant("stale_after", timedelta(microseconds=1))
    monkeypatch.setattr(tables, "ERROR_AFTER", timedelta(0))
    checks = world.composition.checks
    results = {check.check_key.name: check.evaluate(lake, settings) for check in checks}
    wrong = {name: result for name, result in results.items() if not result.passed}

    watched = wrong.pop("a_stream_watches")
    assert watched.severity is dg.AssetCheckSeverity.ERROR
    assert {"agrees_with_the_broker", "lines_suffice", "requests_are_answered"} < wrong.keys()
    for result in wrong.values():
        assert result.severity is dg.AssetCheckSeverity.WARN
        assert (result.description or "").startswith("Unknown: no gateway")


def test_requests_that_wait_for_too_long_are_counted_and_twenty_are_shown(world, lake, monkeypatch):
    world.own()
    world.ask(*range(1, 101))
    replace_constant("stale_after", timedelta(microseconds=1))
    evaluation = world.fails(tables.requests_are_answered)
    assert {row["status"] for row in world.shown(evaluation)} == {"PENDING"}
    assert len(world.shown(evaluation)) == 20
    assert evaluation.metadata["found"].value == 100


@pytest.fixture
def breaks(lake):
    lake.breaks.record({"gateway": [NOT_HELD]}, datetime.now(UTC))
    return lake.breaks


def test_a_difference_that_nobody_decides_about_for_an_hour_fails_the_check(world, breaks):
    assert world.check(tables.breaks_are_decided).passed
    world.later(timedelta(hours=1, seconds=1))
    late = world.fails(tables.breaks_are_decided)
    (row,) = world.shown(late)
    assert row["symbol"] == "SPY"
    assert row["broker"] == ""
    assert row["tables"] == "2"
    (open_break,) = breaks.open_breaks()
    breaks.accept(open_break.break_id, "eva", "transferred out")
    accepted = world.passes(tables.breaks_are_decided)
    assert accepted.metadata["accepted"].value == 1


def test_an_observation_shows_the_open_differences(lake, breaks):
    metadata = tables.breaks_state(lake).metadata
    assert metadata["open/opened"] == 1
    assert metadata["open/confirmed"] == 0
    (row,) = metadata["open_breaks"].records
    assert row.data["detail"] == "not held at the broker"
    breaks.record({"gateway": []}, datetime.now(UTC))
    assert "open_breaks" not in tables.breaks_state(lake).metadata


def test_the_command_compares_now_and_records_nothing(world, lake):
    world.hold(7)
    shown = CliRunner().invoke(commands(), ["reconcile"]).stdout
    assert "1 holdings of all accounts compared" in shown
    assert shown.splitlines()[-1].split()[:3] == ["MISSING", "DUSIM0001", "7"]
    answer = json.loads(CliRunner().invoke(commands(), ["reconcile", "--json"]).stdout)
    assert [discrepancy["type"] for discrepancy in answer["discrepancies"]] == ["MISSING"]
    assert lake.breaks.open_breaks() == []


def test_the_page_names_only_commands_that_exist():
    texts = f"{reconciliation_breaks.description} {tables.breaks_are_decided.description}"
    named = re.findall(r"position-sync (\w+)", texts)
    assert named
    assert set(named) <= set(MODULE_OF)
