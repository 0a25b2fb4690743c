"""The checks on the ledger."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from position_sync_dagster.defs.position_checks import (
    a_stream_watches,
    agrees_with_the_broker,
    watched,
)
from position_sync_dagster.domain.broker import Completeness
from position_sync_dagster.domain.session import Owner, SessionState


@pytest.fixture
def check(materialize):
    """Run one check and give its evaluation."""

    def run(definition: dg.AssetChecksDefinition) -> dg.AssetCheckEvaluation:
        result = materialize(definition, selection=dg.AssetSelection.all_asset_checks())
        (found,) = result.get_asset_check_evaluations()
        return found

    return run


def test_rows_that_agree_with_the_broker_pass(check, own, hold, tell, ago) -> None:
    hold(own(), 1, 2)
    tell(1, ago(5))
    tell(2, ago(5))
    found = check(agrees_with_the_broker)
    assert found.passed
    assert found.metadata["checked"].value == 2


def test_a_quantity_that_differs_is_an_error_with_its_row(check, own, hold, tell, ago) -> None:
    hold(own(), 1, 2)
    tell(1, ago(5), position=3.0)
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert (found.metadata["quantity"].value, found.metadata["missing"].value) == (1, 1)
    records = found.metadata["discrepancies"].records
    assert [(r.data["type"], r.data["conid"]) for r in records] == [("QUANTITY", 1), ("MISSING", 2)]


def test_an_old_row_is_a_warning(check, own, hold, tell, ago) -> None:
    hold(own(), 1)
    tell(1, ago(3600))
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.metadata["stale"].value == 1


def test_an_incomplete_snapshot_is_no_pass_and_says_so(check, own, hold, tell, ago) -> None:
    hold(own(), 1, completeness=Completeness.PARTIAL)
    tell(1, ago(5))
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert "does not cover every account" in (found.description or "")


def test_without_a_word_from_the_broker_nothing_is_known(check, lake) -> None:
    found = check(agrees_with_the_broker)
    assert not found.passed
    assert (found.description or "").startswith("Unknown: ")


def test_checks_block_nothing() -> None:
    for definition in (agrees_with_the_broker, a_stream_watches):
        assert not any(spec.blocking for spec in definition.check_specs)


def test_a_stream_that_sees_the_gateway_passes(check, own) -> None:
    own()
    assert check(a_stream_watches).passed


def test_a_lake_without_a_stream_says_that_none_ran(check, lake) -> None:
    found = check(a_stream_watches)
    assert not found.passed
    assert "No stream has run yet" in (found.description or "")


@pytest.mark.parametrize(
    ("state", "owner", "said"),
    [
        (SessionState.BLIND, Owner.STREAM, "The stream does not see the gateway since"),
        (SessionState.STARTING, Owner.STREAM, "The stream does not see the gateway since"),
        (SessionState.LIVE, Owner.DRAIN, "No stream lives since"),
    ],
)
def test_a_login_without_eyes_is_a_warning_that_says_since_when(own, state, owner, said) -> None:
    session = own(state=state, owner=owner)
    result = watched(session, datetime.now(UTC))
    assert not result.passed
    assert result.severity is dg.AssetCheckSeverity.WARN
    assert (result.description or "").startswith(said)


def test_a_lease_that_ran_out_counts_from_the_last_heartbeat(own) -> None:
    session = own(lease_s=0.001)
    result = watched(session, datetime.now(UTC) + timedelta(minutes=5))
    assert 299 < result.metadata["blind_for_s"].value < 302
    assert (result.description or "").startswith("No stream lives since")
